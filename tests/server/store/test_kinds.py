"""Test what every store does for grants, holds, reversals and policies, with one suite."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_models.ledger import (
    Account,
    Alert,
    Allocation,
    AppAccount,
    Caps,
    Category,
    Details,
    Direction,
    Grant,
    Hold,
    Kind,
    Period,
    PeriodSpending,
    Policy,
    Purchase,
    Refunded,
    Transaction,
)
from credit_server.store import transaction as transaction_module
from credit_server.store.driver import Driver
from credit_server.store.history import RowDetails, TransactionRow
from credit_server.store.memory import MemoryStore
from credit_server.store.mongo import MongoStore
from credit_server.store.pipeline import run_pipelined
from credit_server.store.port import (
    AppPolicy,
    Changes,
    Conflict,
    DueAccount,
    HoldRow,
    References,
    Store,
    Void,
)
from pymongo import MongoClient

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
HOUR = timedelta(hours=1)


def id_of(number: int) -> str:
    return f"{number:024x}"


@pytest.fixture(params=["memory", Driver.MOTOR])
async def store(
    request: pytest.FixtureRequest, mongod_uri: str, migrated_database: str
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore(page_size=3)
        return
    mongo = MongoStore(mongod_uri, database=migrated_database, page_size=3, driver=request.param)
    yield mongo
    await mongo.close()


with_each_driver = pytest.mark.parametrize("store", ["memory", *Driver], indirect=True)
in_mongo = pytest.mark.parametrize("store", [Driver.MOTOR], indirect=True)

PART = Allocation(
    credits=3,
    grant_id=id_of(10),
    sequence=2,
    priority=0,
    category=Category.PROMOTIONAL,
    ends_at=NOW + 2 * HOUR,
)
APP = AppAccount.of(
    grants=(
        Grant(
            id=id_of(10),
            sequence=2,
            credits=9,
            left=0,
            priority=0,
            category=Category.PROMOTIONAL,
            ends_at=NOW + 2 * HOUR,
            created_by=3,
        ),
        Grant(id=id_of(11), sequence=3, credits=2**32 - 1, left=7, created_by=2**32 - 1),
    ),
    scheduled=(
        Grant(
            id=id_of(12),
            sequence=4,
            credits=5,
            left=5,
            priority=1000,
            category=Category.OWN,
            starts_at=NOW + 3 * HOUR,
            ends_at=NOW + 4 * HOUR,
            created_by=3,
        ),
    ),
    holds=(
        Hold(
            id=id_of(13),
            sequence=5,
            credits=4,
            allocations=(PART, Allocation(credits=1)),
            placed_at=NOW,
            ends_at=NOW + HOUR,
            captured=2,
            purpose="an answer \N{SNOWMAN}",
            created_by=3,
        ),
        Hold(
            id=id_of(14),
            sequence=6,
            credits=1,
            placed_at=NOW,
            ends_at=NOW + 5 * HOUR,
            created_by=4,
        ),
    ),
    caps=Caps(hour=1, month=2**32 - 1),
    spent=(
        PeriodSpending(period=Period.HOUR, starts_at=NOW.replace(minute=0), credits=0, since=5),
        PeriodSpending(period=Period.MONTH, starts_at=NOW.replace(day=1), credits=2**33, since=5),
    ),
    alerts=(Alert(credits=20, direction=Direction.FALLS_BELOW),),
)


def account(
    user: int = 7, *, revision: int = 1, apps: dict[int, AppAccount] | None = None
) -> Account:
    return Account(
        user_id=user,
        balances={1: 10, 2: -5},
        apps=apps or {},
        revision=revision,
        created_at=NOW,
        updated_at=NOW,
        created_by=3,
        updated_by=4,
    )


def entry(number: int, kind: Kind = Kind.ADD, *, user: int = 7, details: Details | None = None,
          sequence: int = 0, app: int = 1) -> Transaction:  # fmt: skip
    return Transaction(
        id=id_of(number),
        user_id=user,
        app_id=app,
        kind=kind,
        credits=10,
        balance_after=10,
        sequence=sequence or number,
        created_at=NOW,
        created_by=3,
        key="",
        details=details or Details(),
    )


def purchase(number: int, *, report: str = "r-1", refunded: int = 0, user: int = 7) -> Purchase:
    return Purchase(
        id=id_of(number),
        user_id=user,
        app_id=1,
        report_id=report,
        report_name="n",
        credits=10,
        created_at=NOW,
        created_by=3,
        transaction_id=id_of(number + 1000),
        sequence=number,
        refunded_credits=refunded,
    )


async def write(
    store: Store,
    *,
    accounts: Sequence[tuple[Account, Account]] = (),
    transactions: Sequence[Transaction] = (),
    purchases: Sequence[Purchase] = (),
    refunded: Sequence[tuple[int, Refunded]] = (),
) -> None:
    async with store.writer().begin() as transaction:
        await transaction.write(
            Changes(
                accounts=accounts,
                transactions=transactions,
                purchases=purchases,
                totals={},
                counter_shard=0,
                refunded=refunded,
            )
        )
        await transaction.commit()


def new(account: Account) -> tuple[Account, Account]:
    return Account.empty(account.user_id), account


async def known(
    store: Store, references: Sequence[tuple[int, str]] = (), reports: Sequence[str] = ()
) -> References:
    async with store.writer().begin() as transaction:
        return await transaction.references(references, [(7, 1, report) for report in reports])


async def stored(store: Store, user: int = 7) -> Account:
    found = await store.account(user)
    assert found is not None
    return replace(found, id="")


@with_each_driver
async def test_what_an_account_keeps_for_apps_is_read_back_unchanged(store: Store) -> None:
    rich = account(apps={2: APP, 1: AppAccount.of(caps=Caps(day=5))})
    await write(store, accounts=[new(rich)])
    assert await stored(store) == rich
    async with store.writer().begin() as transaction:
        assert replace((await transaction.accounts([7]))[7], id="") == rich


async def test_what_an_account_no_longer_keeps_is_gone(store: Store) -> None:
    full = account(apps={1: APP})
    await write(store, accounts=[new(full)])
    capped = account(revision=2, apps={1: AppAccount.of(caps=Caps(day=5))})
    await write(store, accounts=[(full, capped)])
    assert await stored(store) == capped
    assert await store.due_accounts(NOW + 99 * HOUR, limit=9) == []
    await write(store, accounts=[(capped, account(revision=3))])
    assert await stored(store) == account(revision=3)


@in_mongo
async def test_an_account_that_keeps_nothing_has_the_fields_of_one_that_never_did(
    store: Store, mongod_uri: str, migrated_database: str
) -> None:
    full = account(apps={1: APP})
    await write(store, accounts=[new(full), new(account(8))])
    await write(store, accounts=[(full, account(revision=2))])
    with MongoClient[dict[str, object]](mongod_uri) as client:
        emptied, plain = client[migrated_database]["user_credits"].find().sort("user_id")
    assert list(emptied) == list(plain)


DETAILS = Details(
    related_id=id_of(99),
    related_total=7,
    allocations=(PART, Allocation(credits=1)),
    delta=-10,
    effective_at=NOW - HOUR,
    ends_at=NOW + HOUR,
    released=2,
    held_after=3,
    metadata=(("a.b", ""), ("$order", "4711 \N{SNOWMAN}")),
    note="why",
    request=(("priority", "7"),),
)


@with_each_driver
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
async def test_an_entry_of_each_kind_is_read_back_unchanged(store: Store, kind: Kind) -> None:
    made = entry(1, kind, details=DETAILS)
    if kind is Kind.USE:
        made = replace(made, purchase_id=id_of(5), report_id="r", report_name="n")
    await write(store, transactions=[made])
    async with store.writer().begin() as transaction:
        assert await transaction.transactions([], [made.id]) == [made]
    (row,) = [row async for page in store.list_transactions(7) for row in page]
    assert isinstance(row, TransactionRow)
    assert (row.kind, row.credits, row.report_id) == (kind, 10, made.report_id)
    assert row.details == RowDetails(
        effect=-10,
        related_id=id_of(99),
        effective_at=1767319445678,
        ends_at=1767326645678,
        allocations=((id_of(10), 3), ("", 1)),
        metadata=DETAILS.metadata,
        note="why",
    )


async def test_a_plain_add_or_use_has_no_details_in_a_list(store: Store) -> None:
    used = replace(entry(2, Kind.USE), purchase_id=id_of(5), report_id="r", report_name="n")
    with_condition = entry(3, details=Details(request=(("expected_revision", "2"),)))
    voided = entry(4, Kind.VOID, details=Details(delta=0))
    await write(store, transactions=[entry(1), used, with_condition, voided])
    rows = [row async for page in store.list_transactions(7) for row in page]
    assert [row.details is None for row in rows] == [True, True, True, False]
    assert [(row.report_id, row.report_name) for row in rows[:2]] == [("", ""), ("r", "n")]
    assert rows[3].details is not None
    assert rows[3].details.effect == 0


async def test_entries_and_the_latest_related_ones_are_found_by_reference(store: Store) -> None:
    placed, other = entry(1, Kind.HOLD), entry(50, Kind.HOLD, user=8, sequence=1)
    to_hold = Details(related_id=placed.id)
    captures = [entry(number, Kind.USE, details=to_hold) for number in (2, 4, 3)]
    captures = [
        replace(each, purchase_id=id_of(9), report_id="r", report_name="n") for each in captures
    ]
    # The entry of another user refers to it too, as the two sides of a transfer do.
    foreign = entry(51, Kind.TRANSFER_IN, user=8, sequence=2, details=to_hold)
    await write(store, transactions=[placed, other, *captures, foreign])
    references = [
        (7, placed.id),
        (7, other.id),
        (8, placed.id),
        (7, id_of(3)),
        (7, "no id"),
        (7, ""),
    ]
    found = await known(store, references)
    assert found.entries == {(7, placed.id): placed, (7, id_of(3)): captures[2]}
    assert found.latest_related == {(7, placed.id): captures[1], (8, placed.id): foreign}


async def test_the_latest_void_of_each_grant_that_paid_for_a_use_is_found(store: Store) -> None:
    grants = [entry(number, Kind.GRANT) for number in (1, 2, 3)]
    paid = tuple(Allocation(credits=1, grant_id=grant.id, sequence=1) for grant in grants[:2])
    used = replace(
        entry(4, Kind.USE, details=Details(allocations=(*paid, Allocation(credits=1)))),
        purchase_id=id_of(9),
        report_id="r",
        report_name="n",
    )
    related = [
        entry(number, kind, details=Details(related_id=grants[at].id))
        for number, kind, at in (
            (5, Kind.VOID, 0),
            (6, Kind.VOID, 0),
            (7, Kind.EXPIRE, 0),
            (8, Kind.EXPIRE, 1),
            (9, Kind.VOID, 2),
        )
    ]
    await write(store, transactions=[*grants, used, *related])
    found = await known(store, [(7, used.id)])
    assert found.voided == {(7, grants[0].id): Void(6, related[1].created_at)}
    assert (await known(store, [(7, grants[0].id)])).voided == {}


async def test_purchases_of_a_report_that_are_not_refunded_in_full_are_found(store: Store) -> None:
    bought = [
        purchase(1),
        purchase(2, refunded=9),
        purchase(3, refunded=10),
        purchase(4, report="r-2"),
        purchase(5, user=8),
    ]
    await write(store, purchases=bought)
    found = await known(store, [(7, id_of(77))], ["r-1", "r-2", "r-3"])
    assert {key[2]: list(owned) for key, owned in found.purchases.items()} == {
        "r-1": [bought[1], bought[0]],
        "r-2": [bought[3]],
        "r-3": [],
    }
    (latest,) = (await known(store, [], ["r-1"])).purchases.values()
    assert list(latest) == [bought[1]]


async def test_a_refund_changes_a_stored_purchase(store: Store) -> None:
    await write(store, purchases=[purchase(1)])
    half = Refunded(purchase_id=id_of(1), refunded_credits=5)
    await write(store, refunded=[(7, half)])
    (row,) = [row async for page in store.list_purchases(7) for row in page]
    assert row.refunded_credits == 5
    fresh = Refunded(purchase_id=id_of(2), refunded_credits=10)
    await write(store, purchases=[purchase(2)], refunded=[(7, fresh)])
    (owned,) = (await known(store, [(7, "")], ["r-1"])).purchases.values()
    assert list(owned) == [purchase(1, refunded=5)]
    for user, number in ((7, 3), (8, 1)):
        missing = Refunded(purchase_id=id_of(number), refunded_credits=5)
        with pytest.raises(Conflict):
            await write(store, refunded=[(user, missing)])


@with_each_driver
async def test_holds_are_listed_with_their_latest_entry(store: Store) -> None:
    holds = [entry(number, Kind.HOLD) for number in (2, 4, 6, 8)]
    extended = entry(3, Kind.EXTEND, details=Details(related_id=id_of(2)))
    released = entry(5, Kind.RELEASE, details=Details(related_id=id_of(2)))
    noise = [entry(7, Kind.HOLD, app=2), entry(60, Kind.HOLD, user=8, sequence=2), entry(9)]
    await write(store, transactions=[*holds, extended, released, *noise])
    first = await store.hold_entries(7, 1, limit=3)
    assert list(first) == [
        HoldRow(holds[0], released),
        HoldRow(holds[1], None),
        HoldRow(holds[2], None),
    ]
    assert list(await store.hold_entries(7, 1, after_sequence=6, limit=3)) == [
        HoldRow(holds[3], None)
    ]
    assert await store.hold_entries(7, 3, limit=3) == []


@with_each_driver
async def test_a_policy_is_set_on_the_revision_that_was_read(store: Store) -> None:
    assert await store.policy(1) == AppPolicy(app_id=1)
    first = AppPolicy(
        app_id=1,
        policy=Policy(caps=Caps(day=5), allow_negative=True),
        revision=1,
        updated_at=NOW,
        updated_by=3,
    )
    await store.set_policy(first)
    assert await store.policy(1) == first
    second = replace(first, policy=Policy(), revision=2, updated_by=4)
    for stale in (first, replace(second, revision=3)):
        with pytest.raises(Conflict):
            await store.set_policy(stale)
    await store.set_policy(second)
    assert await store.policy(1) == second
    assert await store.policy(2) == AppPolicy(app_id=2)


@with_each_driver
async def test_a_transaction_reads_the_policies_of_its_snapshot(store: Store) -> None:
    first = AppPolicy(
        app_id=1, policy=Policy(caps=Caps(day=5)), revision=1, updated_at=NOW, updated_by=3
    )
    await store.set_policy(first)
    async with store.writer().begin() as transaction:
        assert await transaction.policies([1, 2]) == {1: first.policy}
        second = replace(first, policy=Policy(allow_negative=True), revision=2)
        await store.set_policy(second)
        assert await transaction.policies([1, 2]) == {1: first.policy}
        await transaction.commit()
    async with store.writer().begin() as transaction:
        assert await transaction.policies([2, 1]) == {1: second.policy}


async def test_of_two_writers_of_a_new_policy_one_is_rejected(store: Store) -> None:
    policy = AppPolicy(app_id=1, revision=1, updated_at=NOW, updated_by=3)
    results = await asyncio.gather(
        *(store.set_policy(replace(policy, updated_by=number)) for number in (1, 2, 3)),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == [
        "Conflict",
        "Conflict",
        "NoneType",
    ]


def due(*hours: int) -> AppAccount:
    holds = [
        Hold(
            id=id_of(hour), sequence=1, credits=1, placed_at=NOW,
            ends_at=NOW + hour * HOUR, created_by=3,
        )
        for hour in hours
    ]  # fmt: skip
    return AppAccount.of(holds=tuple(holds))


@with_each_driver
async def test_accounts_are_due_in_the_order_of_their_earliest_time(store: Store) -> None:
    await write(
        store,
        accounts=[
            new(account(1, apps={1: due(5)})),
            new(account(2, apps={1: due(3, 1), 2: due(2), 3: due(3)})),
            new(account(3)),
            new(account(5, apps={1: due(2), 2: AppAccount.of(caps=Caps(day=1))})),
            new(account(4, apps={1: due(2)})),
            new(account(6, apps={1: due(9)})),
        ],
    )
    wanted = [
        DueAccount(NOW + HOUR, 2, {1: 1, 2: 1}),
        DueAccount(NOW + 2 * HOUR, 4, {1: 1}),
        DueAccount(NOW + 2 * HOUR, 5, {1: 1}),
    ]
    moment = NOW + 2 * HOUR
    assert list(await store.due_accounts(moment, limit=9)) == wanted
    assert list(await store.due_accounts(moment, limit=2)) == wanted[:2]
    assert list(await store.due_accounts(moment, after=wanted[0], limit=1)) == wanted[1:2]
    assert list(await store.due_accounts(moment, after=wanted[1], limit=9)) == wanted[2:]
    assert list(await store.due_accounts(moment, after=wanted[2], limit=9)) == []
    assert list(await store.due_accounts(NOW, limit=9)) == []


@in_mongo
async def test_large_changes_are_several_commands_of_one_transaction(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, int]] = []
    send = run_pipelined

    def recorded(session: Any, database: str, commands: Sequence[dict[str, Any]]) -> Any:
        for command in commands:
            verb, collection = next(iter(command.items()))
            field = "updates" if verb == "update" else "documents"
            sent.append((collection, len(command[field])))
        return send(session, database, commands)

    monkeypatch.setattr(transaction_module, "run_pipelined", recorded)
    monkeypatch.setattr(transaction_module, "_UPDATES_MAX", 4)
    monkeypatch.setattr(transaction_module, "_ITEMS_MAX", 5)
    monkeypatch.setattr(transaction_module, "_INSERTS_MAX", 3)
    holds = [0, 0, 0, 0, 0, 3, 2, 1, 9, 0]
    await write(
        store,
        accounts=[
            new(account(user, apps={1: due(*range(1, count + 1))} if count else None))
            for user, count in enumerate(holds, start=1)
        ],
        transactions=[entry(number, Kind.ADD) for number in range(1, 8)],
    )
    accounts = [size for collection, size in sent if collection == "user_credits"]
    assert accounts == [4, 3, 1, 1, 1]
    assert [size for collection, size in sent if collection == "credit_transactions"] == [3, 3, 1]
    for user, count in enumerate(holds, start=1):
        stored = await store.account(user)
        assert stored is not None
        assert stored.items == count


@in_mongo
async def test_an_account_that_cannot_be_read_does_not_hide_the_others(
    store: Store, mongod_uri: str, migrated_database: str
) -> None:
    await write(store, accounts=[new(account(user, apps={1: due(1)})) for user in (1, 2)])
    with MongoClient[dict[str, object]](mongod_uri) as client:
        accounts = client[migrated_database].get_collection("user_credits")
        client[migrated_database].command("collMod", "user_credits", validationLevel="off")
        accounts.update_one({"user_id": 1}, {"$set": {"surprise": 1}, "$unset": {"apps": ""}})
    found = await store.due_accounts(NOW + HOUR, limit=9)
    assert [(each.user_id, each.due) for each in found] == [(1, {}), (2, {1: 1})]


@pytest.mark.parametrize(
    "apps",
    ["no array", ["no document"], [{"app_id": "x"}], [{"app_id": 1, "due_at": "soon"}]],
    ids=str,
)
@in_mongo
async def test_apps_of_a_foreign_shape_do_not_hide_the_other_accounts(
    store: Store, mongod_uri: str, migrated_database: str, apps: object
) -> None:
    await write(store, accounts=[new(account(user, apps={1: due(1)})) for user in (1, 2)])
    with MongoClient[dict[str, object]](mongod_uri) as client:
        client[migrated_database].command("collMod", "user_credits", validationLevel="off")
        accounts = client[migrated_database].get_collection("user_credits")
        accounts.update_one({"user_id": 1}, {"$set": {"apps": apps}})
    found = await store.due_accounts(NOW + HOUR, limit=9)
    assert [(each.user_id, each.due) for each in found] == [(1, {}), (2, {1: 1})]


@with_each_driver
async def test_what_is_due_in_an_app_is_counted(store: Store) -> None:
    grants = [
        Grant(
            id=id_of(hour),
            sequence=hour,
            credits=1,
            left=1,
            ends_at=NOW + hour * HOUR,
            created_by=3,
        )
        for hour in (1, 2, 3)
    ]
    scheduled = Grant(
        id=id_of(9), sequence=9, credits=1, left=1, starts_at=NOW + 2 * HOUR, created_by=3
    )
    never = Grant(id=id_of(8), sequence=8, credits=1, left=1, created_by=3)
    app = AppAccount.of(
        grants=(*grants, never), scheduled=(scheduled,), holds=due(1, 2, 2, 9).holds
    )
    await write(store, accounts=[new(account(1, apps={1: app, 2: due(1), 3: due(3)}))])
    (found,) = await store.due_accounts(NOW + 2 * HOUR, limit=9)
    assert found.due == {1: 6, 2: 1}


@with_each_driver
async def test_a_lease_has_one_owner_until_it_ends(store: Store) -> None:
    assert await store.lease("work", "$a", 60)
    assert await store.lease("work", "$a", 60)
    assert not await store.lease("work", "b", 60)
    assert await store.lease("other", "b", 60)
    assert await store.lease("work", "$a", 0.001)
    await asyncio.sleep(0.01)
    assert await store.lease("work", "b", 60)
    assert not await store.lease("work", "$a", 60)


async def test_of_many_processes_one_takes_a_lease(store: Store) -> None:
    taken = await asyncio.gather(*(store.lease("work", f"{each}", 60) for each in range(8)))
    assert sum(taken) == 1


@in_mongo
async def test_what_the_sweeper_and_references_read_is_found_by_an_index(
    store: Store, mongod_uri: str, migrated_database: str
) -> None:
    entries = [entry(number, Kind.RELEASE, details=Details(related_id=id_of(number % 2)))
               for number in range(2, 300)]  # fmt: skip
    plain = [account(user) for user in range(1000, 1200)]
    await write(
        store,
        accounts=[new(each) for each in (account(1, apps={1: due(1)}), *plain)],
        transactions=[entry(1, Kind.HOLD), *entries],
        purchases=[purchase(number, report=f"r-{number}") for number in range(1, 200)],
    )
    examined = _examined(mongod_uri, migrated_database)
    with MongoClient[dict[str, object]](mongod_uri) as client:
        client[migrated_database].command("profile", 2)
        await store.due_accounts(NOW + HOUR, limit=9)
        await known(store, [(7, id_of(1))], ["r-7"])
        await store.hold_entries(7, 1, limit=9)
        client[migrated_database].command("profile", 0)
    assert examined() <= 20


def _examined(uri: str, database: str) -> Callable[[], int]:
    def examined() -> int:
        with MongoClient[dict[str, int]](uri) as client:
            found = client[database]["system.profile"].find({"docsExamined": {"$exists": True}})
            return sum(each["docsExamined"] for each in found)

    return examined


async def test_a_lease_of_the_memory_store_ends_by_its_clock() -> None:
    moment = time.time()
    store = MemoryStore(clock=lambda: moment)
    assert await store.lease("work", "a", 5)
    moment += 4
    assert not await store.lease("work", "b", 5)
    moment += 1
    assert await store.lease("work", "b", 5)
