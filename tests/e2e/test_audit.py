"""Test that the audit passes a correct ledger and names each kind of fault."""

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

from tests.e2e.audit import LedgerView, audit
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
def view() -> LedgerView:
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
        sequence=2,
    )
    held = UserCredits(user_id=USER, balances=[Balance(app_id=APP, balance=70)], revision=2)
    return LedgerView(
        held={USER: held},
        transactions={USER: [added, used]},
        purchases={USER: [purchase]},
        totals={APP: 70},
    )


Forgery = Callable[[LedgerView, Journal], None]


def lose_the_last_entry(view: LedgerView, _: Journal) -> None:
    view.transactions[USER].pop()


def repeat_the_first_entry(view: LedgerView, _: Journal) -> None:
    view.transactions[USER].append(view.transactions[USER][0])


def skip_a_sequence(view: LedgerView, _: Journal) -> None:
    view.transactions[USER][1].sequence = 3


def go_below_zero(view: LedgerView, _: Journal) -> None:
    view.transactions[USER][1].credits = 130


def change_a_balance(view: LedgerView, _: Journal) -> None:
    view.held[USER].balances[0].balance = 71


def change_the_revision(view: LedgerView, _: Journal) -> None:
    view.held[USER].revision = 3


def change_a_total(view: LedgerView, _: Journal) -> None:
    view.totals[APP] = 71


def lose_a_purchase(view: LedgerView, _: Journal) -> None:
    view.purchases[USER].pop()


def pay_twice(view: LedgerView, _: Journal) -> None:
    view.purchases[USER].append(view.purchases[USER][0])


def list_backwards(view: LedgerView, _: Journal) -> None:
    view.transactions[USER].reverse()


def add_an_unrequested_entry(view: LedgerView, _: Journal) -> None:
    view.transactions[USER][0].idempotency_key = "unrequested"


def do_something_else(view: LedgerView, _: Journal) -> None:
    view.transactions[USER][0].created_by = 4


def do_what_was_refused(_: LedgerView, journal: Journal) -> None:
    journal.refused.add("a")


def acknowledge_what_is_not_there(_: LedgerView, journal: Journal) -> None:
    journal.receipts["a"][0].transaction_id = "t9"


def acknowledge_another_balance(_: LedgerView, journal: Journal) -> None:
    journal.receipts["a"][0].balance = 101


def acknowledge_as_new_twice(_: LedgerView, journal: Journal) -> None:
    journal.acknowledge("a", journal.receipts["a"][0])


def acknowledge_as_new_never(_: LedgerView, journal: Journal) -> None:
    journal.receipts["a"][0].replayed = True


@pytest.mark.parametrize(
    ("forge", "named"),
    [
        (lose_the_last_entry, "u: acknowledged and lost"),
        (repeat_the_first_entry, "a has happened 2 times"),
        (skip_a_sequence, "a history has a gap, or ends elsewhere than its account"),
        (go_below_zero, "a balance leaves 0 to 4294967295"),
        (change_a_balance, "a history adds up to another balance than is held"),
        (change_the_revision, "a history has a gap, or ends elsewhere than its account"),
        (change_a_total, "an app's total is not the sum of its balances"),
        (lose_a_purchase, "a payment without its purchase"),
        (pay_twice, "the purchases are listed as [2, 2]"),
        (list_backwards, "the transactions are listed as [2, 1]"),
        (add_an_unrequested_entry, "no operation requested"),
        (do_something_else, "is not what was asked for"),
        (do_what_was_refused, "was refused and has happened"),
        (acknowledge_what_is_not_there, "a: acknowledged and lost"),
        (acknowledge_another_balance, "is not of"),
        (acknowledge_as_new_twice, "was acknowledged as new 2 times"),
        (acknowledge_as_new_never, "was acknowledged as new 0 times"),
    ],
)
def test_each_fault_is_named(
    view: LedgerView, journal: Journal, mongod_uri: str, forge: Forgery, named: str
) -> None:
    forge(view, journal)
    assert named in "\n".join(audit(view, [ADD, USE, REFUSED], journal, uri=mongod_uri, calm=True))


def test_a_correct_ledger_passes(view: LedgerView, journal: Journal, mongod_uri: str) -> None:
    assert audit(view, [ADD, USE, REFUSED], journal, uri=mongod_uri, calm=True) == []


def test_the_complaints_of_the_callers_are_findings(
    view: LedgerView, journal: Journal, mongod_uri: str
) -> None:
    journal.complaints.append("refused in spite of enough")
    findings = audit(view, [ADD, USE, REFUSED], journal, uri=mongod_uri, calm=True)
    assert findings == ["refused in spite of enough"]


def test_a_lost_answer_may_leave_only_replays(
    view: LedgerView, journal: Journal, mongod_uri: str
) -> None:
    acknowledge_as_new_never(view, journal)
    assert audit(view, [ADD, USE, REFUSED], journal, uri=mongod_uri, calm=False) == []
