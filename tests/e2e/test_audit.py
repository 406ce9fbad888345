"""The audit passes a sound ledger and names each kind of forgery."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from credit_client import (
    Balance,
    CreditTransaction,
    Purchase,
    Receipt,
    TransactionType,
    UserCredits,
)

from tests.e2e.audit import Books, audit
from tests.e2e.workload import Journal, Operation, Sending

USER, APP = 1001, 1
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADD = Operation(
    key="a",
    user_id=USER,
    app_id=APP,
    credits=100,
    created_by=3,
    buys=False,
    sending=Sending.ONCE,
    turns=1,
)
USE = replace(ADD, key="u", credits=30, buys=True)
REFUSED = replace(ADD, key="r", credits=900, buys=True)


@pytest.fixture
def journal() -> Journal:
    journal = Journal()
    journal.acknowledge("a", Receipt(transaction_id="t1", balance=100, sequence=1))
    journal.acknowledge("u", Receipt(transaction_id="t2", purchase_id="p", balance=70, sequence=2))
    journal.refused.add("r")
    return journal


@pytest.fixture
def books() -> Books:
    added = CreditTransaction(
        id="t1",
        user_id=USER,
        app_id=APP,
        credits=100,
        created_at=NOW,
        created_by=3,
        type=TransactionType.ADD,
        balance_after=100,
        sequence=1,
        idempotency_key="a",
    )
    used = CreditTransaction(
        id="t2",
        user_id=USER,
        app_id=APP,
        credits=30,
        created_at=NOW,
        created_by=3,
        type=TransactionType.USE,
        balance_after=70,
        sequence=2,
        purchase_id="p",
        idempotency_key="u",
    )
    purchase = Purchase(
        id="p",
        user_id=USER,
        app_id=APP,
        report_id="r",
        report_name="Report",
        credits=30,
        created_at=NOW,
        created_by=3,
        transaction_id="t2",
    )
    held = UserCredits(user_id=USER, balances=[Balance(app_id=APP, balance=70)], revision=2)
    return Books(
        held={USER: held},
        transactions={USER: [added, used]},
        purchases={USER: [purchase]},
        totals={APP: 70},
    )


Forgery = Callable[[Books, Journal], None]


def lose_the_last_entry(books: Books, _: Journal) -> None:
    books.transactions[USER].pop()


def repeat_the_first_entry(books: Books, _: Journal) -> None:
    books.transactions[USER].append(books.transactions[USER][0])


def skip_a_sequence(books: Books, _: Journal) -> None:
    books.transactions[USER][1].sequence = 3


def go_below_zero(books: Books, _: Journal) -> None:
    books.transactions[USER][1].credits = 130


def change_a_balance(books: Books, _: Journal) -> None:
    books.held[USER].balances[0].balance = 71


def change_the_revision(books: Books, _: Journal) -> None:
    books.held[USER].revision = 3


def change_a_total(books: Books, _: Journal) -> None:
    books.totals[APP] = 71


def lose_a_purchase(books: Books, _: Journal) -> None:
    books.purchases[USER].pop()


def pay_twice(books: Books, _: Journal) -> None:
    books.purchases[USER].append(books.purchases[USER][0])


def do_what_nobody_asked_for(books: Books, _: Journal) -> None:
    books.transactions[USER][0].idempotency_key = "nobody's"


def do_something_else(books: Books, _: Journal) -> None:
    books.transactions[USER][0].created_by = 4


def do_what_was_refused(_: Books, journal: Journal) -> None:
    journal.refused.add("a")


def acknowledge_what_is_not_there(_: Books, journal: Journal) -> None:
    journal.receipts["a"][0].transaction_id = "t9"


def acknowledge_another_balance(_: Books, journal: Journal) -> None:
    journal.receipts["a"][0].balance = 101


def acknowledge_as_new_twice(_: Books, journal: Journal) -> None:
    journal.acknowledge("a", journal.receipts["a"][0])


def acknowledge_as_new_never(_: Books, journal: Journal) -> None:
    journal.receipts["a"][0].replayed = True


@pytest.mark.parametrize(
    ("forge", "named"),
    [
        (lose_the_last_entry, "u: acknowledged and lost"),
        (repeat_the_first_entry, "a has happened 2 times"),
        (skip_a_sequence, "entry 2 has the sequence 3"),
        (go_below_zero, "the balance was -30 after entry 2"),
        (change_a_balance, "the history adds up to {1: 70}"),
        (change_the_revision, "revision 3 after 2 entries"),
        (change_a_total, "the total is 71, the users hold 70"),
        (lose_a_purchase, "purchases and payments differ"),
        (pay_twice, "purchases and payments differ"),
        (do_what_nobody_asked_for, "nobody has asked for"),
        (do_something_else, "is not what was asked for"),
        (do_what_was_refused, "was refused and has happened"),
        (acknowledge_what_is_not_there, "a: acknowledged and lost"),
        (acknowledge_another_balance, "is not of"),
        (acknowledge_as_new_twice, "was acknowledged as new 2 times"),
        (acknowledge_as_new_never, "was acknowledged as new 0 times"),
    ],
)
def test_a_forgery_is_named(books: Books, journal: Journal, forge: Forgery, named: str) -> None:
    forge(books, journal)
    assert named in "\n".join(audit(books, [ADD, USE, REFUSED], journal, calm=True))


def test_sound_books_pass(books: Books, journal: Journal) -> None:
    assert audit(books, [ADD, USE, REFUSED], journal, calm=True) == []


def test_a_caller_s_own_complaint_is_passed_on(books: Books, journal: Journal) -> None:
    journal.complaints.append("refused in spite of enough")
    findings = audit(books, [ADD, USE, REFUSED], journal, calm=True)
    assert findings == ["refused in spite of enough"]


def test_an_answer_that_got_lost_may_leave_only_replays(books: Books, journal: Journal) -> None:
    acknowledge_as_new_never(books, journal)
    assert audit(books, [ADD, USE, REFUSED], journal, calm=False) == []
