"""The spot check follows a history backwards from the balances, and names what does not fit."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from credit_server.doctor.books import account_fault, check_books
from credit_server.doctor.finding import Verdict
from credit_server.ledger import Account, Kind, Transaction
from credit_server.store.sample import Sampled

AT = datetime(2026, 1, 1, tzinfo=UTC)


def _entry(sequence: int, app_id: int, kind: Kind, credits: int, after: int) -> Transaction:  # noqa: A002
    return Transaction(
        id=f"{sequence:024x}",
        user_id=7,
        app_id=app_id,
        kind=kind,
        credits=credits,
        balance_after=after,
        sequence=sequence,
        created_at=AT,
        created_by=1,
        key="",
    )


ADDED = _entry(1, 1, Kind.ADD, 100, 100)
OTHER = _entry(2, 2, Kind.ADD, 7, 7)
USED = _entry(3, 1, Kind.USE, 30, 70)
ACCOUNT = Account(user_id=7, balances={1: 70, 2: 7}, revision=3)
WELL = Sampled(user_id=7, account=ACCOUNT, latest=(USED, OTHER, ADDED))


def test_books_that_add_up_are_ok_and_called_a_spot_check() -> None:
    finding = check_books([WELL, replace(WELL, latest=(USED, OTHER))])
    assert finding.verdict is Verdict.OK
    assert "spot check" in finding.check


def test_books_without_transactions_are_ok() -> None:
    assert check_books([]).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (replace(WELL, account=None), "there is history and no account"),
        (replace(WELL, unreadable="AccountDocument: revision"), "a document cannot be read"),
        (replace(WELL, latest=(USED, ADDED)), "sequence 1 is where 2 should be"),
        (replace(WELL, latest=(OTHER, ADDED)), "sequence 2 is where 3 should be"),
        (replace(WELL, latest=()), "there is no history, where 3 transactions"),
        (
            replace(WELL, account=replace(ACCOUNT, balances={1: 71, 2: 7})),
            "sequence 3 left 70 in app 1, not 71",
        ),
        (
            replace(WELL, latest=(USED, replace(OTHER, credits=8), ADDED)),
            "does not add up",
        ),
        (
            replace(WELL, latest=(replace(USED, credits=31), OTHER, ADDED)),
            "sequence 1 left 100 in app 1, not 101",
        ),
        (
            replace(WELL, account=replace(ACCOUNT, balances={1: 70, 2: 7, 3: 1})),
            "does not add up",
        ),
    ],
)
def test_what_must_never_be_is_named(entry: Sampled, fault: str) -> None:
    assert fault in account_fault(entry)
    assert check_books([WELL, entry]).verdict is Verdict.FAILS


def test_many_faults_are_counted_and_few_are_shown() -> None:
    broken = replace(WELL, account=None)
    finding = check_books([broken] * 8)
    assert finding.found.endswith("; and 3 more")
