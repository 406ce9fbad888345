"""Test queries of transactions: what both stores find, and what MongoDB examines for it."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from credit_models.ledger import Allocation, Details, Kind, Purchase, Transaction
from credit_server.store import memory_queries, queries, schema, sources
from credit_server.store.history import (
    HistoryQuery,
    Page,
    Position,
    PurchaseQuery,
    TransactionQuery,
    TransactionRow,
)
from credit_server.store.memory import MemoryStore
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Changes, Store
from credit_testing.databases import MigratedDatabases
from pymongo import MongoClient

START = datetime(2026, 1, 2, tzinfo=UTC)
ENTRIES = 700
EXAMINED = 50
HOLD = f"{13:024x}"
GRANT = f"{14:024x}"
MANY = frozenset(range(1, 1_001))
QueryT = TypeVar("QueryT", bound=HistoryQuery)


def app_of(sequence: int) -> int:
    return 9 if sequence % 100 == 0 else 1 + sequence % 2


def entry(sequence: int) -> Transaction:
    """Return an entry: one a minute, two in three are uses, each tenth refers to a hold."""
    used = sequence % 3 != 0
    tenth = sequence % 10 == 0
    return Transaction(
        id=f"{sequence:024x}",
        user_id=7,
        app_id=app_of(sequence),
        kind=Kind.USE if used else Kind.ADD,
        credits=sequence,
        balance_after=1,
        sequence=sequence,
        created_at=START + timedelta(minutes=sequence),
        created_by=1 + sequence % 4,
        key=f"key-{sequence}",
        purchase_id=f"{sequence:024x}" if used else "",
        report_id=f"r-{sequence % 5}" if used else "",
        report_name="Report" if used else "",
        details=Details(
            related_id=HOLD if tenth else "",
            allocations=(Allocation(grant_id=GRANT, sequence=14, credits=1),) if tenth else (),
            metadata=(("order", str(sequence % 7)), ("shop", "a")),
        ),
    )


HISTORY = [entry(sequence) for sequence in range(1, ENTRIES + 1)]


def purchase(sequence: int) -> Purchase:
    """Return the purchase of an entry: each fifth is refunded in part."""
    paid = entry(sequence)
    return Purchase(
        id=paid.purchase_id,
        user_id=paid.user_id,
        app_id=paid.app_id,
        report_id=paid.report_id,
        report_name=paid.report_name,
        credits=paid.credits,
        created_at=paid.created_at,
        created_by=paid.created_by,
        transaction_id=paid.id,
        sequence=sequence,
        refunded_credits=1 if sequence % 5 == 0 else 0,
    )


async def write(store: Store, entries: list[Transaction]) -> None:
    purchases = [purchase(each.sequence) for each in entries if each.kind is Kind.USE]
    changes = Changes(
        accounts=[], transactions=entries, purchases=purchases, totals={}, counter_shard=0
    )
    async with store.writer().begin() as transaction:
        await transaction.write(changes)
        await transaction.commit()


@pytest.fixture(autouse=True)
def examined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a page examine few entries, so that the tests need few."""
    monkeypatch.setattr(queries, "EXAMINED_MAX", EXAMINED)
    monkeypatch.setattr(memory_queries, "EXAMINED_MAX", EXAMINED)


@pytest.fixture(scope="module")
async def migrated_database(
    mongod_uri: str, migrated_databases: MigratedDatabases
) -> AsyncIterator[str]:
    """Return the name of a database with the history, which all tests share."""
    async with migrated_databases.lend() as name:
        store = MongoStore(mongod_uri, database=name)
        await write(store, HISTORY)
        await store.close()
        yield name


@pytest.fixture
async def store(store: Store) -> Store:
    if isinstance(store, MemoryStore):
        await write(store, HISTORY)
    return store


