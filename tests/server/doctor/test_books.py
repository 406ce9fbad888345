"""The spot check follows a history backwards from the balances, and names what does not fit."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from credit_server.doctor.books import account_fault, app_fault, check_books, not_looked_at
from credit_server.doctor.finding import Verdict
from credit_server.ledger import Account, Kind, Purchase, Transaction
from credit_server.store.sample import AppSum, LedgerSample, SampledAccount

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
        purchase_id="b" * 24 if kind is Kind.USE else "",
    )


def _purchase(paid: Transaction) -> Purchase:
    return Purchase(
        id=paid.purchase_id,
        user_id=7,
        app_id=paid.app_id,
        report_id=paid.report_id,
        report_name=paid.report_name,
        credits=paid.credits,
        created_at=AT,
        created_by=1,
        transaction_id=paid.id,
        sequence=paid.sequence,
    )


ADDED = _entry(1, 1, Kind.ADD, 100, 100)
OTHER = _entry(2, 2, Kind.ADD, 7, 7)
USED = _entry(3, 1, Kind.USE, 30, 70)
ACCOUNT = Account(user_id=7, balances={1: 70, 2: 7}, revision=3)
BOUGHT = _purchase(USED)
WELL = SampledAccount(
    user_id=7,
    account=ACCOUNT,
    latest=(USED, OTHER, ADDED),
    purchases=(BOUGHT,),
    first_sequence=1,
    transactions=3,
)
APP = AppSum(app_id=1, total=70, held=70)


def test_books_that_add_up_are_ok_and_called_a_spot_check() -> None:
    part = replace(WELL, latest=(USED, OTHER))
    uncounted = replace(WELL, latest=(USED,), transactions=None)
    finding = check_books(LedgerSample(accounts=(WELL, part, uncounted), apps=(APP,)))
    assert finding.verdict is Verdict.OK
    assert "spot check" in finding.check
    assert "accounts touched last: 3, their latest transactions: 6" in finding.found
    assert "purchases: 3, apps' totals: 1;" in finding.found


def test_books_without_transactions_are_ok() -> None:
    assert check_books(LedgerSample()).verdict is Verdict.OK


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
        (
            replace(WELL, latest=(USED, OTHER), first_sequence=2, transactions=2),
            "the history begins with sequence 2, not 1",
        ),
        (
            replace(WELL, latest=(USED,), transactions=2),
            "there are 2 transactions, where 3 should be",
        ),
        (replace(WELL, purchases=()), "sequence 3 paid for a purchase that is not there"),
        (
            replace(WELL, purchases=(replace(BOUGHT, credits=31),)),
            "sequence 3 and its purchase tell different things",
        ),
        (
            replace(WELL, purchases=(replace(BOUGHT, transaction_id="c" * 24),)),
            "sequence 3 and its purchase tell different things",
        ),
        (
            replace(WELL, purchases=(BOUGHT, replace(BOUGHT, sequence=2))),
            "sequence 2 adds credits, and there is a purchase of it",
        ),
        (
            replace(WELL, purchases=(BOUGHT, replace(BOUGHT, sequence=4))),
            "there is a purchase of sequence 4, which is not there",
        ),
    ],
)
def test_what_must_never_be_is_named(entry: SampledAccount, fault: str) -> None:
    assert fault in account_fault(entry)
    assert check_books(LedgerSample(accounts=(WELL, entry))).verdict is Verdict.FAILS


def test_an_app_whose_total_is_not_what_its_users_hold_is_named() -> None:
    wrong = replace(APP, total=77)
    assert app_fault(wrong) == "app 1: its total is 77, and all users hold 70"
    assert check_books(LedgerSample(accounts=(WELL,), apps=(APP, wrong))).verdict is Verdict.FAILS


@pytest.mark.parametrize("entry", [WELL, replace(WELL, account=None)])
def test_totals_that_were_not_compared_are_told_with_the_reason(entry: SampledAccount) -> None:
    finding = check_books(LedgerSample(accounts=(entry,), apps_unread="they take more than 2 s"))
    assert finding.found.endswith("; apps' totals were not compared: they take more than 2 s")


def test_books_behind_something_else_that_fails_are_told_as_not_looked_at() -> None:
    finding = not_looked_at("the schema is not what it should be")
    assert finding.verdict is Verdict.WARNING
    assert finding.found == "were not looked at: the schema is not what it should be"


def test_many_faults_are_counted_and_few_are_shown() -> None:
    broken = replace(WELL, account=None)
    finding = check_books(LedgerSample(accounts=(broken,) * 8))
    assert finding.found.endswith("; and 3 more")
