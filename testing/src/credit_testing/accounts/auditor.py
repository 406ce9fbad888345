"""Check that some order of the writes, and some times of their decisions, explain each answer.

The auditor knows neither the exact order nor the server's time. The histories show the order of the
writes, and the entries that were written before and after a call limit the time of its decision
(`windows`). An answer is right if the model gives it in one of the possible states, at one of the
possible times.
"""

import itertools
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from credit_models import (
    Balance,
    ExpiringCredits,
    ForecastStep,
    GetForecastResponse,
    Grant,
    Hold,
    HoldState,
    ListGrantsResponse,
    ListHoldsResponse,
    Purchase,
    Receipt,
    TransactionType,
    UserCredits,
)

from credit_testing.accounts.batches import batch_findings
from credit_testing.accounts.book import as_of
from credit_testing.accounts.journal import (
    Call,
    Journal,
    Kind,
    NoEffect,
    Outcome,
    Read,
    Together,
    Unforeseen,
    Unknown,
    Written,
)
from credit_testing.accounts.model import UINT32_MAX, Account, Entry
from credit_testing.accounts.policies import AppRules, Policies, applicable
from credit_testing.accounts.replay import History, Inexplicable, Replay, purchase_findings
from credit_testing.accounts.rules.decide import decide
from credit_testing.accounts.rules.decision import Decided, Refused, milliseconds
from credit_testing.accounts.rules.requests import (
    Write,
    apps_of,
    differing_fields,
    is_dry_run,
    users_of,
)
from credit_testing.accounts.windows import Windows

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)
_PREDICTED = tuple(entry.name for entry in fields(Receipt) if entry.name != "expires_at")
"""The fields of a receipt that the model predicts. Only the entry shows the exact time."""
_IDS = ("transaction_id", "purchase_id", "related_id")


def audit(
    journal: Journal,
    users: Sequence[int],
    policies: Policies,
    *,
    skew: timedelta = timedelta(0),
) -> list[str]:
    """Find answers that no allowed order of events explains.

    Args:
        journal: All calls. The last calls read everything (`Callers.finish`).
        users: All users.
        policies: The policies of apps.
        skew: How far the clocks of two servers may differ.

    Returns:
        One sentence for each finding; an empty list for a correct ledger.
    """
    try:
        replay = Replay(journal, users, policies, clocks_differ=bool(skew))
    except Inexplicable as finding:
        return [str(finding)]
    return audit_replayed(journal, replay, skew=skew)


def audit_replayed(
    journal: Journal, replay: Replay, *, skew: timedelta = timedelta(0)
) -> list[str]:
    """Find wrong answers, like `audit`, in histories that were already replayed."""
    return _Auditor(journal, replay, skew).findings()