@pytest.fixture
def appended(mongod_uri: str, migrated_database: str) -> Iterator[None]:
    """Remove what a test writes after the history."""
    yield
    with MongoClient[dict[str, Any]](mongod_uri) as client:
        for name in (schema.CREDIT_TRANSACTIONS, schema.PURCHASES):
            client[migrated_database][name].delete_many({"sequence": {"$gt": ENTRIES}})


# Any: the conditions of a query have many types.
def query(**changed: Any) -> TransactionQuery:
    return replace(TransactionQuery(user_id=7, limit=20), **changed)


async def pages(store: Store, query: TransactionQuery) -> AsyncIterator[list[TransactionRow]]:
    """Yield all pages, each as the next one of a client would be read."""
    last: int | Position | None = 0
    while last is not None:
        rows, last, _ = await store.query_transactions(query)
        yield list(rows)
        query = continued(query, last)


def continued(query: QueryT, last: int | Position | None) -> QueryT:
    if isinstance(last, Position):
        return replace(query, after=last)
    if query.newest_first:
        return replace(query, before_sequence=last)
    return replace(query, after_sequence=last or 0)


async def purchases(store: Store, query: PurchaseQuery) -> list[int]:
    """Return the sequences of all pages."""
    found: list[int] = []
    last: int | Position | None = 0
    while last is not None:
        rows, last, _ = await store.query_purchases(query)
        found += [row.sequence for row in rows]
        query = continued(query, last)
    return found


def _at(first: int, end: int) -> Any:
    return lambda each: first <= each.sequence < end


async def found(store: Store, query: TransactionQuery) -> list[int]:
    return [row.sequence async for page in pages(store, query) for row in page]


def minute(sequence: float) -> datetime:
    return START + timedelta(minutes=sequence)


# The conditions of a query, and the entries that satisfy them.
CASES: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda _: True),
    ({"apps": frozenset({9})}, lambda each: each.app_id == 9),
    ({"apps": frozenset({2, 9})}, lambda each: each.app_id in (2, 9)),
    ({"apps": MANY}, lambda _: True),
    ({"apps": frozenset({5})}, lambda _: False),
    ({"after_sequence": 100, "before_sequence": 150}, lambda each: 100 < each.sequence < 150),
    ({"created_from": minute(300)}, lambda each: each.sequence >= 300),
    ({"created_from": minute(300.01)}, lambda each: each.sequence > 300),
    ({"created_until": minute(30)}, lambda each: each.sequence < 30),
    (
        {"created_from": minute(10), "created_until": minute(13), "apps": frozenset({1})},
        lambda each: each.sequence in (10, 12),
    ),
    ({"created_from": minute(ENTRIES + 1)}, lambda _: False),
    ({"created_until": minute(0)}, lambda _: False),
    ({"kinds": frozenset({Kind.ADD})}, lambda each: each.kind is Kind.ADD),
    ({"kinds": frozenset({Kind.HOLD})}, lambda _: False),
    ({"credits_min": 650}, lambda each: each.credits >= 650),
    ({"credits_max": 3}, lambda each: each.credits <= 3),
    ({"report_id": "r-2"}, lambda each: each.report_id == "r-2"),
    ({"created_by": 4, "apps": MANY}, lambda each: each.created_by == 4),
    ({"metadata": (("order", "3"),)}, lambda each: each.sequence % 7 == 3),
    ({"metadata": (("order", "3"), ("shop", "b"))}, lambda _: False),
    ({"related_id": HOLD}, lambda each: each.sequence % 10 == 0),
    ({"related_id": HOLD, "apps": frozenset({9})}, lambda each: each.app_id == 9),
    ({"related_id": "none"}, lambda _: False),
    ({"grant_id": GRANT, "apps": frozenset({1})}, lambda each: each.sequence % 10 == 0),
    ({"grant_id": "none"}, lambda _: False),
    ({"user_id": 8}, lambda _: False),
    ({"user_id": 8, "created_from": minute(1)}, lambda _: False),
]


