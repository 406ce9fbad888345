"""Test queries of all users in an app: what both stores find, and what MongoDB examines for it."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import pytest
from credit_models.ledger import Kind, Purchase, Transaction
from credit_server.store import memory_queries, queries
from credit_server.store.history import Position, PurchaseQuery, TransactionQuery
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Changes, Store
from pymongo import MongoClient

ENTRIES = 150
EXAMINED = 20
SETTLING = 90.0

# Whole seconds, and long enough ago that all entries are settled.
START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def entry(number: int, created_at: datetime | None = None) -> Transaction:
    """Return an entry of one of five users: ten are of one millisecond, with ids in any order."""
    return Transaction(
        id=f"{number * 7919 % 10_000:024x}",
        user_id=1 + number % 5,
        app_id=1 + number % 2,
        kind=Kind.USE if number % 3 else Kind.ADD,
        credits=1 + number,
        balance_after=1,
        sequence=1 + number // 5,
        created_at=created_at or START + timedelta(milliseconds=number // 20),
        created_by=1 + number % 4,
        key="",
        purchase_id=f"{number:024x}" if number % 3 else "",
        report_id=f"r-{number % 4}" if number % 3 else "",
        report_name="Report" if number % 3 else "",
    )


def purchase(paid: Transaction) -> Purchase:
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
        sequence=paid.sequence,
        refunded_credits=1 if paid.credits % 2 else 0,
    )


HISTORY = [entry(number) for number in range(ENTRIES)]


async def write(store: Store, entries: list[Transaction]) -> None:
    bought = [purchase(each) for each in entries if each.kind is Kind.USE]
    changes = Changes(
        accounts=[], transactions=entries, purchases=bought, totals={}, counter_shard=0
    )
    async with store.writer().begin() as transaction:
        await transaction.write(changes)
        await transaction.commit()


@pytest.fixture(autouse=True)
def examined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a page examine few entries, so that the tests need few."""
    monkeypatch.setattr(queries, "EXAMINED_MAX", EXAMINED)
    monkeypatch.setattr(memory_queries, "EXAMINED_MAX", EXAMINED)


@pytest.fixture
async def store(store: Store) -> Store:
    await write(store, HISTORY)
    return store


# Any: the conditions of a query have many types.
def query(**changed: Any) -> TransactionQuery:
    values = {"user_id": None, "apps": frozenset({1}), "limit": 7, "settling_seconds": SETTLING}
    return TransactionQuery(**values | changed)


async def pages(store: Store, query: TransactionQuery) -> list[list[str]]:
    """Return the ids of all pages, each as the next one of a client would be read."""
    found: list[list[str]] = []
    last: int | Position | None = 0
    while last is not None:
        rows, last, complete_until = await store.query_transactions(query)
        assert complete_until is not None
        found.append([row.id for row in rows])
        if last is not None:
            assert isinstance(last, Position)
            query = replace(query, after=last)
    return found


async def found(store: Store, query: TransactionQuery) -> list[str]:
    return [*chain(*await pages(store, query))]


def _place(each: Transaction) -> tuple[datetime, str]:
    return each.created_at, each.id


def _after_start(milliseconds: float) -> datetime:
    return START + timedelta(milliseconds=milliseconds)


# The conditions of a query, and the entries that satisfy them.
CASES: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda _: True),
    ({"created_from": _after_start(3)}, lambda each: each.created_at >= _after_start(3)),
    ({"created_from": _after_start(2.5)}, lambda each: each.created_at >= _after_start(3)),
    ({"created_until": _after_start(3)}, lambda each: each.created_at < _after_start(3)),
    ({"created_from": _after_start(3), "created_until": _after_start(3)}, lambda _: False),
    ({"kinds": frozenset({Kind.ADD})}, lambda each: each.kind is Kind.ADD),
    ({"credits_min": 140}, lambda each: each.credits >= 140),
    ({"report_id": "r-2"}, lambda each: each.report_id == "r-2"),
    ({"created_by": 3}, lambda each: each.created_by == 3),
    ({"grant_id": "none"}, lambda _: False),
    ({"apps": frozenset({5})}, lambda _: False),
]


