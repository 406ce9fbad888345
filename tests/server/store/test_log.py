"""The log of committed transactions, of both stores alike, and what MongoDB's survives."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from unittest.mock import Mock

import pytest
from credit_models.ledger import Details, Kind, Transaction
from credit_server.store import log
from credit_server.store.history import TransactionQuery
from credit_server.store.log import _Follower
from credit_server.store.memory import MemoryStore
from credit_server.store.mongo import MongoStore
from credit_server.store.port import (
    Changes,
    LogEntry,
    LogPage,
    LogPosition,
    LogTruncated,
    Store,
    StoreUnavailable,
)

from tests.server.store.fail_point import failing

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


@pytest.fixture(params=["memory", "mongo"])
async def store(
    request: pytest.FixtureRequest, mongod_uri: str, migrated_database: str
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    mongo = MongoStore(mongod_uri, database=migrated_database)
    yield mongo
    await mongo.close()


@pytest.fixture
async def mongo(mongod_uri: str, migrated_database: str) -> AsyncIterator[MongoStore]:
    # On a busy machine, the driver may need seconds to find the primary again.
    store = MongoStore(mongod_uri, database=migrated_database, timeout_seconds=60.0)
    yield store
    await store.close()


def entry(store: Store, sequence: int, *, user: int = 7, app: int = 1) -> Transaction:
    return Transaction(
        id=store.new_id(),
        user_id=user,
        app_id=app,
        kind=Kind.ADD,
        credits=sequence,
        balance_after=sequence,
        sequence=sequence,
        created_at=NOW,
        created_by=3,
        key="",
        details=Details(metadata=(("order", "42"),), note="n"),
    )


async def write(store: Store, *entries: Transaction) -> None:
    changes = Changes(accounts=[], transactions=entries, purchases=[], totals={}, counter_shard=0)
    async with store.writer().begin() as transaction:
        await transaction.write(changes)
        await transaction.commit()


async def read(pages: AsyncIterator[LogPage], number: int) -> list[LogEntry]:
    """Read pages until so many entries have come."""
    found: list[LogEntry] = []
    while len(found) < number:
        found += (await anext(pages)).entries
    return found


def sequences(entries: list[LogEntry]) -> list[tuple[int, int]]:
    return [(each.user_id, each.row().sequence) for each in entries]


async def test_what_is_committed_is_followed_in_order(store: Store) -> None:
    await write(store, entry(store, 1))
    async with aclosing(store.follow_log()) as pages:
        first = await anext(pages)
        assert first.entries == []
        await write(store, entry(store, 2), entry(store, 1, user=8))
        await write(store, entry(store, 3))
        found = await read(pages, 3)
    assert sequences(found) == [(7, 2), (8, 1), (7, 3)]
    tokens = [first.end.token, *(each.position.token for each in found)]
    assert tokens == sorted(set(tokens))
    assert found[0].position.time <= found[-1].position.time
    listed = await store.query_transactions(TransactionQuery(user_id=8, limit=1))
    assert [found[1].row()] == listed.rows


async def test_an_aborted_transaction_is_not_in_the_log(store: Store) -> None:
    async with aclosing(store.follow_log()) as pages:
        await anext(pages)
        async with store.writer().begin() as transaction:
            await transaction.write(
                Changes(
                    accounts=[],
                    transactions=[entry(store, 1)],
                    purchases=[],
                    totals={},
                    counter_shard=0,
                )
            )
        await write(store, entry(store, 2))
        assert sequences(await read(pages, 1)) == [(7, 2)]


async def test_the_log_of_an_app_is_read_from_a_position(store: Store) -> None:
    async with aclosing(store.follow_log()) as pages:
        start = (await anext(pages)).end.token
        await write(store, *(entry(store, number, app=number % 2 + 1) for number in range(1, 8)))
        followed = await read(pages, 7)
    page = await store.read_log(start, 2, limit=3)
    assert sequences(list(page.entries)) == [(7, 1), (7, 3), (7, 5)]
    assert not page.at_end
    assert page.end == page.entries[-1].position == followed[4].position
    rest = await store.read_log(page.end.token, 2, limit=3)
    assert sequences(list(rest.entries)) == [(7, 7)]
    assert rest.at_end
    assert rest.end.time >= followed[-1].position.time
    assert rest.end.token >= followed[-1].position.token
    nothing = await store.read_log(rest.end.token, 2, limit=3)
    assert (nothing.entries, nothing.at_end) == ([], True)


async def test_the_end_of_an_idle_log_is_not_before_the_start_of_a_follower(store: Store) -> None:
    """A resumed watch reads up to that start. Otherwise it would wait for mongod's next write."""
    async with aclosing(store.follow_log()) as pages:
        await anext(pages)
        await write(store, entry(store, 1))
        (written,) = await read(pages, 1)
    async with aclosing(store.follow_log()) as pages:
        start = (await anext(pages)).end
    for _ in range(20):  # mongod's own last write may not be on a majority yet
        page = await store.read_log(written.position.token, 1, limit=1)
        assert page.at_end
        if page.end.time >= start.time:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the end of the log is before the start")


