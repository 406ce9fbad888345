"""Who is taken in, and who is refused on arrival; what leaves the queue makes room at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from credit_server.admission.decision import Decision
from credit_server.commit import CommitLimits, Committer, Overloaded
from credit_server.ledger import Add, Receipt
from credit_server.store.memory import MemoryStore
from credit_server.store.port import StoreTransaction

from tests.server.commit.watching import Watching

LIMITS = CommitLimits(shards=1, waiting_max=10, batch_max=4)


class HeldStore(MemoryStore):
    """Lets one batch pass for each release, and says when one is held."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Semaphore(0)
        self.released = asyncio.Semaphore(0)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        self.entered.release()
        await self.released.acquire()
        async with super().begin() as unit:
            yield unit


@asynccontextmanager
async def committing(
    store: HeldStore, limits: CommitLimits, watching: Watching | None = None
) -> AsyncIterator[Committer]:
    """Runs a committer, and holds nothing any more when the test is over."""
    async with Committer(store, limits, observer=watching) as committer:
        try:
            yield committer
        finally:
            for _ in range(100):
                store.released.release()


class Clock:
    """Takes the place of the loop's clock for the shard: it moves when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        loop = asyncio.get_running_loop()
        clock = self

        class Loop:
            def time(self) -> float:
                return clock.seconds

            # Any other thing of the loop's.
            def __getattr__(self, name: str) -> object:
                return getattr(loop, name)

        monkeypatch.setattr("credit_server.commit.shard.asyncio.get_running_loop", Loop)


def add(store: MemoryStore, user: int = 1) -> Add:
    return Add(
        user_id=user, app_id=1, credits=1, created_by=1, key="", transaction_id=store.new_id()
    )


def submit(
    committer: Committer, store: MemoryStore, seconds_left: float | None = None
) -> "asyncio.Task[object]":
    return asyncio.create_task(committer.submit(add(store), seconds_left=seconds_left))


async def settled(*tasks: "asyncio.Task[object]") -> None:
    for result in await asyncio.gather(*tasks):
        assert isinstance(result, Receipt)


async def turns(count: int = 3) -> None:
    """Lets tasks and callbacks that are ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_leaves_the_queue_makes_room_at_once_and_has_no_effect() -> None:
    store, watching = HeldStore(), Watching()
    async with committing(store, LIMITS, watching) as committer:
        running = submit(committer, store)
        await store.entered.acquire()
        queued = [submit(committer, store) for _ in range(9)]
        await turns()
        assert committer.waiting == 10
        with pytest.raises(Overloaded):
            await committer.submit(add(store))
        for task in queued[:4]:
            task.cancel()
        await turns()
        assert committer.waiting == 6
        more = [submit(committer, store) for _ in range(4)]
        await turns()
        assert committer.waiting == 10
        for _ in range(4):
            store.released.release()
        await settled(running, *queued[4:], *more)
    assert [size for size, _ in watching.settled] == [1, 4, 4, 1]
    account = await store.account(1)
    assert account is not None
    assert account.balance(1) == 10
    assert watching.sheds == ["queue_full"]


async def test_who_leaves_a_batch_under_way_does_not_disturb_it() -> None:
    store = HeldStore()
    async with committing(store, LIMITS) as committer:
        first = submit(committer, store)
        await store.entered.acquire()
        leaving, staying = submit(committer, store), submit(committer, store)
        await turns()
        store.released.release()
        await settled(first)
        await store.entered.acquire()  # both are in the batch that is under way
        leaving.cancel()
        await turns()
        store.released.release()
        await settled(staying)
    account = await store.account(1)
    assert account is not None
    assert account.balance(1) == 3


async def slow_lane(
    committer: Committer, store: HeldStore, clock: Clock, *, seconds: float
) -> "asyncio.Task[object]":
    """Has batches of one and of four take their share of so many seconds, and begins another."""
    running = submit(committer, store)
    await store.entered.acquire()
    clock.seconds += seconds / 4
    four = [submit(committer, store) for _ in range(4)]
    await turns()
    store.released.release()
    await settled(running)
    await store.entered.acquire()
    clock.seconds += seconds
    store.released.release()
    await settled(*four)
    again = submit(committer, store)
    await store.entered.acquire()
    return again


async def test_a_write_that_would_wait_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    store, watching = HeldStore(), Watching()
    limits = replace(LIMITS, wait_seconds_max=1.0)
    async with committing(store, limits, watching) as committer:
        clock = Clock(monkeypatch)
        running = await slow_lane(committer, store, clock, seconds=2.0)
        fitting = [submit(committer, store) for _ in range(4)]
        await turns()
        with pytest.raises(Overloaded) as refused:
            await committer.submit(add(store))
        assert refused.value.retry_seconds > 1  # by then there is room
        assert watching.sheds == ["expected_wait"]
        store.released.release()
        store.released.release()
        await settled(running, *fitting)


async def test_a_write_whose_answer_would_come_after_its_deadline_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, watching = HeldStore(), Watching()
    async with committing(store, LIMITS, watching) as committer:
        clock = Clock(monkeypatch)
        running = await slow_lane(committer, store, clock, seconds=2.0)
        with pytest.raises(Overloaded):
            await committer.submit(add(store), seconds_left=0.9)
        assert watching.sheds == ["deadline"]
        patient = submit(committer, store, seconds_left=1.1)
        await turns()
        store.released.release()
        store.released.release()
        await settled(running, patient)


async def test_an_idle_lane_refuses_nobody_however_slow_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = HeldStore()
    async with committing(store, LIMITS) as committer:
        clock = Clock(monkeypatch)
        running = await slow_lane(committer, store, clock, seconds=100.0)
        store.released.release()
        await settled(running)
        store.released.release()
        await settled(submit(committer, store, seconds_left=0.5))


async def test_who_would_leave_during_the_batch_is_refused_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, watching = HeldStore(), Watching()
    async with committing(store, LIMITS, watching) as committer:
        clock = Clock(monkeypatch)
        running = await slow_lane(committer, store, clock, seconds=2.0)
        patient = submit(committer, store)
        hasty = submit(committer, store, seconds_left=1.6)
        await turns()
        clock.seconds += 1.0  # the batch under way takes longer than was expected
        store.released.release()
        await settled(running)
        await store.entered.acquire()
        with pytest.raises(Overloaded):
            await hasty
        store.released.release()
        await settled(patient)
    assert watching.sheds == ["deadline"]


async def test_the_committer_refuses_before_it_knows_the_lane_only_where_many_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = HeldStore()
    async with committing(store, replace(LIMITS, wait_seconds_max=1.0)) as committer:
        assert committer.admission(1000) is Decision.ADMIT  # nothing is known yet
        assert not committer.is_overdue(1000)
        running = await slow_lane(committer, store, Clock(monkeypatch), seconds=2.0)
        assert committer.admission(4) is Decision.ADMIT
        assert committer.is_overdue(4)  # they are taken in, and are late
        assert not committer.is_overdue(1)
        assert committer.admission(1000) is Decision.LATENCY
        store.released.release()
        await settled(running)
