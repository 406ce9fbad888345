"""Test the sweeper: what is due is written once, by one process, within limits."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

import pytest
from credit_models.ledger import Account, GrantCredits, Kind, PlaceHold, Receipt
from credit_server.commit import (
    CommitLimits,
    Committer,
    Stopping,
    Submission,
    Sweeper,
    SweepLimits,
)
from credit_server.store.memory import MemoryStore
from credit_server.store.mongo import MongoStore
from credit_server.store.port import (
    DueAccount,
    Store,
    StoreTransaction,
    StoreUnavailable,
    Unreadable,
)
from pymongo import MongoClient
from structlog.testing import capture_logs

from tests.server.commit.auditing import audit
from tests.server.commit.scripted_store import LIMITS, ScriptedStore, add, history, rows
from tests.server.commit.test_kinds import MINUTE, Moving, done, write

FAST = SweepLimits(
    per_second=1e9, chunk=3, interval_seconds=0.001, backoff_seconds_max=0.004, skip_seconds=60
)


class Swept:
    """Records what the sweeper reports."""

    def __init__(self) -> None:
        self.settled = 0
        self.lags: list[float] = []
        self.rounds = asyncio.Event()

    def swept(self, settled: int, lag_seconds: float) -> None:
        self.settled += settled
        self.lags.append(lag_seconds)
        self.rounds.set()


@pytest.fixture
def time() -> Moving:
    return Moving()


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
async def committer(store: ScriptedStore, time: Moving) -> AsyncIterator[Committer]:
    async with Committer(store, LIMITS, clock=time.clock) as running:
        yield running


def sweeper(
    store: Store, committer: Committer, time: Moving, swept: Swept, limits: SweepLimits = FAST
) -> Sweeper:
    return Sweeper(store, committer, time.clock, swept, limits, random=Random(7))


async def grant(store: Store, committer: Committer, *users: int) -> None:
    for user in users:
        given = GrantCredits(**write(store, user=user), credits=5, expires_after=user * MINUTE)
        await done(committer, given)


async def test_a_sweep_settles_all_that_is_due_and_nothing_else(
    store: ScriptedStore, committer: Committer, time: Moving
) -> None:
    await grant(store, committer, *range(1, 12))
    hold = PlaceHold(**write(store, user=1, app_id=1), credits=2, expires_after=MINUTE)
    await done(committer, hold)
    swept = Swept()
    one = sweeper(store, committer, time, swept)
    await one.sweep()
    assert (swept.settled, swept.lags) == (0, [0.0])
    time.now += 9 * MINUTE
    await one.sweep()
    assert swept.settled == 9
    assert max(swept.lags) == 8 * 60
    for user in range(1, 10):
        kinds = [entry.kind for entry in await history(store, user)]
        assert kinds.count(Kind.EXPIRE) == 1
    assert await store.app_total(1) == 10
    await one.sweep()
    assert (swept.settled, swept.lags[-1]) == (9, 0.0)
    await audit(store, *range(1, 12))


async def test_all_apps_of_a_user_are_settled(
    store: ScriptedStore, committer: Committer, time: Moving
) -> None:
    for app in range(1, 9):
        given = GrantCredits(
            **{**write(store), "app_id": app}, credits=5, expires_after=app * MINUTE
        )
        await done(committer, given)
    time.now += 7 * MINUTE
    swept = Swept()
    await sweeper(store, committer, time, swept).sweep()
    assert swept.settled == 7
    account = await store.account(1)
    assert account is not None
    assert list(account.apps) == [8]
    assert [entry.created_by for entry in await history(store)] == [1] * 15


async def test_one_of_several_processes_sweeps(
    store: ScriptedStore, committer: Committer, time: Moving
) -> None:
    await grant(store, committer, 1, 2)
    time.now += 2 * MINUTE
    first, second = Swept(), Swept()
    async with Committer(store, LIMITS, clock=time.clock) as other:
        one, two = sweeper(store, committer, time, first), sweeper(store, other, time, second)
        await one.sweep()
        await two.sweep()
    assert (first.settled, second.settled, second.lags) == (2, 0, [0.0])


async def test_the_lease_is_extended_after_half_of_its_time(
    store: ScriptedStore, committer: Committer, time: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    extensions: list[float] = []

    async def lease(_name: str, _owner: str, seconds: float) -> bool:
        extensions.append(clock)
        return len(extensions) != 2  # the second time, another process has it

    monkeypatch.setattr(store, "lease", lease)
    clock = 0.0
    limits = replace(FAST, lease_seconds=10)
    one = Sweeper(
        store, committer, time.clock, Swept(), limits, random=Random(1), monotonic=lambda: clock
    )
    for now in (0.0, 4.9, 5.0, 5.1, 10.0, 10.1):
        clock = now
        await one.sweep()
    assert extensions == [0.0, 5.0, 5.1, 10.1]


async def test_a_sweep_ends_when_another_process_has_the_lease(
    store: ScriptedStore, committer: Committer, time: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lease(_name: str, _owner: str, _seconds: float) -> bool:
        return swept.settled == 0

    monkeypatch.setattr(store, "lease", lease)
    await grant(store, committer, *range(1, 10))
    time.now += 10 * MINUTE
    swept = Swept()
    limits = replace(FAST, chunk=9, entries=3, lease_seconds=0)
    await sweeper(store, committer, time, swept, limits).sweep()
    assert (swept.settled, swept.lags[-1]) == (3, 0.0)


async def test_two_that_sweep_at_once_write_nothing_twice(
    store: ScriptedStore, committer: Committer, time: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def everyone(_name: str, _owner: str, _seconds: float) -> bool:
        return True

    monkeypatch.setattr(store, "lease", everyone)
    await grant(store, committer, *range(1, 21))
    time.now += 20 * MINUTE
    swept = Swept()
    async with Committer(store, LIMITS, clock=time.clock) as other:
        await asyncio.gather(
            *(sweeper(store, each, time, swept).sweep() for each in (committer, other, other))
        )
    assert swept.settled == 20
    assert await store.app_total(1) == 0
    await audit(store, *range(1, 21))


async def test_a_sweep_is_bounded_in_number_and_rate(
    store: ScriptedStore, committer: Committer, time: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grant(store, committer, *range(1, 11))
    time.now += 10 * MINUTE
    pauses: list[float] = []
    store.script.batches.clear()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("credit_server.commit.sweeper.asyncio.sleep", pause)
    limits = SweepLimits(per_second=2, chunk=4)
    await sweeper(store, committer, time, Swept(), limits).sweep()
    assert [seconds for seconds in pauses if seconds >= 1] == [2.0, 2.0, 1.0]
    assert max(store.script.batches) <= 4


async def test_a_sweep_bounds_the_entries_that_are_written_at_once(
    store: ScriptedStore, committer: Committer, time: Moving
) -> None:
    for user, holds in enumerate((1, 2, 2, 9, 1, 4), start=1):
        await done(committer, add(store, 99, user=user))
        for _ in range(holds):
            hold = PlaceHold(**write(store, user=user), credits=1, expires_after=MINUTE)
            await done(committer, hold)
    time.now += 2 * MINUTE
    store.script.batches.clear()
    async with Committer(store, CommitLimits(shards=1), clock=time.clock) as single:
        swept = Swept()
        limits = replace(FAST, chunk=64, entries=5)
        await sweeper(store, single, time, swept, limits).sweep()
    assert swept.settled == 6
    assert store.script.batches == [5, 9, 5]
    await audit(store, *range(1, 7))


class FaultyUser(ScriptedStore):
    """Cannot read the account of one user in a transaction."""

    def __init__(self, user: int) -> None:
        super().__init__()
        self.user: int | None = user

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        async with super().begin() as transaction:
            read = transaction.accounts

            async def accounts(user_ids: Collection[int]) -> dict[int, Account]:
                if self.user in user_ids:
                    raise ValueError("a document cannot be read")
                return await read(user_ids)

            transaction.accounts = accounts  # type: ignore[method-assign] # only of this one
            yield transaction


async def test_an_account_that_cannot_be_settled_does_not_stop_the_others(time: Moving) -> None:
    store = FaultyUser(0)
    async with Committer(store, LIMITS, clock=time.clock) as before:
        await grant(store, before, *range(1, 9))
    time.now += 8 * MINUTE
    store.user = 3
    seconds = [0.0]
    async with Committer(store, LIMITS, clock=time.clock) as committer:
        swept = Swept()
        one = Sweeper(store, committer, time.clock, swept, FAST, monotonic=lambda: seconds[0])
        await one.sweep()
        assert swept.settled == 7
        assert max(swept.lags) == 7 * 60
        store.user = None
        await one.sweep()  # skipped for a while
        assert (swept.settled, swept.lags[-1]) == (7, 5 * 60)
        seconds[0] = 61
        await one.sweep()
        assert swept.settled == 8
    await audit(store, *range(1, 9))


class AwayStore(ScriptedStore):
    """Is away for some reads of what is due."""

    def __init__(self) -> None:
        super().__init__()
        self.away = 0
        self.asked = 0
        self.error: Exception = StoreUnavailable("the store is away")

    async def due_accounts(
        self, before: datetime, *, after: DueAccount | None = None, limit: int
    ) -> Sequence[DueAccount]:
        self.asked += 1
        if self.asked <= self.away:
            raise self.error
        return await super().due_accounts(before, after=after, limit=limit)


@pytest.mark.parametrize(
    "error",
    [StoreUnavailable("the store is away"), RuntimeError("MongoDB lacks an index")],
    ids=["away", "unexpected"],
)
async def test_the_sweeper_continues_after_an_error(time: Moving, error: Exception) -> None:
    store = AwayStore()
    store.error = error
    async with Committer(store, LIMITS, clock=time.clock) as committer:
        await grant(store, committer, 1)
        time.now += MINUTE
        store.away = 5
        swept = Swept()
        running = asyncio.create_task(sweeper(store, committer, time, swept).run())
        while not swept.settled:
            await swept.rounds.wait()
            swept.rounds.clear()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()
    assert store.asked >= 6
    await audit(store, 1)


async def test_pauses_grow_while_sweeps_fail_and_are_short_again_after_a_success(
    time: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AwayStore()
    store.away = 4
    pauses: list[float] = []
    enough = asyncio.Event()

    class Longest(Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > 6:
            enough.set()
        await sleep(0)

    limits = SweepLimits(interval_seconds=1, backoff_seconds_max=6)
    async with Committer(store, LIMITS, clock=time.clock) as committer:
        one = Sweeper(store, committer, time.clock, Swept(), limits, random=Longest())
        monkeypatch.setattr("credit_server.commit.sweeper.asyncio.sleep", pause)
        running = asyncio.create_task(one.run())
        await enough.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert pauses[:6] == [1, 2, 4, 6, 6, 1]


async def test_the_lag_grows_while_searches_fail(time: Moving) -> None:
    store, swept, seconds = AwayStore(), Swept(), [100.0]
    limits = replace(FAST, interval_seconds=1e-9)

    async def rounds(count: int) -> Sequence[float]:
        """Return the lags of some rounds, with a minute before the result of each."""
        running = asyncio.create_task(one.run())
        lags = len(swept.lags)
        for _ in range(count):
            seconds[0] += 60
            swept.rounds.clear()
            await swept.rounds.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return swept.lags[lags : lags + count]

    async with Committer(store, LIMITS, clock=time.clock) as committer:
        await grant(store, committer, 1)
        one = Sweeper(
            store, committer, time.clock, swept, limits, random=Random(7),
            monotonic=lambda: seconds[0],
        )  # fmt: skip
        store.away = 3
        assert await rounds(3) == [60, 120, 180]
        assert await rounds(1) == [0]
        store.away = store.asked + 2
        assert await rounds(2) == [60, 120]
        time.now += 3 * MINUTE
        found = (await rounds(1))[0]
        assert found == 2 * 60
        await audit(store, 1)
        store.away = store.asked + 1
        assert await rounds(1) == [swept.lags[-2] + 60]


async def test_an_account_without_a_readable_app_is_reported_and_skipped(time: Moving) -> None:
    class Foreign(ScriptedStore):
        async def due_accounts(
            self, before: datetime, *, after: DueAccount | None = None, limit: int
        ) -> Sequence[DueAccount]:
            return [DueAccount(before - MINUTE, 7, {})]

    store, swept = Foreign(), Swept()
    async with Committer(store, LIMITS, clock=time.clock) as committer:
        one = sweeper(store, committer, time, swept)
        with capture_logs() as logs:
            await one.sweep()
            await one.sweep()
    assert [line["user_id"] for line in logs] == [7]
    assert swept.lags == [60, 60]


async def test_an_overloaded_server_does_not_sweep(
    store: ScriptedStore, committer: Committer, time: Moving
) -> None:
    await grant(store, committer, *range(1, 9))
    time.now += 9 * MINUTE
    full = CommitLimits(shards=1, waiting_max=1)
    async with Committer(store, full, clock=time.clock) as overloaded:
        store.script.hold = asyncio.Event()
        waiting = asyncio.create_task(done(overloaded, add(store, 1, user=50)))
        await store.script.held.wait()
        swept = Swept()
        with pytest.raises(Exception, match="wait too long"):
            await sweeper(store, overloaded, time, swept).sweep()
        assert swept.settled == 0
        store.script.hold.set()
        await waiting


async def test_a_server_that_stops_leaves_the_work_to_others(
    store: ScriptedStore, time: Moving
) -> None:
    async with Committer(store, LIMITS, clock=time.clock) as stopped:
        await grant(store, stopped, 1)
    time.now += MINUTE
    with pytest.raises(Stopping):
        await sweeper(store, stopped, time, Swept()).sweep()
    assert len(await rows(store)) == 1


async def test_the_sweeper_of_mongodb_settles_what_is_due(
    mongod_uri: str, migrated_database: str
) -> None:
    store, time = MongoStore(mongod_uri, database=migrated_database), Moving()
    async with Committer(store, LIMITS, clock=time.clock) as committer:
        await grant(store, committer, 1, 2, 3, 4, 5)
        time.now += 4 * MINUTE
        swept = Swept()
        await sweeper(store, committer, time, swept).sweep()
    assert swept.settled == 4
    assert [len(await rows(store, user)) for user in range(1, 6)] == [2, 2, 2, 2, 1]
    assert await store.due_accounts(time.now + timedelta(days=1), limit=9) != []
    await store.close()


async def test_accounts_of_a_foreign_shape_fail_nothing_but_their_own_commands(
    mongod_uri: str, migrated_database: str
) -> None:
    store, time = MongoStore(mongod_uri, database=migrated_database), Moving()
    shards = CommitLimits(shards=1)
    async with Committer(store, shards, clock=time.clock) as before:
        await grant(store, before, *range(1, 9))
    time.now += 9 * MINUTE
    foreign = [2, 3, 5, 7]
    with MongoClient[dict[str, object]](mongod_uri) as client:
        client[migrated_database].command("collMod", "user_credits", validationLevel="off")
        client[migrated_database].get_collection("user_credits").update_many(
            {"user_id": {"$in": foreign}}, {"$set": {"surprise": 1}}
        )
    async with Committer(store, shards, clock=time.clock) as committer:
        swept = Swept()
        one = sweeper(store, committer, time, swept, replace(FAST, chunk=64))
        sweeping = asyncio.create_task(one.sweep())
        writes = [add(store, 1, user=user) for user in (*range(1, 9), 50)]
        answers = committer.submit_all([Submission(write) for write in writes])
        results = await asyncio.gather(*answers, return_exceptions=True)
        await sweeping
        own = {write.user_id: result for write, result in zip(writes, results, strict=True)}
        assert {user for user, result in own.items() if isinstance(result, Unreadable)} == {
            *foreign
        }
        assert all(isinstance(own[user], Receipt) for user in own.keys() - {*foreign})
        # Each of the others was settled by its own write or by the sweep.
        assert [len(await rows(store, user)) for user in (1, 4, 6, 8)] == [3] * 4
        settled = swept.settled
        await one.sweep()
        assert swept.settled == settled
    await store.close()


async def test_a_memory_store_has_the_same_sweep(time: Moving) -> None:
    store = MemoryStore()
    async with Committer(store, LIMITS, clock=time.clock) as committer:
        await grant(store, committer, 1)
        time.now += MINUTE
        await sweeper(store, committer, time, Swept()).sweep()
    await audit(store, 1)
