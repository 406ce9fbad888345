"""Check that a possible state of the ledger explains each answer.

Calls overlap, so that no single answer can be predicted, but the set of the allowed ones can. In
the end a user's history shows in which order the writes took effect, and every answer must be the
model's in one of the states that the call can have seen (`windows`): that is linearizability.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from credit_client import TransactionType, UserCredits
from credit_testing.accounts.journal import Unforeseen, Unknown

from tests.fuzz.history import History, Inexplicable, read_history
from tests.fuzz.journal import Acknowledged, Answer, Call, Journal, Kind, Read
from tests.fuzz.ledger_model import UINT32_MAX, Refused, State, Write, predict
from tests.fuzz.windows import Windows


def audit(journal: Journal, users: Sequence[int]) -> list[str]:
    """Find answers that no allowed order of events explains.

    Args:
        journal: All calls; the last ones read the histories of all users (`Callers.finish`).
        users: All users.

    Returns:
        One sentence for each finding; an empty list for a correct ledger.
    """
    histories: dict[int, History] = {}
    findings: list[str] = []
    for user in users:
        try:
            histories[user] = read_history(journal, user)
        except Inexplicable as finding:
            findings.append(str(finding))
    if findings:
        # Answers can be checked only against histories.
        return findings
    windows = Windows(journal, histories)
    for user, history in histories.items():
        findings.extend(_effect_findings(journal, user, history))
    for call in journal.calls:
        findings.extend(_answer_findings(call, histories, windows))
    return findings


def _effect_findings(journal: Journal, user: int, history: History) -> Iterator[str]:
    """Yield entries not acknowledged as new exactly once, unless the call was cancelled."""
    sent = journal.writes_by_key(user)
    for entry in history.entries:
        key = (entry.app_id, entry.idempotency_key)
        write, _ = history.states[-1].answers[key]
        answers = [call.answer for call, sent_write in sent[key] if sent_write == write]
        made = sum(isinstance(one, Acknowledged) and not one.done.replayed for one in answers)
        uncertain = any(isinstance(one, Unknown) for one in answers)
        if made > 1 or (made == 0 and not uncertain):
            yield f"{write} has happened, and was acknowledged as new {made} times: {answers}"


def _answer_findings(
    call: Call, histories: Mapping[int, History], windows: Windows
) -> Iterator[str]:
    match call.answer:
        case Unforeseen(error=error):
            yield f"{call.question} was answered with {error}"
            return
        case Unknown():
            return
    if isinstance(call.question, Write):
        allowed = [
            predict(state, call.question) for state in windows.states(call, call.question.user_id)
        ]
        answer = call.answer.done if isinstance(call.answer, Acknowledged) else call.answer
        if answer not in allowed:
            yield f"{call} is none of the allowed {_distinct(allowed)}"
        elif isinstance(call.answer, Acknowledged):
            yield from _receipt_findings(call.answer, histories[call.question.user_id])
    elif call.question.kind is Kind.APP_TOTAL:
        totals = _totals(call, histories, windows)
        if call.answer not in totals:
            yield f"{call} is none of the allowed totals {_distinct(totals)}"
    else:
        history = histories[call.question.user_id]
        states = windows.states(call, call.question.user_id)
        views = [_view(call.question, state, history) for state in states]
        if _seen(call.answer) not in views:
            yield f"{call} is none of the allowed {_distinct(views)}"


def _receipt_findings(answer: Acknowledged, history: History) -> Iterator[str]:
    if answer.done.sequence > len(history.entries):
        yield f"acknowledged and lost: {answer}"
        return
    entry = history.entries[answer.done.sequence - 1]
    if (answer.transaction_id, answer.purchase_id) != (entry.id, entry.purchase_id):
        yield f"{answer} is not of {entry}"


def _view(read: Read, state: State, history: History) -> object:
    """Return what a read shows of a state."""
    entries = history.entries[: state.sequence]
    match read.kind:
        case Kind.BALANCE:
            return state.balances.get(read.app_id, 0)
        case Kind.TRANSACTIONS:
            return list(entries)
        case Kind.PURCHASES:
            paid = sum(entry.type is TransactionType.USE for entry in entries)
            return list(history.purchases[:paid])
        case _:
            balances = sorted(state.balances.items())
            if not entries:
                return (read.user_id, 0, balances, None, None, 0, 0)
            first, last = entries[0], entries[-1]
            return (
                read.user_id,
                state.sequence,
                balances,
                *(first.created_at, last.created_at, first.created_by, last.created_by),
            )


def _seen(answer: Answer) -> object:
    """Return an answer in the form of `_view`."""
    if not isinstance(answer, UserCredits):
        return answer
    return (
        answer.user_id,
        answer.revision,
        [(entry.app_id, entry.balance) for entry in answer.balances],
        *(answer.created_at, answer.updated_at, answer.created_by, answer.updated_by),
    )


def _totals(call: Call, histories: Mapping[int, History], windows: Windows) -> list[int | Refused]:
    """Return all sums of one possible balance of each user."""
    assert isinstance(call.question, Read)
    app_id = call.question.app_id
    choices = [
        {state.balances.get(app_id, 0) for state in windows.states(call, user)}
        for user in histories
    ]
    sums = {sum(chosen) for chosen in itertools.product(*choices)}
    return [
        total if total <= UINT32_MAX else Refused(reason="APP_TOTAL_OVERFLOW", metadata=(total,))
        for total in sums
    ]


def _distinct(allowed: Sequence[object]) -> str:
    return "; ".join(Counter(map(str, allowed)))