class _Auditor:
    def __init__(self, journal: Journal, replay: Replay, skew: timedelta) -> None:
        self._journal = journal
        self._replay = replay
        self._histories = replay.histories
        self._windows = Windows(journal, replay.histories, skew)

    def findings(self) -> list[str]:
        found = [
            *self._effect_findings(),
            *batch_findings(self._journal.calls, self._histories),
            *purchase_findings(self._replay),
        ]
        for call in self._journal.calls:
            found.extend(self._answer_findings(call))
        return found

    def _effect_findings(self) -> Iterator[str]:
        """Yield entries that were not acknowledged as new exactly once, unless it is uncertain."""
        answers: dict[tuple[int, int, str], list[tuple[Write, object, Call]]] = {}
        for call in self._journal.calls:
            for request, answer in call.writes():
                assert request.user_id is not None
                key = (request.user_id, request.app_id, request.idempotency_key)
                answers.setdefault(key, []).append((request, answer, call))
        for history in self._histories.values():
            for entry in history.entries:
                if not entry.key:
                    continue
                sent = [
                    (answer, call)
                    for request, answer, call in answers[entry.user_id, entry.app_id, entry.key]
                    if self._is_request_of(request, entry)
                ]
                same = [answer for answer, _ in sent]
                made = sum(
                    isinstance(one, Receipt) and not (one.replayed or one.validated) for one in same
                )
                uncertain = any(
                    isinstance(one, Unknown)
                    or call.doubled
                    or (call.repeated and isinstance(one, Receipt))
                    for one, call in sent
                )
                if made > 1 or (made == 0 and not uncertain):
                    yield f"{entry} was acknowledged as new {made} times: {same}"

    def _is_request_of(self, request: Write, entry: Entry) -> bool:
        state = self._histories[entry.user_id].states[-1]
        assert state is not None
        original, _ = state.keys[entry.app_id, entry.key]
        return not differing_fields(original, request)

    def _answer_findings(self, call: Call) -> Iterator[str]:
        question, answer = call.question, call.answer
        if isinstance(answer, Unforeseen):
            yield f"{question} was answered with {answer.error}"
        elif isinstance(answer, Unknown | NoEffect):
            return
        elif isinstance(question, Read):
            yield from self._read_findings(call, question)
        elif call.loose:
            return
        elif isinstance(question, Written):
            assert isinstance(answer, Receipt | Refused)
            if isinstance(answer, Receipt) and not answer.validated:
                yield from self._receipt_findings(call, question.request, answer)
            else:
                yield from self._prediction_findings(call, (question.request,), (answer,))
        elif isinstance(question, Together):
            assert isinstance(answer, tuple)
            for request, one in zip(question.requests, answer, strict=True):
                if isinstance(one, Receipt) and not one.validated:
                    yield from self._receipt_findings(call, request, one)
            if any(isinstance(one, Refused) or one.validated for one in answer):
                yield from self._prediction_findings(call, question.requests, answer, together=True)

    def _receipt_findings(self, call: Call, request: Write, receipt: Receipt) -> Iterator[str]:
        """Yield a receipt that is not that of its entry, or of an entry at an impossible place."""
        user = users_of(request)[0]
        history = self._histories[user]
        if not 0 < receipt.sequence <= len(history.entries):
            yield f"acknowledged and lost: {receipt}"
            return
        entry = history.entries[receipt.sequence - 1]
        expected = _receipt(entry, history)
        expected.replayed = receipt.replayed
        own = (entry.user_id, entry.app_id, entry.key)
        if own != (user, request.app_id, request.idempotency_key) or receipt != expected:
            yield f"{request}: {receipt} is not {expected}"
            return
        if not self._is_request_of(request, entry):
            yield f"{request} was answered with the receipt of another request: {receipt}"
        least, greatest = self._windows.bounds(call, user)
        if entry.sequence > greatest or (not receipt.replayed and entry.sequence <= least):
            yield f"{receipt} is not between the entries {least} and {greatest} of user {user}"

    def _prediction_findings(
        self,
        call: Call,
        requests: tuple[Write, ...],
        answers: tuple[Outcome, ...],
        *,
        together: bool = False,
    ) -> Iterator[str]:
        """Yield rejections and dry runs that the model gives in no possible state and time."""
        first, last = self._windows.time_bounds(call)
        shown = [{_comparable(one)} for one in answers]
        for answer, alike in zip(answers, shown, strict=True):
            if isinstance(answer, Refused):
                alike.add(_comparable(_without_time(answer, first, last)))
        for circumstances in self._circumstances(call, requests):
            decisions: list[Decided | Refused] = []
            for decided in self._decisions(requests, *circumstances):
                place = len(decisions)
                if not self._can_be(decided, requests[place], answers[place], shown[place]):
                    break
                decisions.append(decided)
            else:
                outcomes = self._outcomes(decisions, requests, together=together)
                for possible in (outcomes, _decided_again(outcomes, requests)):
                    pairs = zip(possible, shown, strict=True)
                    if all(_comparable(one) in alike for one, alike in pairs):
                        return
        allowed = [
            str(self._outcomes([*self._decisions(requests, *each)], requests, together=together))
            for each in self._circumstances(call, requests)
        ]
        yield f"{call} is none of the allowed {'; '.join(dict.fromkeys(allowed))}"

    def _circumstances(
        self, call: Call, requests: Sequence[Write]
    ) -> Iterator[tuple[Mapping[int, Account], datetime, Mapping[int, AppRules]]]:
        """Yield the combinations of accounts, time and policies that can decide a call."""
        users = list(dict.fromkeys(user for request in requests for user in users_of(request)))
        apps = {app_id for request in requests for app_id in apps_of(request)}
        choices = list(applicable(self._replay.policies, apps, call.began, call.ended))
        for accounts in self._windows.accounts(call, users):
            moments = self._windows.times(call, accounts.values(), apps, requests)
            for now, rules in itertools.product(moments, choices):
                yield accounts, now, rules

    def _decisions(
        self,
        requests: Sequence[Write],
        stored: Mapping[int, Account],
        now: datetime,
        rules: Mapping[int, AppRules],
    ) -> Iterator[Decided | Refused]:
        """Decide requests one after the other, and yield each decision.

        If the clock of a server is slow, the server decides a request at the time of the latest
        entry.
        """
        accounts = dict(stored)
        for request in requests:
            own = {user: accounts[user] for user in users_of(request)}
            at = max(now, *(account.latest_at for account in own.values()))
            decided: Decided | Refused = decide(own, request, at, rules, self._replay.name)
            if isinstance(decided, Refused) and _settles_now(request, stored):
                decided = _without_time(decided, at, at)
            if isinstance(decided, Decided) and not is_dry_run(request):
                accounts.update(decided.accounts)
            yield decided

    def _can_be(
        self,
        decided: Decided | Refused,
        request: Write,
        answer: Outcome,
        alike: Collection[tuple[object, ...]],
    ) -> bool:
        """Return whether an answer can come from a decision.

        Only a few combinations of accounts, time and policies pass this check.
        """
        if isinstance(decided, Refused):
            # The id of the purchase depends on whether the batch is aborted, and is compared later.
            names_purchase = isinstance(answer, Refused) and (
                decided.reason == answer.reason == "ALREADY_PURCHASED"
            )
            return names_purchase or _comparable(self._refused(decided)) in alike
        if isinstance(answer, Refused):
            return answer.reason == "BATCH_ABORTED"
        receipt = self._previewed(decided, request)
        return _comparable(replace(receipt, replayed=answer.replayed)) in alike

    def _outcomes(
        self, decisions: Sequence[Decided | Refused], requests: Sequence[Write], *, together: bool
    ) -> list[Outcome]:
        """Return the outcomes of requests, including the effect of a rejection on a batch."""
        rejected = [
            index for index, decided in enumerate(decisions) if isinstance(decided, Refused)
        ]
        writes = [
            decided
            for decided, request in zip(decisions, requests, strict=True)
            if not is_dry_run(request)
        ]
        took_effect = bool(writes) and all(
            isinstance(decided, Decided) and decided.replayed for decided in writes
        )
        if together and rejected and not took_effect:
            aborted = Refused("BATCH_ABORTED", (("index", str(rejected[0])),))
            # The batch wrote none of these entries. A later retry can have written one with the
            # same key, and the model gives both the same id.
            own = {
                one.main.id for one in decisions if isinstance(one, Decided) and not one.replayed
            }
            return [
                self._refused(one, own) if isinstance(one, Refused) else aborted
                for one in decisions
            ]
        return [
            self._refused(one) if isinstance(one, Refused) else self._previewed(one, request)
            for one, request in zip(decisions, requests, strict=True)
        ]

    def _refused(self, refused: Refused, unwritten: Container[str] = ()) -> Refused:
        """Return a rejection with the id of its purchase; empty if its entry was not written."""
        if refused.reason != "ALREADY_PURCHASED":
            return refused
        ((_, entry_id),) = refused.metadata
        histories = () if entry_id in unwritten else self._histories.values()
        ids = [history.purchase_id(entry_id) for history in histories]
        return Refused(refused.reason, (("purchase_id", "".join(ids)),))

    def _previewed(self, decided: Decided, request: Write) -> Receipt:
        receipt = _receipt(decided.main, self._histories[decided.main.user_id])
        receipt.replayed = decided.replayed
        receipt.validated = not decided.replayed and is_dry_run(request)
        if receipt.validated:
            receipt.hash = b""
        return receipt

    def _read_findings(self, call: Call, read: Read) -> Iterator[str]:
        users = list(self._histories) if read.kind is Kind.APP_TOTAL else [read.user_id]
        allowed: list[object] = []
        for accounts in self._windows.accounts(call, users):
            every = {app_id for account in accounts.values() for app_id in account.apps}
            apps = every if read.kind is Kind.USER_CREDITS else {read.app_id}
            for now in self._windows.times(call, accounts.values(), apps):
                view = self._view(read, accounts, now)
                if call.answer == (view if isinstance(view, Refused | list) else [view]):
                    return
                allowed.append(view)
        yield f"{call} is none of the allowed {'; '.join(dict.fromkeys(map(str, allowed)))}"

    def _view(self, read: Read, accounts: Mapping[int, Account], now: datetime) -> object:
        """Return what a read shows of a state at a time."""
        if read.kind is Kind.APP_TOTAL:
            # A due change counts once it is written.
            total = sum(account.app(read.app_id).balance for account in accounts.values())
            if total > UINT32_MAX:
                return Refused("APP_TOTAL_OVERFLOW", (("total", str(total)),))
            return Balance(app_id=read.app_id, balance=max(0, total))
        stored = accounts[read.user_id]
        history = self._histories[read.user_id]
        if read.kind is Kind.TRANSACTIONS:
            return list(history.shown[: stored.sequence])
        if read.kind is Kind.PURCHASES:
            return _purchases(stored, history)
        account, _ = as_of(stored, now)
        revision = account.sequence
        match read.kind:
            case Kind.USER_CREDITS:
                return _user_credits(account, history)
            case Kind.BALANCE:
                return replace(_balance(account, read.app_id), revision=revision)
            case Kind.GRANTS:
                return replace(_grants(account, read.app_id), revision=revision)
            case Kind.OPEN_HOLDS:
                return replace(_holds(account, read.app_id, history), revision=revision)
            case Kind.HOLDS:
                return replace(_all_holds(account, read.app_id, history), revision=revision)
            case _:
                return replace(_forecast(account, read), revision=revision)