async def test_pages_have_what_satisfies_the_query_in_the_order_of_time_and_id(
    store: Store,
) -> None:
    for conditions, satisfies in CASES:
        apps = conditions.get("apps", frozenset({1}))
        some = [each for each in HISTORY if each.app_id in apps and satisfies(each)]
        expected = [each.id for each in sorted(some, key=_place)]
        oldest = query(newest_first=False, **conditions)
        assert await found(store, oldest) == expected, conditions
        newest = replace(oldest, newest_first=True)
        assert await found(store, newest) == expected[::-1], conditions


async def test_a_page_is_full_where_an_index_serves_the_query(store: Store) -> None:
    assert [len(page) for page in await pages(store, query(limit=40))] == [40, 35]


async def test_a_page_examines_a_bounded_number_of_entries(store: Store) -> None:
    rare = await pages(store, query(credits_min=149))
    assert len(rare) in (4, 5)
    assert len([*chain(*rare)]) == 1


async def test_purchases_are_found_like_transactions(store: Store) -> None:
    refunded = PurchaseQuery(
        user_id=None,
        apps=frozenset({1}),
        refunded=True,
        report_id="r-2",
        limit=50,
        newest_first=False,
        settling_seconds=SETTLING,
    )
    found: list[str] = []
    last: int | Position | None = 0
    while last is not None:
        rows, last, _ = await store.query_purchases(refunded)
        found += [row.id for row in rows]
        refunded = replace(refunded, after=last if isinstance(last, Position) else None)
    some = [purchase(each) for each in HISTORY if each.report_id == "r-2" and each.app_id == 1]
    expected = sorted((each.created_at, each.id) for each in some if each.refunded_credits)
    assert found == [id_ for _, id_ in expected]
    assert found


@pytest.mark.parametrize("newest_first", [True, False])
async def test_an_entry_that_is_not_settled_is_left_out(store: Store, newest_first: bool) -> None:
    late = entry(ENTRIES + 2, datetime.now(UTC).replace(microsecond=0))
    assert late.app_id == 1
    await write(store, [late])
    page = await store.query_transactions(query(limit=200, newest_first=newest_first))
    assert late.id not in {row.id for row in page.rows}
    assert page.complete_until is not None
    assert abs(page.complete_until / 1000 + SETTLING - time.time()) < 60
    assert all(row.created_at < page.complete_until for row in page.rows)
    page = await store.query_transactions(query(limit=200, settling_seconds=-3600.0))
    assert page.rows[0].id == late.id


@pytest.mark.parametrize("newest_first", [True, False])
async def test_no_page_skips_or_repeats_while_settled_entries_are_read_and_others_written(
    store: Store, newest_first: bool
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    seen: list[str] = []
    each = query(newest_first=newest_first)
    number = ENTRIES
    last: int | Position | None = 0
    while last is not None:
        rows, last, _ = await store.query_transactions(each)
        seen += [row.id for row in rows]
        each = replace(each, after=last if isinstance(last, Position) else None)
        await write(store, [entry(number, now), entry(number + 1, now)])
        number += 2
    some = sorted((one for one in HISTORY if one.app_id == 1), key=_place, reverse=newest_first)
    assert seen == [one.id for one in some]


@pytest.mark.parametrize("newest_first", [True, False])
async def test_a_page_scans_an_index_in_its_order(
    mongod_uri: str, migrated_database: str, newest_first: bool
) -> None:
    mongo = MongoStore(mongod_uri, database=migrated_database)
    await write(mongo, HISTORY)
    with MongoClient[dict[str, Any]](mongod_uri) as client:
        for conditions, _ in CASES:
            first = await mongo.query_transactions(query(newest_first=newest_first, **conditions))
            place = first.last if isinstance(first.last, Position) else None
            client[migrated_database].command("profile", 2)
            await mongo.query_transactions(
                query(newest_first=newest_first, after=place, **conditions)
            )
            client[migrated_database].command("profile", 0)
            profile = client[migrated_database]["system.profile"]
            reads = list(
                profile.find({"op": "query", "ns": f"{migrated_database}.credit_transactions"})
            )
            client[migrated_database].drop_collection("system.profile")
            for read in reads:
                assert "app_id" in read["planSummary"], conditions
                assert not read.get("hasSortStage", False), conditions
                # The page and one entry more, or the edge.
                assert read["keysExamined"] <= EXAMINED + 2, conditions
                assert read["docsExamined"] <= EXAMINED + 1, conditions
    await mongo.close()
