"""Test that the auditor names each kind of fault and passes a correct journal."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from credit_client.testing import fake_credits
from credit_models import (
    Balance,
    CreditRequest,
    CreditTransaction,
    Purchase,
    PurchaseRequest,
    Receipt,
    UserCredits,
)
from credit_testing.accounts.auditor import audit
from credit_testing.accounts.journal import (
    Answer,
    Call,
    Journal,
    Kind,
    Read,
    Together,
    Unforeseen,
    Unknown,
    Written,
)
from credit_testing.accounts.model import Account
from credit_testing.accounts.rules.decision import Refused
from credit_testing.accounts.windows import Windows

from tests.fuzz.callers import Callers, Question

USER, OTHER, APP = 1001, 1002, 5
ADD = CreditRequest(user_id=USER, app_id=APP, credits=100, created_by=1, idempotency_key="add")
USE = PurchaseRequest(
    user_id=USER,
    app_id=APP,
    credits=30,
    created_by=1,
    idempotency_key="use",
    report_id="r",
    report_name="Report",
)
TOO_MUCH = replace(USE, credits=80, idempotency_key="too much")
OTHER_ADD = replace(ADD, user_id=OTHER, credits=7)
CREDITS = Read(kind=Kind.USER_CREDITS, user_id=USER, app_id=APP)
BALANCE = replace(CREDITS, kind=Kind.BALANCE)
TOTAL = replace(CREDITS, kind=Kind.APP_TOTAL)
TRANSACTIONS = replace(CREDITS, kind=Kind.TRANSACTIONS)
PURCHASES = replace(CREDITS, kind=Kind.PURCHASES)
BEFORE = (ADD, BALANCE, USE, USE, TOO_MUCH, CREDITS)

_AnswerT = TypeVar("_AnswerT")


@pytest.fixture
async def journal() -> Journal:
    """Return the journal of one caller with sequential calls."""
    async with fake_credits() as client:
        callers = Callers([client])
        for question in (*BEFORE, TRANSACTIONS, PURCHASES, OTHER_ADD, TOTAL):
            await callers.ask(0, question)
        await callers.finish([USER, OTHER], [APP])
        return callers.journal


def _findings(journal: Journal) -> list[str]:
    """Audit all users whose histories were read."""
    reads = [call.question for call in journal.calls if isinstance(call.question, Read)]
    users = [read.user_id for read in reads if read.kind is Kind.TRANSACTIONS]
    return audit(journal, list(dict.fromkeys(users)), policies={})


def _call(journal: Journal, question: Question, number: int = 0) -> Call:
    """Return a call with this question; number -1 is the last one."""
    asked = question if isinstance(question, Read) else Written(request=question)
    return [call for call in journal.calls if call.question == asked][number]


def _answer(kind: type[_AnswerT], call: Call) -> _AnswerT:
    assert isinstance(call.answer, kind)
    return call.answer


def _shown(kind: type[_AnswerT], call: Call) -> _AnswerT:
    """Return the only message that a read has returned."""
    (message,) = _answer(list, call)
    assert isinstance(message, kind)
    return message


def _entries(journal: Journal) -> list[CreditTransaction]:
    return _answer(list, _call(journal, TRANSACTIONS, -1))


def _purchases(journal: Journal) -> list[Purchase]:
    return _answer(list, _call(journal, PURCHASES, -1))


# Any: the changed fields have several types.
def _redo(journal: Journal, question: Question, number: int = 0, **changes: Any) -> None:
    """Change what a receipt reports."""
    call = _call(journal, question, number)
    call.answer = replace(_answer(Receipt, call), **changes)


def acknowledge_another_balance(journal: Journal) -> None:
    _redo(journal, ADD, balance=101)


def acknowledge_another_sequence(journal: Journal) -> None:
    _redo(journal, ADD, sequence=2)


def acknowledge_another_transaction(journal: Journal) -> None:
    _redo(journal, ADD, transaction_id="another")


def acknowledge_a_replay_as_new(journal: Journal) -> None:
    _redo(journal, USE, 1, replayed=False)


def acknowledge_as_new_never(journal: Journal) -> None:
    _redo(journal, OTHER_ADD, replayed=True)


def _insufficient(available: int, required: int, shortfall: int) -> Refused:
    figures = {"available": available, "required": required, "shortfall": shortfall}
    return Refused(
        "INSUFFICIENT_CREDITS", tuple((name, str(figure)) for name, figure in figures.items())
    )


def refuse_what_can_be_paid(journal: Journal) -> None:
    _call(journal, USE, 1).answer = _insufficient(20, 30, 10)


def refuse_with_a_wrong_number(journal: Journal) -> None:
    _call(journal, TOO_MUCH).answer = _insufficient(71, 80, 9)


def do_what_was_refused(journal: Journal) -> None:
    _call(journal, OTHER_ADD).answer = Refused(
        "BALANCE_OVERFLOW", (("balance", "0"), ("credits", "7"))
    )


def answer_with_a_crash(journal: Journal) -> None:
    _call(journal, ADD).answer = Unforeseen(error="InternalError('crash')")


def show_a_balance_of_before(journal: Journal) -> None:
    _shown(Balance, _call(journal, BALANCE)).balance = 0


def show_a_balance_of_afterwards(journal: Journal) -> None:
    _shown(Balance, _call(journal, BALANCE)).balance = 70


def show_credits_of_before(journal: Journal) -> None:
    shown = _shown(UserCredits, _call(journal, CREDITS))
    shown.revision, shown.balances[0].balance = 1, 100


def show_a_wrong_total(journal: Journal) -> None:
    _shown(Balance, _call(journal, TOTAL)).balance = 70


def list_too_little(journal: Journal) -> None:
    _answer(list, _call(journal, TRANSACTIONS)).pop()


def list_a_purchase_twice(journal: Journal) -> None:
    purchases = _answer(list, _call(journal, PURCHASES))
    purchases.append(purchases[0])


def lose_the_last_entry(journal: Journal) -> None:
    _entries(journal).pop()
    _purchases(journal).pop()


def lose_a_purchase(journal: Journal) -> None:
    _purchases(journal).pop()


def sell_twice(journal: Journal) -> None:
    _purchases(journal).append(_purchases(journal)[0])


def sell_another_report(journal: Journal) -> None:
    _purchases(journal)[0].report_name = "Another"


def list_backwards(journal: Journal) -> None:
    _entries(journal).reverse()


def apply_twice(journal: Journal) -> None:
    entries = _entries(journal)
    entries.insert(1, replace(entries[0], sequence=2, balance_after=200))


def skip_a_sequence(journal: Journal) -> None:
    _entries(journal)[1].sequence = _purchases(journal)[0].sequence = 3


def number_the_purchase_otherwise(journal: Journal) -> None:
    _purchases(journal)[0].sequence = 1


def go_back_in_time(journal: Journal) -> None:
    entries, purchases = _entries(journal), _purchases(journal)
    assert entries[0].created_at is not None
    earlier = entries[0].created_at - timedelta(milliseconds=1)
    entries[1].created_at = purchases[0].created_at = earlier


def add_an_unrequested_entry(journal: Journal) -> None:
    _entries(journal)[0].created_by = 2


def hide_the_list(journal: Journal) -> None:
    _call(journal, TRANSACTIONS, -1).answer = Unforeseen(error="InternalError('crash')")


@pytest.mark.parametrize(
    ("forge", "named"),
    [
        (acknowledge_another_balance, " is not Receipt("),
        (acknowledge_another_sequence, " is not Receipt("),
        (acknowledge_another_transaction, " is not Receipt("),
        (acknowledge_a_replay_as_new, "was acknowledged as new 2 times"),
        (acknowledge_as_new_never, "was acknowledged as new 0 times"),
        (refuse_what_can_be_paid, "is none of the allowed [Receipt("),
        (refuse_with_a_wrong_number, f"is none of the allowed [{_insufficient(70, 80, 10)}]"),
        (do_what_was_refused, "was acknowledged as new 0 times"),
        (answer_with_a_crash, "was answered with InternalError('crash')"),
        (show_a_balance_of_before, "is none of the allowed Balance(app_id=5, balance=100, "),
        (show_a_balance_of_afterwards, "is none of the allowed Balance(app_id=5, balance=100, "),
        (show_credits_of_before, "is none of the allowed UserCredits(user_id=1001, "),
        (show_a_wrong_total, "is none of the allowed Balance(app_id=5, balance=77)"),
        (list_too_little, "is none of the allowed [CreditTransaction("),
        (list_a_purchase_twice, "is none of the allowed [Purchase("),
        (lose_the_last_entry, "acknowledged and lost"),
        (lose_a_purchase, "the purchases are [], and paid were [("),
        (sell_twice, "and paid were [("),
        (sell_another_report, "'Another', 0, '000000000000000000000003')], and paid were [("),
        (list_backwards, "entry 1 is"),
        (apply_twice, "entry 2 is"),
        (skip_a_sequence, "entry 2 is"),
        (number_the_purchase_otherwise, "and paid were [("),
        (go_back_in_time, "is older than the entry before it"),
        (add_an_unrequested_entry, "entry 1 is"),
        (hide_the_list, "ListUserTransactions cannot be read"),
    ],
)
def test_each_fault_is_named(
    journal: Journal, forge: Callable[[Journal], None], named: str
) -> None:
    forge(journal)
    assert named in "\n".join(_findings(journal))


def test_a_correct_journal_passes(journal: Journal) -> None:
    assert _findings(journal) == []


def _overlapping(balance: Balance, *, write: Answer) -> Journal:
    """Return a journal with a read during a write, and the history that results."""
    journal = Journal()
    adding = journal.begin(0, Written(request=ADD))
    reading = journal.begin(1, BALANCE)
    journal.end(adding, write)
    journal.end(reading, [balance])
    return journal


@pytest.mark.parametrize(("balance", "revision"), [(0, 0), (100, 1)])
def test_a_read_that_overlaps_a_write_may_see_it_or_not(
    journal: Journal, balance: int, revision: int
) -> None:
    shown = Balance(app_id=APP, balance=balance, revision=revision)
    overlapping = _overlapping(shown, write=_call(journal, ADD).answer)
    replaced = (_call(journal, ADD), _call(journal, BALANCE))
    overlapping.calls += [call for call in journal.calls if call not in replaced]
    for moment, call in enumerate(overlapping.calls[2:], start=5):
        call.began = call.ended = moment
    assert _findings(overlapping) == []
    shown.balance = 99
    assert len(_findings(overlapping)) == 1


def test_a_cancelled_write_may_have_happened(journal: Journal) -> None:
    _call(journal, ADD).answer = Unknown()
    assert _findings(journal) == []


def test_a_batch_is_explained_at_the_time_of_the_latest_entry_of_one_of_its_users() -> None:
    """No request is decided before that entry, so all of them can be decided at its time.

    At an earlier time, a hold of the batch could end before a transfer to the other user.
    """
    latest = datetime(2026, 1, 2, tzinfo=UTC)
    accounts = [Account(user_id=USER), Account(user_id=OTHER, latest_at=latest)]
    call = Call(client=0, question=Together(requests=(ADD,)), began=1)
    times = Windows(Journal(), {}).times(call, accounts, [APP], [ADD])
    assert latest in times