def _settles_now(request: Write, stored: Mapping[int, Account]) -> bool:
    """Return whether a hold that a request refers to was open before the requests of its call."""
    hold_id = getattr(request, "hold_id", "")
    fact = stored[users_of(request)[0]].facts.get(hold_id)
    return fact is not None and fact.settled is None


def _without_time(refused: Refused, first: datetime, last: datetime) -> Refused:
    """Return a rejection without the time of a settlement, if that can be the call's own time.

    If an earlier request of the call has settled the hold, its time is that of the decision, which
    is not known exactly.
    """
    own = range(milliseconds(first), milliseconds(last) + 1)
    kept = (pair for pair in refused.metadata if pair[0] != "settled_at" or int(pair[1]) not in own)
    return Refused(refused.reason, tuple(kept))


def _decided_again(outcomes: list[Outcome], requests: Sequence[Write]) -> list[Outcome]:
    """Return the outcomes of a batch that is decided again after a commit without an answer.

    Then all its writes are replayed, and their receipts are still new. `_receipt_findings` and
    `_effect_findings` check which receipts may be new.
    """
    again = [
        replace(outcome, replayed=False)
        if isinstance(outcome, Receipt) and outcome.replayed and not is_dry_run(request)
        else outcome
        for outcome, request in zip(outcomes, requests, strict=True)
    ]
    writes = zip(outcomes, again, requests, strict=True)
    complete = all(is_dry_run(request) or one != before for before, one, request in writes)
    return again if complete else outcomes


