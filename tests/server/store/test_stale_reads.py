"""Test that a history is not returned if it misses what an earlier read has returned.

Right after a change of primary, a read can miss what an earlier one has returned. So a read that
follows from another one names a sequence that must be stored.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest
from credit_models.ledger import Kind, Purchase, Transaction
from credit_server.commit.committer import Committer
from credit_server.store.driver import Driver
from credit_server.store.history import GroupBy, HistoryQuery, PurchaseQuery, TransactionQuery
from credit_server.store.log import timestamp_of
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Changes, LogPosition, Store, StoreUnavailable

from tests.server.commit.scripted_store import add
from tests.server.store.profiler import profiled_reads

NOW = datetime(2026, 1, 2, tzinfo=UTC)

# The kinds and apps of the entries. The first two are purchases.
HISTORY = [(Kind.USE, 1), (Kind.USE, 2), (Kind.HOLD, 1)]
STORED = len(HISTORY)

Apps = frozenset[int] | None
# Reads a user's entries in some apps, of which one with a sequence must be stored.
Read = Callable[[Store, Apps, int], Awaitable[Sequence[int]]]


def query(apps: Apps, stored: int) -> dict[str, Any]:
    return {"user_id": 7, "apps": apps, "limit": 9, "stored_sequence": stored}


async def listed_transactions(store: Store, apps: Apps, stored: int) -> Sequence[int]:
    pages = store.list_transactions(7, apps, stored_sequence=stored)
    return [row.sequence async for page in pages for row in page]


async def listed_purchases(store: Store, apps: Apps, stored: int) -> Sequence[int]:
    pages = store.list_purchases(7, apps, stored_sequence=stored)
    return [row.sequence async for page in pages for row in page]


async def found_transactions(store: Store, apps: Apps, stored: int) -> Sequence[int]:
    page = await store.query_transactions(TransactionQuery(**query(apps, stored)))
    return [row.sequence for row in reversed(page.rows)]


async def found_purchases(store: Store, apps: Apps, stored: int) -> Sequence[int]:
    page = await store.query_purchases(PurchaseQuery(**query(apps, stored)))
    return [row.sequence for row in reversed(page.rows)]


async def summarized(store: Store, apps: Apps, stored: int) -> Sequence[int]:
    found = await store.summarize(HistoryQuery(**query(apps, stored)), GroupBy.NOTHING)
    return [sequence for row in found.rows for sequence in range(1, row.entries + 1)]


async def holds(store: Store, apps: Apps, stored: int) -> Sequence[int]:
    rows = await store.hold_entries(7, 1, stored_sequence=stored, limit=9)
    return [row.placed.sequence for row in rows]


async def balance(store: Store, apps: Apps, stored: int) -> Sequence[int]:
    return [(await store.balance_at(7, 1, end=stored + 1)).sequence]


# Each read with what it returns for all apps, one app and both.
READS: list[tuple[Read, Sequence[Sequence[int]]]] = [
    (listed_transactions, ([1, 2, 3], [1, 3], [1, 2, 3])),
    (listed_purchases, ([1, 2], [1], [1, 2])),
    (found_transactions, ([1, 2, 3], [1, 3], [1, 2, 3])),
    (found_purchases, ([1, 2], [1], [1, 2])),
    (summarized, ([1, 2, 3], [1, 2], [1, 2, 3])),
    (holds, ([3], [3], [3])),
    (balance, ([3], [3], [3])),
]
NAMES = [getattr(read, "__name__", "") for read, _ in READS]
APPS: Sequence[Apps] = (None, frozenset({1}), frozenset({1, 2}))


@pytest.fixture
async def store(store: Store) -> Store:
    made = [transaction(number, *each) for number, each in enumerate(HISTORY, 1)]
    changes = Changes(
        accounts=[],
        transactions=made,
        purchases=[purchase(each) for each in made if each.kind is Kind.USE],
        totals={},
        counter_shard=0,
    )
    async with store.writer().begin() as writing:
        await writing.write(changes)
        await writing.commit()
    return store


def transaction(sequence: int, kind: Kind, app_id: int) -> Transaction:
    return Transaction(
        id=id_of(sequence),
        user_id=7,
        app_id=app_id,
        kind=kind,
        credits=1,
        balance_after=9,
        sequence=sequence,
        created_at=NOW,
        created_by=1,
        key="",
        purchase_id=id_of(sequence) if kind is Kind.USE else "",
        report_id="r" if kind is Kind.USE else "",
        report_name="Report" if kind is Kind.USE else "",
    )


def id_of(sequence: int) -> str:
    """Return an id that no store makes."""
    return f"{sequence:x}".rjust(24, "f")


def purchase(used: Transaction) -> Purchase:
    return Purchase(
        id=used.id,
        user_id=used.user_id,
        app_id=used.app_id,
        report_id="r",
        report_name="Report",
        credits=used.credits,
        created_at=used.created_at,
        created_by=1,
        transaction_id=used.id,
        sequence=used.sequence,
    )


@pytest.mark.parametrize(("read", "expected"), READS, ids=NAMES)
async def test_a_read_that_misses_what_an_earlier_read_has_returned_fails(
    store: Store, read: Read, expected: Sequence[Sequence[int]]
) -> None:
    for apps, found in zip(APPS, expected, strict=True):
        assert await read(store, apps, STORED) == found
        with pytest.raises(StoreUnavailable):
            await read(store, apps, STORED + 1)


@pytest.mark.parametrize("store", Driver, indirect=True)
@pytest.mark.parametrize("read", [read for read, _ in READS])
async def test_all_reads_after_the_check_see_what_it_has_seen(
    store: MongoStore, mongod_uri: str, migrated_database: str, read: Read
) -> None:
    for apps in APPS:
        with profiled_reads(mongod_uri, migrated_database) as reads:
            await read(store, apps, STORED)
        concerns = [each["readConcern"] for each in reads]
        assert len(concerns) > 1
        assert all(
            "afterClusterTime" in concern or concern["level"] == "snapshot"
            for concern in concerns[1:]
        )


async def log_end(store: Store) -> LogPosition:
    async with aclosing(store.follow_log()) as pages:
        return (await anext(pages)).end


async def test_an_account_since_a_position_is_not_older(store: Store) -> None:
    async with Committer(store) as committer:
        for _ in range(2):
            await committer.submit(add(store, user=8))
    account = await store.account_since(8, await log_end(store))
    assert account is not None
    assert account.revision == 2
    assert await store.account_since(9, await log_end(store)) is None


async def test_an_account_is_not_read_from_a_node_without_the_position(store: Store) -> None:
    end = await log_end(store)
    a_minute = 60 << 32
    with pytest.raises(StoreUnavailable, match="does not have"):
        await store.account_since(7, LogPosition(end.time + a_minute, end.token))


@pytest.mark.parametrize("store", Driver, indirect=True)
async def test_mongod_waits_for_the_position_of_an_account(
    store: MongoStore, mongod_uri: str, migrated_database: str
) -> None:
    end = await log_end(store)
    with profiled_reads(mongod_uri, migrated_database) as reads:
        await store.account_since(7, end)
    assert [each["readConcern"] for each in reads] == [
        {"level": "majority", "afterClusterTime": timestamp_of(end)}
    ]
