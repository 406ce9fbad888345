"""Test that the cost of a list in a real mongod depends only on the entries listed.

The profiler records the commands that the store sends. See
https://www.mongodb.com/docs/manual/reference/database-profiler/.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from credit_models.ledger import Kind, Purchase, Transaction
from credit_server.store.driver import Driver
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Changes
from credit_testing.databases import MigratedDatabases
from pymongo import MongoClient

USER = 7
PAGE = 100
OWN = 2
"""The app of a tenant that has 5 entries."""
MANY = frozenset(range(1_000, 2_000))
"""Apps with one entry each."""
NOW = datetime(2026, 1, 2, tzinfo=UTC)

ENTRIES = 3_000


def app_of(sequence: int) -> int:
    """Return the app of an entry: mostly app 1, seldom the tenant's, and one of many in between."""
    if sequence % 600 == 300:
        return OWN
    return 1_000 + sequence // 3 if sequence % 3 == 1 else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The cost of some commands.

    Attributes:
        finds: The number of commands.
        keys: The number of index keys examined.
        documents: The number of documents examined.
        sorts: The number of commands that sorted their results.
    """

    finds: int
    keys: int
    documents: int
    sorts: int


@pytest.fixture(scope="module")
async def filled(mongod_uri: str, migrated_databases: MigratedDatabases) -> AsyncIterator[str]:
    """Return the name of a database with a long history, which no test changes."""
    async with migrated_databases.lend() as name:
        mongo = MongoStore(mongod_uri, database=name)
        numbers = range(1, ENTRIES + 1)
        await write(mongo, [entry(number) for number in numbers], [purchase(n) for n in numbers])
        await mongo.close()
        yield name


@pytest.fixture
async def store(mongod_uri: str, filled: str) -> AsyncIterator[MongoStore]:
    mongo = MongoStore(mongod_uri, database=filled, page_size=PAGE)
    yield mongo
    await mongo.close()


async def write(
    store: MongoStore, transactions: Sequence[Transaction], purchases: Sequence[Purchase] = ()
) -> None:
    changes = Changes(
        accounts=[], transactions=transactions, purchases=purchases, totals={}, counter_shard=0
    )
    async with store.writer().begin() as transaction:
        await transaction.write(changes)
        await transaction.commit()


def entry(sequence: int, app: int | None = None) -> Transaction:
    return Transaction(
        id=f"{sequence:024x}",
        user_id=USER,
        app_id=app or app_of(sequence),
        kind=Kind.USE,
        credits=1,
        balance_after=1,
        sequence=sequence,
        created_at=NOW,
        created_by=1,
        key=f"key-{sequence}",
        purchase_id=f"{sequence:024x}",
        report_id="r",
        report_name="Report",
    )


def purchase(sequence: int) -> Purchase:
    return Purchase(
        id=f"{sequence:024x}",
        user_id=USER,
        app_id=app_of(sequence),
        report_id="r",
        report_name="Report",
        credits=1,
        created_at=NOW,
        created_by=1,
        transaction_id=f"{sequence:024x}",
        sequence=sequence,
    )


@pytest.fixture
def profiled(mongod_uri: str, filled: str) -> Iterator[Callable[[], Cost]]:
    """Profile the commands of a test, and yield a function that returns their cost so far."""
    client: MongoClient[dict[str, Any]] = MongoClient(mongod_uri)
    database = client[filled]
    profile = database["system.profile"]

    def cost() -> Cost:
        own = f"{filled}.system.profile"
        found = list(profile.find({"op": {"$in": ["query", "getmore"]}, "ns": {"$ne": own}}))
        return Cost(
            finds=sum(one["op"] == "query" for one in found),
            keys=sum(one["keysExamined"] for one in found),
            documents=sum(one["docsExamined"] for one in found),
            sorts=sum(one.get("hasSortStage", False) for one in found),
        )

    with client:
        database.command("profile", 2)
        try:
            yield cost
        finally:
            database.command("profile", 0)
            profile.drop()


async def listed(
    store: MongoStore, kind: str, apps: frozenset[int] | None, after: int = 0
) -> list[int]:
    list_ = store.list_transactions if kind == "transactions" else store.list_purchases
    pages = list_(USER, apps, after_sequence=after)
    return [found.sequence async for page in pages for found in page]


@pytest.mark.parametrize("kind", ["transactions", "purchases"])
async def test_the_cost_of_a_tenants_list_depends_on_the_tenants_entries(
    store: MongoStore, profiled: Callable[[], Cost], kind: str
) -> None:
    assert await listed(store, kind, frozenset({OWN})) == [300, 900, 1500, 2100, 2700]
    assert profiled() == Cost(finds=1, keys=5, documents=5, sorts=0)


@pytest.mark.parametrize("kind", ["transactions", "purchases"])
async def test_the_list_of_a_tenant_without_entries_costs_nothing(
    store: MongoStore, profiled: Callable[[], Cost], kind: str
) -> None:
    assert await listed(store, kind, frozenset({3})) == []
    assert profiled() == Cost(finds=1, keys=0, documents=0, sorts=0)


@pytest.mark.parametrize("apps", [None, frozenset({1, OWN})], ids=["all apps", "two"])
async def test_each_page_is_one_command_that_reads_a_page(
    store: MongoStore, profiled: Callable[[], Cost], apps: frozenset[int] | None
) -> None:
    expected = [n for n in range(1, ENTRIES + 1) if apps is None or app_of(n) in apps]
    assert await listed(store, "transactions", apps) == expected
    cost = profiled()
    assert cost.finds == len(expected) // PAGE + 1
    assert cost.documents == len(expected)
    # A merge reads one key ahead in each app, once per page.
    assert cost.keys <= len(expected) + 2 * cost.finds
    assert cost.sorts == 0


async def test_reading_the_end_of_a_list_does_not_read_the_entries_before(
    store: MongoStore, profiled: Callable[[], Cost]
) -> None:
    assert await listed(store, "transactions", frozenset({OWN}), after=2699) == [2700]
    assert await listed(store, "transactions", None, after=ENTRIES - 1) == [ENTRIES]
    cost = profiled()
    assert (cost.finds, cost.documents, cost.sorts) == (2, 2, 0)


async def test_a_page_of_a_thousand_apps_costs_a_key_of_each_and_a_few_pages(
    store: MongoStore, profiled: Callable[[], Cost]
) -> None:
    pages = store.list_transactions(USER, MANY)
    page = await anext(pages)
    assert [found.sequence for found in page] == list(range(1, 3 * PAGE, 3))
    cost = profiled()
    # 200 apps at a time: with more scans, mongod sorts all results instead of merging them.
    assert cost.finds == 5
    assert cost.sorts == 0
    assert cost.documents <= 5 * PAGE
    assert cost.keys <= len(MANY) + 5 * PAGE


async def test_a_list_of_a_thousand_apps_is_complete_and_in_order(store: MongoStore) -> None:
    whole = [n for n in range(1, ENTRIES + 1) if app_of(n) in MANY]
    assert len(whole) == len(MANY)
    assert await listed(store, "transactions", MANY) == whole
    assert await listed(store, "purchases", MANY, after=1500) == [n for n in whole if n > 1500]


@pytest.mark.parametrize("driver", Driver)
async def test_a_page_of_many_apps_is_one_snapshot(
    mongod_uri: str, migrated_database: str, driver: Driver
) -> None:
    """Without a snapshot, a page could show an entry and miss an earlier one for good."""
    written = [entry(1, app=1_000), entry(2, app=1_999)]

    class WritesAfterTheFirstRead(MongoStore):
        async def _find(self, *query: Any) -> list[dict[str, Any]]:
            found = await super()._find(*query)
            late, written[:] = list(written), []
            if late:
                await write(self, late)
            return found

    store = WritesAfterTheFirstRead(
        mongod_uri, database=migrated_database, page_size=PAGE, driver=driver
    )
    assert await listed(store, "transactions", MANY) == []
    assert written == []
    assert await listed(store, "transactions", MANY) == [1, 2]
    await store.close()


async def test_concurrent_reads_of_accounts_share_commands(
    store: MongoStore, profiled: Callable[[], Cost]
) -> None:
    assert set(await asyncio.gather(*(store.account(user) for user in range(1, 101)))) == {None}
    # No more than two queries run at once, and each waiting read joins the next one.
    assert profiled().finds <= 2


async def test_concurrent_reads_of_totals_share_commands(
    store: MongoStore, profiled: Callable[[], Cost]
) -> None:
    assert await asyncio.gather(*(store.app_total(app) for app in range(1, 101))) == [0] * 100
    assert profiled().finds <= 2


async def test_a_key_is_looked_up_without_reading_the_history(
    store: MongoStore, profiled: Callable[[], Cost]
) -> None:
    async with store.writer().begin() as transaction:
        keys = [(USER, 1, "key-3"), (USER, OWN, "key-3"), (USER, 1, "absent")]
        found = await transaction.transactions(keys, [f"{9:024x}", f"{ENTRIES + 1:024x}"])
        await transaction.commit()
    assert {one.sequence for one in found} == {3, 9}
    cost = profiled()
    assert (cost.finds, cost.documents) == (1, 2)
    assert cost.keys <= 5