async def test_the_log_of_an_app_is_read_from_a_transaction_of_another_app(store: Store) -> None:
    users = {7: 1, 8: 2, 9: 3}
    async with aclosing(store.follow_log()) as pages:
        await anext(pages)
        await write(store, *(entry(store, 1, user=user, app=app) for user, app in users.items()))
        found = await read(pages, 3)
    await write(store, *(entry(store, 2, user=user, app=app) for user, app in users.items()))
    for earlier, each in enumerate(found):
        for user, app in users.items():
            page = await store.read_log(each.position.token, app, limit=10)
            first = [] if list(users).index(user) <= earlier else [(user, 1)]
            assert sequences(list(page.entries)) == [*first, (user, 2)]


async def test_a_position_that_was_never_made_is_not_in_the_log(store: Store) -> None:
    with pytest.raises(LogTruncated):
        await store.read_log(b"\x82" + bytes(40), 1, limit=1)
    with pytest.raises(LogTruncated):
        await store.read_log(b"\xff" * 8, 1, limit=1)


async def test_the_memory_store_can_drop_its_log() -> None:
    store = MemoryStore()
    await write(store, entry(store, 1))
    store.truncate_log()
    with pytest.raises(LogTruncated):
        await store.read_log(bytes(8), 1, limit=1)


async def test_a_broken_connection_neither_repeats_nor_omits(
    mongo: MongoStore, mongod_uri: str
) -> None:
    async with aclosing(mongo.follow_log()) as pages:
        await anext(pages)
        found: list[LogEntry] = []
        # 91 (ShutdownInProgress) is what a primary that steps down answers.
        for broken in ({"errorCode": 91}, {"closeConnection": True}):
            async with failing(mongod_uri, "getMore", times=1, kill_sessions=False, **broken):
                await write(mongo, entry(mongo, 1 + len(found)), entry(mongo, 2 + len(found)))
                found += await read(pages, 2)
    assert sequences(found) == [(7, number) for number in range(1, 5)]


async def test_a_store_that_cannot_be_reached_is_unavailable(unused_tcp_port: int) -> None:
    uri = f"mongodb://127.0.0.1:{unused_tcp_port}/?replicaSet=credit"
    store = MongoStore(uri, database="d", timeout_seconds=0.1)
    with pytest.raises(StoreUnavailable):
        await anext(store.follow_log())
    with pytest.raises(StoreUnavailable):
        await store.read_log(b"\x82" + b"\1" * 8, 1, limit=1)
    await store.close()


async def test_followers_end_with_the_store(mongo: MongoStore) -> None:
    pages = mongo.follow_log()
    await anext(pages)
    ends = asyncio.ensure_future(read(pages, 1))
    await mongo.close()
    ends.cancel()
    assert not [each for each in mongo._log._followers if each.is_alive()]


class HookedLock:
    """Calls a function once, right after it was released."""

    def __init__(self, released: Callable[[], None]) -> None:
        self._released: list[Callable[[], None]] = [released]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._released:
            self._released.pop()()


async def test_a_page_does_not_end_behind_an_entry_that_arrives_while_it_is_made() -> None:
    position = LogPosition(2, b"2")
    late = LogEntry(position, 7, 1, Mock())
    follower = _Follower(Mock())
    follower._put(None, LogPosition(1, b"1"))
    # A context manager is all that the follower needs of its lock.
    follower._lock = HookedLock(lambda: follower._put(late, position))  # type: ignore[assignment]
    first = await follower.next_page()
    assert first == LogPage([], LogPosition(1, b"1"), at_end=True)
    assert await follower.next_page() == LogPage([late], position, at_end=True)


async def test_a_follower_that_is_stopped_while_it_waits_for_room_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log, "_WAITING_MAX", 1)
    follower = _Follower(Mock())
    room = follower._room
    clear = room.clear

    def stop_and_clear() -> None:
        follower.stop()
        clear()

    def wait() -> None:
        assert room.is_set(), "the thread would wait forever"

    monkeypatch.setattr(room, "clear", stop_and_clear)
    monkeypatch.setattr(room, "wait", wait)
    position = LogPosition(1, b"1")
    follower._put(LogEntry(position, 7, 1, Mock()), position)


def test_a_page_ends_where_it_was_read_to_and_not_where_the_log_ends() -> None:
    # mongod answers with nothing when its time is over, before it has read to the end of the log. A
    # watch that took the end of the log for what it had read missed the transactions between.
    token = "826B0CFECF0000001B2B0429296E1404"
    end = log._end_of(Mock(resume_token={"_data": token}))
    assert end == LogPosition(0x6B0CFECF << 32 | 0x1B, bytes.fromhex(token))


async def test_the_time_in_a_token_is_that_of_its_transaction(mongo: MongoStore) -> None:
    async with aclosing(mongo.follow_log()) as pages:
        await anext(pages)
        await write(mongo, entry(mongo, 1))
        (found,) = await read(pages, 1)
    assert log._time_of(found.position.token) == found.position.time