def _comparable(outcome: Outcome) -> tuple[object, ...]:
    """Return the values of an outcome that the model can predict.

    A dry run has no entry, so its ids are unknown. `_receipt_findings` compares the ids and the
    exact time of an entry.
    """
    if isinstance(outcome, Refused):
        return (outcome.reason, *(pair for pair in outcome.metadata if pair[0] != "starts_at"))
    unknown = _IDS if outcome.validated else ()
    return tuple(None if name in unknown else getattr(outcome, name) for name in _PREDICTED)


def _receipt(entry: Entry, history: History) -> Receipt:
    assert entry.final is not None
    revision, balance = entry.final
    receipt = Receipt(
        transaction_id=entry.id,
        purchase_id=history.purchase_id(entry.id),
        balance=max(0, balance),
        owed=max(0, -balance),
        sequence=entry.sequence,
        hash=history.hash(entry.id),
    )
    captures = entry.type is TransactionType.USE and entry.related_id
    if entry.type in (TransactionType.ADD, TransactionType.USE) and not captures:
        return receipt
    receipt.type = entry.type
    receipt.credits, receipt.effect = entry.credits, entry.effect
    receipt.balance_before = max(0, entry.balance - entry.effect)
    receipt.held, receipt.released_credits = entry.held, entry.released
    receipt.expires_at, receipt.related_id = entry.expires_at, entry.related_id
    receipt.revision = revision
    return receipt


def _purchases(account: Account, history: History) -> list[Purchase]:
    shown = {purchase.transaction_id: purchase for purchase in history.purchases}
    return [
        replace(shown[bought.entry.id], refunded_credits=bought.refunded)
        for bought in account.bought.values()
        if bought.entry.id in shown  # otherwise `purchase_findings` yields the user
    ]