async def test_pages_have_what_satisfies_the_query_in_order(store: Store) -> None:
    for conditions, satisfies in CASES:
        apps = conditions.get("apps")
        expected = [
            each.sequence
            for each in HISTORY
            if satisfies(each) and (apps is None or each.app_id in apps)
        ]
        oldest = query(newest_first=False, limit=150, **conditions)
        assert await found(store, oldest) == expected, conditions
        assert await found(store, replace(oldest, newest_first=True)) == expected[::-1], conditions


async def test_a_page_is_full_where_an_index_serves_the_query(store: Store) -> None:
    sizes = [len(page) async for page in pages(store, query(limit=300, apps=MANY))]
    assert sizes == [300, 300, 100]


async def test_a_page_examines_a_bounded_number_of_entries(store: Store) -> None:
    """A rare condition has short and empty pages before the last one."""
    rare = query(kinds=frozenset({Kind.USE}), credits_min=349, credits_max=350, limit=20)
    sizes = [len(page) async for page in pages(store, rare)]
    assert sum(sizes) == 2
    assert len(sizes) in (ENTRIES // EXAMINED, ENTRIES // EXAMINED + 1)


@pytest.mark.usefixtures("appended")
@pytest.mark.parametrize("newest_first", [True, False])
async def test_no_page_skips_or_repeats_while_entries_are_written(
    store: Store, newest_first: bool
) -> None:
    seen: list[int] = []
    written = ENTRIES
    every = query(limit=100, newest_first=newest_first, kinds=frozenset(Kind))
    async for page in pages(store, every):
        seen += [row.sequence for row in page]
        if written < ENTRIES + 40:
            await write(store, [entry(written + 1), entry(written + 2)])
            written += 2
    if newest_first:
        assert seen == list(range(ENTRIES, 0, -1))
    else:
        # What was written after the last page is not in it.
        assert seen == list(range(1, written - 1))


async def test_a_row_is_that_of_a_list(store: Store) -> None:
    listed = [row async for page in store.list_transactions(7) for row in page]
    queried = [
        row async for page in pages(store, query(newest_first=False, limit=250)) for row in page
    ]
    assert queried == listed


async def test_a_transaction_is_found_by_its_id_and_its_key(store: Store) -> None:
    by_id = await store.find_transaction(f"{5:024x}")
    assert by_id is not None
    assert by_id.sequence == 5
    assert await store.find_transaction((7, app_of(5), "key-5")) == by_id


@pytest.mark.parametrize(
    "name", ["none", "f" * 24, (7, 9, "key-5"), (8, app_of(5), "key-5"), (7, app_of(5), "k")]
)
async def test_an_unknown_name_finds_nothing(store: Store, name: Any) -> None:
    assert await store.find_transaction(name) is None


PURCHASE_CASES: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda _: True),
    ({"apps": frozenset({9})}, lambda each: each.app_id == 9),
    ({"apps": MANY}, lambda _: True),
    ({"after_sequence": 100, "before_sequence": 150}, lambda each: 100 < each.sequence < 150),
    ({"created_from": minute(300), "created_until": minute(350)}, _at(300, 350)),
    ({"created_from": minute(ENTRIES + 1)}, lambda _: False),
    ({"credits_min": 650}, lambda each: each.credits >= 650),
    ({"report_id": "r-2"}, lambda each: each.report_id == "r-2"),
    ({"report_id": "r-2", "apps": frozenset({1})}, lambda each: each.report_id == "r-2"),
    ({"created_by": 4}, lambda each: each.created_by == 4),
    ({"refunded": True}, lambda each: each.sequence % 5 == 0),
    ({"refunded": False, "apps": frozenset({2})}, lambda each: each.sequence % 5 != 0),
    ({"user_id": 8}, lambda _: False),
]


async def test_pages_have_the_purchases_that_satisfy_the_query(store: Store) -> None:
    for conditions, satisfies in PURCHASE_CASES:
        apps = conditions.get("apps")
        expected = [
            each.sequence
            for each in HISTORY
            if each.kind is Kind.USE and satisfies(each) and (apps is None or each.app_id in apps)
        ]
        oldest = PurchaseQuery(**{"user_id": 7, "limit": 150, "newest_first": False} | conditions)
        assert await purchases(store, oldest) == expected, conditions
        newest = replace(oldest, newest_first=True)
        assert await purchases(store, newest) == expected[::-1], conditions


