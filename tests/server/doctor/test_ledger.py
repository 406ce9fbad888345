"""Test the ledger check of a sample: histories that do not add up, entries with wrong dates."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson.objectid import ObjectId
from credit_models.ledger import (
    Account,
    Add,
    AppAccount,
    Details,
    Grant,
    Hold,
    Kind,
    Purchase,
    Transaction,
)
from credit_server.commit import Clock, Committer
from credit_server.doctor.ledger import account_fault, app_fault, check_dates, check_ledger
from credit_server.doctor.report import Finding, Verdict
from credit_server.doctor.subject import LedgerReading
from credit_server.store.mongo import MongoStore
from credit_server.store.report import connected
from credit_server.store.sample import (
    AppSum,
    FutureEntries,
    FutureEntry,
    LedgerSample,
    SampledAccount,
    future_entries,
)

from tests.server.clocks import LIMIT_SECONDS
from tests.server.doctor.subject import stored
from tests.server.doctor.test_store import WELL as STORE

HOUR = 3600.0
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


def _ledger(sample: LedgerSample) -> Finding:
    (finding,) = check_ledger(stored(STORE, ledger=LedgerReading(sample=sample)))
    return finding


def _dates(future: FutureEntries) -> Finding:
    (finding,) = check_dates(stored(STORE, ledger=LedgerReading(future=future)))
    return finding


def test_a_ledger_that_adds_up_is_ok_and_called_a_spot_check() -> None:
    part = replace(WELL, latest=(USED, OTHER))
    uncounted = replace(WELL, latest=(USED,), transactions=None)
    finding = _ledger(LedgerSample(accounts=(WELL, part, uncounted), apps=(APP,)))
    assert finding.verdict is Verdict.OK
    assert finding.check == "ledger check (sample)"
    assert "latest accounts: 3, their latest transactions: 6" in finding.found
    assert "purchases: 3, apps' totals: 1;" in finding.found


def test_a_ledger_without_transactions_is_ok() -> None:
    assert _ledger(LedgerSample()).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (replace(WELL, account=None), "there is history but no account"),
        (replace(WELL, unreadable="AccountDocument: revision"), "a document cannot be read"),
        (replace(WELL, latest=(USED, ADDED)), "found sequence 1 instead of 2"),
        (replace(WELL, latest=(OTHER, ADDED)), "found sequence 2 instead of 3"),
        (replace(WELL, latest=()), "there is no history, but 3 transactions"),
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
            "there are 2 transactions instead of 3",
        ),
        (replace(WELL, purchases=()), "sequence 3 paid for a purchase that does not exist"),
        (
            replace(WELL, purchases=(replace(BOUGHT, credits=31),)),
            "sequence 3 and its purchase differ",
        ),
        (
            replace(WELL, purchases=(replace(BOUGHT, transaction_id="c" * 24),)),
            "sequence 3 and its purchase differ",
        ),
        (
            replace(WELL, purchases=(BOUGHT, replace(BOUGHT, sequence=2))),
            "sequence 2 uses no credits, but has a purchase",
        ),
        (
            replace(WELL, purchases=(BOUGHT, replace(BOUGHT, sequence=4))),
            "there is a purchase of sequence 4, which does not exist",
        ),
    ],
)
def test_each_fault_of_an_account_is_reported(entry: SampledAccount, fault: str) -> None:
    assert fault in account_fault(entry)
    assert _ledger(LedgerSample(accounts=(WELL, entry))).verdict is Verdict.FAILS


def _with_details(entry: Transaction, **details: Any) -> Transaction:
    return replace(entry, details=Details(**details))


GRANT = Grant(id="9" * 24, sequence=4, credits=5, left=5, created_by=1)
HOLD = Hold(
    id=f"{5:024x}",
    sequence=5,
    credits=4,
    placed_at=AT,
    ends_at=AT + timedelta(days=1),
    created_by=1,
)
REFUND = _with_details(_entry(6, 1, Kind.REFUND, 10, 81), related_id=USED.id, related_total=10)
RICH = SampledAccount(
    user_id=7,
    account=Account(
        user_id=7,
        balances={1: 81, 2: 7},
        apps={1: AppAccount.of(grants=(GRANT,), holds=(HOLD,))},
        revision=6,
    ),
    latest=(
        REFUND,
        _with_details(_entry(5, 1, Kind.HOLD, 4, 71), held_after=4),
        _entry(4, 1, Kind.GRANT, 5, 75),
        USED,
        OTHER,
        ADDED,
    ),
    purchases=(replace(BOUGHT, refunded_credits=10),),
    first_sequence=1,
    transactions=6,
)


def test_an_account_with_grants_holds_and_refunds_that_adds_up_is_ok() -> None:
    assert account_fault(RICH) == ""
    debt = _with_details(_entry(4, 2, Kind.ADJUST, 9, -2), delta=-9)
    owing = replace(
        WELL,
        account=replace(ACCOUNT, balances={1: 70, 2: -2}, revision=4),
        latest=(debt, *WELL.latest),
        transactions=4,
    )
    assert account_fault(owing) == ""


@pytest.mark.parametrize(
    ("purchase", "apps", "fault"),
    [
        (BOUGHT, {}, "the purchase of sequence 3 shows 0 refunded credits, not 10"),
        (None, {"holds": ()}, "sequence 5 left 4 in a hold, not 0"),
        (None, {"holds": (replace(HOLD, credits=3),)}, "sequence 5 left 4 in a hold, not 3"),
        (
            None,
            {"grants": (replace(GRANT, left=82),)},
            "grants have 82 in app 1, but the balance is 81",
        ),
    ],
)
def test_each_fault_of_grants_holds_and_refunds_is_reported(
    purchase: Purchase | None, apps: dict[str, Any], fault: str
) -> None:
    assert RICH.account is not None
    app = AppAccount.of(**{"grants": (GRANT,), "holds": (HOLD,), **apps})
    wrong = replace(
        RICH,
        account=replace(RICH.account, apps={1: app}),
        purchases=RICH.purchases if purchase is None else (purchase,),
    )
    assert fault in account_fault(wrong)


def test_an_app_whose_total_differs_from_its_users_sum_is_reported() -> None:
    wrong = replace(APP, total=77)
    assert app_fault(wrong) == "app 1: its total is 77, but its users hold 70"
    assert _ledger(LedgerSample(accounts=(WELL,), apps=(APP, wrong))).verdict is Verdict.FAILS


@pytest.mark.parametrize("entry", [WELL, replace(WELL, account=None)])
def test_totals_that_were_not_compared_are_reported_with_the_reason(entry: SampledAccount) -> None:
    finding = _ledger(LedgerSample(accounts=(entry,), apps_unread="they take more than 2 s"))
    assert finding.found.endswith("; apps' totals were not compared: they take more than 2 s")


def test_a_ledger_whose_schema_has_drifted_is_not_checked() -> None:
    (finding,) = check_ledger(stored(STORE))
    assert finding.verdict is Verdict.WARNING
    assert finding.found == "the ledger was not checked: the schema has drifted"


def test_many_faults_are_counted_and_few_are_reported() -> None:
    broken = replace(WELL, account=None)
    finding = _ledger(LedgerSample(accounts=(broken,) * 8))
    assert finding.found.endswith("; and 3 more")


def _future(*ahead: float, whole: bool = True) -> FutureEntries:
    return FutureEntries(
        entries=tuple(
            FutureEntry(user_id=7, sequence=number, ahead_seconds=seconds)
            for number, seconds in enumerate(ahead, start=1)
        ),
        whole=whole,
    )


def test_a_history_of_the_past_is_ok() -> None:
    finding = _dates(FutureEntries())
    assert (finding.verdict, finding.remedy) == (Verdict.OK, "")
    assert "not searched" not in finding.found
    assert "not searched" in _dates(FutureEntries(whole=False)).found


def test_entries_of_the_future_are_reported_with_a_remedy() -> None:
    finding = _dates(_future(10.0, 3600.0))
    assert finding.verdict is Verdict.WARNING
    assert finding.found.startswith("user 7, sequence 2: dated 3600.0 s after MongoDB's time; user")
    assert "NTP" in finding.remedy


def test_of_many_entries_of_the_future_the_farthest_are_reported() -> None:
    finding = _dates(_future(*range(1, 11), whole=False))
    assert finding.found.count("user 7") == 3
    assert "dated 10.0 s" in finding.found
    assert "; and 7 more; older entries were not searched" in finding.found


async def _found(
    uri: str, database: str, clock: Clock, new_id: Callable[[MongoStore], str]
) -> FutureEntries:
    store = MongoStore(uri, database=database)
    async with Committer(store) as sound, Committer(store, clock=clock) as wrong:
        for committer in (sound, wrong, sound):
            command = Add(
                user_id=7,
                app_id=1,
                credits=5,
                created_by=1,
                key="",
                transaction_id=new_id(store),
            )
            await committer.submit(command)
    await store.close()
    async with connected(uri, timeout_seconds=30) as client:
        return await future_entries(
            client, database=database, tolerance_seconds=LIMIT_SECONDS, search_seconds=30
        )


async def test_an_entry_of_a_server_whose_clock_is_ahead_is_found(
    mongod_uri: str, migrated_database: str
) -> None:
    ahead = Clock(wall=lambda: time.time() + HOUR)  # compared with no store
    found = await _found(mongod_uri, migrated_database, ahead, MongoStore.new_id)
    assert [(entry.user_id, entry.sequence) for entry in found.entries] == [(7, 2)]
    assert HOUR - 60 < found.entries[0].ahead_seconds <= HOUR
    assert found.whole


async def test_entries_of_sound_servers_are_not_dated_in_the_future(
    mongod_uri: str, migrated_database: str
) -> None:
    found = await _found(mongod_uri, migrated_database, Clock(), MongoStore.new_id)
    assert found == FutureEntries()


@pytest.mark.parametrize("made_ahead", [True, False], ids=["id made ahead", "id of now"])
async def test_a_search_that_takes_too_long_still_finds_by_the_ids(
    mongod_uri: str, migrated_database: str, *, made_ahead: bool
) -> None:
    def new_id(store: MongoStore) -> str:
        if not made_ahead:
            return store.new_id()
        now = int(time.time() + HOUR)
        return f"{now:08x}{str(ObjectId())[8:]}"

    ahead = Clock(wall=lambda: time.time() + HOUR)
    async with connected(mongod_uri, timeout_seconds=30) as client:
        failpoint = {"configureFailPoint": "maxTimeAlwaysTimeOut"}
        await _found(mongod_uri, migrated_database, ahead, new_id)
        await client.admin.command({**failpoint, "mode": "alwaysOn"})
        try:
            found = await future_entries(
                client,
                database=migrated_database,
                tolerance_seconds=LIMIT_SECONDS,
                search_seconds=30,
            )
        finally:
            await client.admin.command({**failpoint, "mode": "off"})
    assert not found.whole
    assert [entry.sequence for entry in found.entries] == ([2] if made_ahead else [])