def _balance(account: Account, app_id: int) -> Balance:
    app = account.app(app_id)
    lots = [lot for lot in app.lots.values() if lot.left]
    ends = [lot.terms.ends_at for lot in lots if lot.terms.ends_at is not None]
    first = min(ends, default=None)
    expiring = sum(lot.left for lot in lots if lot.terms.ends_at == first)
    return Balance(
        app_id=app_id,
        balance=app.available,
        held=app.held,
        owed=max(0, -app.balance),
        expiring_next=None if first is None else ExpiringCredits(credits=expiring, at=first),
    )


def _user_credits(account: Account, history: History) -> object:
    if not account.sequence:
        return UserCredits(user_id=account.user_id)
    first, last = history.entries[0], history.entries[account.sequence - 1]
    return _AnyId(
        UserCredits(
            user_id=account.user_id,
            balances=[_balance(account, app_id) for app_id in sorted(account.apps)],
            created_at=first.at,
            updated_at=last.at,
            created_by=first.created_by,
            updated_by=last.created_by,
            revision=account.sequence,
        )
    )


class _AnyId:
    """Equals credits whatever their id is, which the contract calls opaque."""

    def __init__(self, credits: UserCredits) -> None:  # noqa: A002 - the contract's word
        self._credits = credits

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UserCredits) and replace(other, id="") == self._credits

    def __hash__(self) -> int:
        return hash(self._credits.user_id)

    def __str__(self) -> str:
        return str(self._credits)


def _grants(account: Account, app_id: int) -> ListGrantsResponse:
    app = account.app(app_id)
    started = sorted(app.started(), key=lambda lot: lot.terms.rank)
    later = sorted(app.scheduled(), key=lambda lot: (lot.starts_at or _END_OF_TIME, lot.terms.age))
    return ListGrantsResponse(
        grants=[
            Grant(
                id=lot.terms.id,
                sequence=lot.terms.age,
                credits=lot.credits,
                left=lot.left,
                priority=lot.terms.priority,
                category=lot.terms.category,
                effective_at=lot.starts_at,
                expires_at=lot.terms.ends_at,
            )
            for lot in (*started, *later)
        ],
        base_credits=max(0, app.base),
    )


def _holds(account: Account, app_id: int, history: History) -> ListHoldsResponse:
    holds = sorted(account.app(app_id).holds.values(), key=lambda hold: hold.age)
    return ListHoldsResponse(
        holds=[
            Hold(
                id=hold.id,
                sequence=hold.age,
                credits=history.entries[hold.age - 1].credits,
                held=hold.held,
                captured=hold.captured,
                state=HoldState.OPEN,
                placed_at=hold.placed_at,
                expires_at=hold.ends_at,
                purpose=hold.purpose,
                created_by=hold.created_by,
            )
            for hold in holds
        ]
    )


_STATES = {
    "HOLD_ALREADY_CAPTURED": HoldState.CAPTURED,
    "HOLD_ALREADY_RELEASED": HoldState.RELEASED,
    "HOLD_EXPIRED": HoldState.EXPIRED,
}


def _all_holds(account: Account, app_id: int, history: History) -> ListHoldsResponse:
    holds = _holds(account, app_id, history).holds
    for entry in history.entries[: account.sequence]:
        settled = account.facts[entry.id].settled
        if entry.app_id != app_id or settled is None:
            continue
        reason, captured, released, at = settled
        ends = [
            other.expires_at
            for other in history.entries[: account.sequence]
            if entry.id in (other.id, other.related_id) and other.expires_at is not None
        ]
        _, placing = account.keys[app_id, entry.key]
        assert placing == entry
        request: Any = account.keys[app_id, entry.key][0]
        holds.append(
            Hold(
                id=entry.id,
                sequence=entry.sequence,
                credits=entry.credits,
                captured=captured,
                released=released,
                state=_STATES[reason],
                placed_at=entry.at,
                expires_at=ends[-1],
                settled_at=at,
                purpose=request.purpose,
                created_by=entry.created_by,
            )
        )
    return ListHoldsResponse(holds=sorted(holds, key=lambda hold: hold.sequence))


def _forecast(account: Account, read: Read) -> GetForecastResponse:
    _, due = as_of(account, read.until or _END_OF_TIME)
    return GetForecastResponse(
        balance=account.app(read.app_id).available,
        steps=[
            ForecastStep(
                at=entry.effective_at,
                type=entry.type,
                related_id=entry.related_id,
                credits=entry.credits,
                effect=entry.effect,
                balance_after=max(0, entry.balance),
            )
            for entry in due
            if entry.app_id == read.app_id
        ],
    )