async def test_a_purchase_has_its_refunded_credits(store: Store) -> None:
    (row,) = (
        await store.query_purchases(PurchaseQuery(user_id=7, limit=1, before_sequence=6))
    ).rows
    assert (row.sequence, row.refunded_credits, row.report_id) == (5, 1, "r-0")


@pytest.mark.usefixtures("appended")
async def test_an_entry_that_is_written_during_the_search_of_a_time_is_not_in_the_page(
    mongo: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search ends after the latest entry; one that is written then was not compared."""
    search = queries._UserReader._first_at

    async def slow(*arguments: Any) -> int:
        sequence = await search(*arguments)
        await write(mongo, [entry(ENTRIES + 1)])
        return sequence

    monkeypatch.setattr(queries._UserReader, "_first_at", slow)
    page = await mongo.query_transactions(query(created_from=minute(ENTRIES + 9)))
    assert page == Page([], None)


@pytest.fixture
async def mongo(mongod_uri: str, migrated_database: str) -> AsyncIterator[MongoStore]:
    store = MongoStore(mongod_uri, database=migrated_database)
    yield store
    await store.close()


@pytest.fixture
def profile(mongod_uri: str, migrated_database: str) -> Iterator[Any]:
    """Return a function that returns the reads since it was called first."""
    with MongoClient[dict[str, Any]](mongod_uri) as client:
        database = client[migrated_database]

        def reads() -> list[dict[str, Any]]:
            database.command("profile", 0)
            found = list(database["system.profile"].find({"op": {"$in": ["query", "getmore"]}}))
            database.drop_collection("system.profile")
            database.command("profile", 2)
            return found

        yield reads
        database.command("profile", 0)
        database.drop_collection("system.profile")


@pytest.mark.parametrize("newest_first", [True, False])
async def test_a_page_scans_an_index_in_its_order(
    mongo: MongoStore, profile: Any, newest_first: bool
) -> None:
    for conditions, _ in CASES:
        profile()
        await mongo.query_transactions(query(newest_first=newest_first, **conditions))
        for read in profile():
            assert "COLLSCAN" not in read["planSummary"], conditions
            assert not read.get("hasSortStage", False), conditions
            # A merge of many apps reads one key of each; a page, an edge or 128 probes the rest.
            apps = min(len(conditions.get("apps") or ()), sources.SCANS_MAX)
            assert read["keysExamined"] <= max(2 * EXAMINED + 2 * apps + 2, 3 * 64), conditions
            assert read["docsExamined"] <= max(EXAMINED, 2 * 64), conditions


async def test_the_search_of_a_time_takes_few_commands(mongo: MongoStore, profile: Any) -> None:
    profile()
    await mongo.query_transactions(query(created_from=minute(333), limit=1))
    # The latest sequence, two rounds of 64 probes, and the page.
    assert len(profile()) == 4


async def test_a_transaction_is_read_by_one_key_of_an_index(
    mongo: MongoStore, profile: Any
) -> None:
    profile()
    await mongo.find_transaction(f"{5:024x}")
    await mongo.find_transaction((7, app_of(5), "key-5"))
    reads = profile()
    assert [each["keysExamined"] for each in reads] == [1, 1]
    assert [each["docsExamined"] for each in reads] == [1, 1]


def test_queries_use_indexes_of_the_schema() -> None:
    names = {index.document["name"] for index in schema.INDEXES[schema.CREDIT_TRANSACTIONS]}
    used = {schema.BY_KEY, schema.BY_RELATED_ID, schema.BY_SEQUENCE, schema.BY_APP_AND_SEQUENCE}
    assert used | {schema.BY_APP_AND_TIME} <= names
