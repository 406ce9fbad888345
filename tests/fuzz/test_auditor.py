"""Test that the auditor names each kind of fault and passes a correct journal."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import pytest
from credit_client import CreditTransaction, Purchase, UserCredits
from credit_client.testing import fake_credits
from credit_testing.accounts.journal import Unforeseen, Unknown

from tests.fuzz.auditor import audit
from tests.fuzz.callers import Callers
from tests.fuzz.journal import Acknowledged, Answer, Call, Journal, Kind, Read
from tests.fuzz.ledger_model import Refused, Write

USER, OTHER, APP = 1001, 1002, 5
ADD = Write(user_id=USER, app_id=APP, credits=100, created_by=1, key="add")
USE = replace(ADD, credits=30, key="use", report=("r", "Report"))
TOO_MUCH = replace(USE, credits=80, key="too much")
OTHER_ADD = replace(ADD, user_id=OTHER, credits=7)
CREDITS = Read(kind=Kind.USER_CREDITS, user_id=USER, app_id=APP)
BALANCE = replace(CREDITS, kind=Kind.BALANCE)
TOTAL = replace(CREDITS, kind=Kind.APP_TOTAL)
TRANSACTIONS = replace(CREDITS, kind=Kind.TRANSACTIONS)
PURCHASES = replace(CREDITS, kind=Kind.PURCHASES)

_AnswerT = TypeVar("_AnswerT")


@pytest.fixture
async def journal() -> Journal:
    """Return the journal of one caller with sequential calls."""
    async with fake_credits() as client:
        callers = Callers([client])
        for question in (ADD, BALANCE, USE, USE, TOO_MUCH, CREDITS, OTHER_ADD, TOTAL):
            await callers.ask(0, question)
        await callers.finish([USER, OTHER], [APP])
        return callers.journal


def _call(journal: Journal, question: Write | Read, number: int = 0) -> Call:
    """Return a call with this question; number -1 is the last one."""
    return [call for call in journal.calls if call.question == question][number]


def _answer(kind: type[_AnswerT], call: Call) -> _AnswerT:
    assert isinstance(call.answer, kind)
    return call.answer


def _entries(journal: Journal) -> list[CreditTransaction]:
    return _answer(list, _call(journal, TRANSACTIONS, -1))


def _purchases(journal: Journal) -> list[Purchase]:
    return _answer(list, _call(journal, PURCHASES, -1))


def _redo(journal: Journal, question: Write, number: int = 0, **changes: object) -> None:
    """Change what a receipt reports."""
    call = _call(journal, question, number)
    receipt = _answer(Acknowledged, call)
    # The changed field varies, which the types of `replace` cannot express.
    call.answer = replace(receipt, done=replace(receipt.done, **changes))  # type: ignore[arg-type]


def acknowledge_another_balance(journal: Journal) -> None:
    _redo(journal, ADD, balance=101)


def acknowledge_another_sequence(journal: Journal) -> None:
    _redo(journal, ADD, sequence=2)


def acknowledge_another_transaction(journal: Journal) -> None:
    call = _call(journal, ADD)
    call.answer = replace(_answer(Acknowledged, call), transaction_id="another")


def acknowledge_a_replay_as_new(journal: Journal) -> None:
    _redo(journal, USE, 1, replayed=False)


def acknowledge_as_new_never(journal: Journal) -> None:
    _redo(journal, OTHER_ADD, replayed=True)


def refuse_what_can_be_paid(journal: Journal) -> None:
    _call(journal, USE, 1).answer = Refused(reason="INSUFFICIENT_CREDITS", metadata=(20, 30, 10))


def refuse_with_a_wrong_number(journal: Journal) -> None:
    _call(journal, TOO_MUCH).answer = Refused(reason="INSUFFICIENT_CREDITS", metadata=(71, 80, 9))


def do_what_was_refused(journal: Journal) -> None:
    _call(journal, OTHER_ADD).answer = Refused(reason="BALANCE_OVERFLOW", metadata=(0, 7))


def answer_with_a_crash(journal: Journal) -> None:
    _call(journal, ADD).answer = Unforeseen(error="InternalError('crash')")


def show_a_balance_of_before(journal: Journal) -> None:
    _call(journal, BALANCE).answer = 0


def show_a_balance_of_afterwards(journal: Journal) -> None:
    _call(journal, BALANCE).answer = 70


def show_credits_of_before(journal: Journal) -> None:
    shown = _answer(UserCredits, _call(journal, CREDITS))
    shown.revision, shown.balances[0].balance = 1, 100


def show_a_wrong_total(journal: Journal) -> None:
    _call(journal, TOTAL).answer = 70


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
        (acknowledge_another_balance, "is none of the allowed Done(sequence=1, balance=100"),
        (acknowledge_another_sequence, "is none of the allowed Done(sequence=1, balance=100"),
        (acknowledge_another_transaction, "is not of"),
        (acknowledge_a_replay_as_new, "acknowledged as new 2 times"),
        (acknowledge_as_new_never, "acknowledged as new 0 times"),
        (refuse_what_can_be_paid, "is none of the allowed Done(sequence=2, balance=70"),
        (refuse_with_a_wrong_number, "metadata=(70, 80, 10)"),
        (do_what_was_refused, "acknowledged as new 0 times"),
        (answer_with_a_crash, "was answered with InternalError('crash')"),
        (show_a_balance_of_before, "is none of the allowed 100"),
        (show_a_balance_of_afterwards, "is none of the allowed 100"),
        (show_credits_of_before, "is none of the allowed (1001, 2, [(5, 70)]"),
        (show_a_wrong_total, "is none of the allowed totals 77"),
        (lose_the_last_entry, "acknowledged and lost"),
        (lose_a_purchase, "no write requested"),
        (sell_twice, "no write paid for"),
        (sell_another_report, "no write requested"),
        (list_backwards, "entry 1 is"),
        (apply_twice, "where the model predicts Done(sequence=1, balance=100, replayed=True)"),
        (skip_a_sequence, "where the model predicts Done(sequence=2, balance=70"),
        (number_the_purchase_otherwise, "no write requested"),
        (go_back_in_time, "is older than the one before it"),
        (add_an_unrequested_entry, "no write requested"),
        (hide_the_list, "the lists cannot be read"),
    ],
)
def test_each_fault_is_named(
    journal: Journal, forge: Callable[[Journal], None], named: str
) -> None:
    forge(journal)
    assert named in "\n".join(audit(journal, [USER, OTHER]))


def test_a_correct_journal_passes(journal: Journal) -> None:
    assert audit(journal, [USER, OTHER]) == []


def _overlapping(balance: Answer, *, write: Answer) -> Journal:
    """Return a journal with a read during a write, and the history that results."""
    journal = Journal()
    adding = journal.begin(0, ADD)
    reading = journal.begin(1, BALANCE)
    journal.end(adding, write)
    journal.end(reading, balance)
    return journal


@pytest.mark.parametrize("balance", [0, 100])
def test_a_read_that_overlaps_a_write_may_see_it_or_not(journal: Journal, balance: int) -> None:
    overlapping = _overlapping(balance, write=_call(journal, ADD).answer)
    overlapping.calls += [call for call in journal.calls if call.question not in (ADD, BALANCE)]
    for moment, call in enumerate(overlapping.calls[2:], start=5):
        call.began = call.ended = moment
    assert audit(overlapping, [USER, OTHER]) == []
    overlapping.calls[1].answer = 99
    assert len(audit(overlapping, [USER, OTHER])) == 1


def test_a_cancelled_write_may_have_happened(journal: Journal) -> None:
    _call(journal, ADD).answer = Unknown()
    assert audit(journal, [USER, OTHER]) == []
