"""Test which writes are rejected on arrival, and that a cancelled write frees its place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from credit_models.ledger import Add, Receipt
from credit_server.admission.decision import Decision
from credit_server.commit import CommitLimits, Committer, Overloaded, Submission
from credit_server.store.memory import MemoryStore
from credit_server.store.port import StoreTransaction

from tests.server.commit.recording_observer import RecordingObserver

LIMITS = CommitLimits(shards=1, waiting_max=10, batch_max=4)


class HeldStore(MemoryStore):
    """Hold each batch until a release, and signal when it is held."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Semaphore(0)
        self.released = asyncio.Semaphore(0)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        self.entered.release()
        await self.released.acquire()
        async with super().begin() as transaction:
            yield transaction


@asynccontextmanager
async def committing(
    store: HeldStore, limits: CommitLimits, observer: RecordingObserver | None = None
) -> AsyncIterator[Committer]:
    """Run a committer, and release all batches at the end of the test."""
    async with Committer(store, limits, observer=observer) as committer:
        try:
            yield committer
        finally:
            for _ in range(100):
                store.released.release()


class Clock:
    """Replace the loop's clock for the shard with one that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        loop = asyncio.get_running_loop()
        clock = self

        class Loop:
            def time(self) -> float:
                return clock.seconds

            # All other attributes are those of the real loop.
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
    """Run tasks and callbacks that are ready."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_write_cancelled_in_the_queue_frees_its_place_and_has_no_effect() -> None:
    store, observer = HeldStore(), RecordingObserver()
    async with committing(store, LIMITS, observer) as committer:
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
    assert [size for size, _ in observer.settled] == [1, 4, 4, 1]
    account = await store.account(1)
    assert account is not None
    assert account.balance(1) == 10
    assert observer.sheds == ["queue_full"]


async def test_a_caller_cancelled_during_a_batch_does_not_disturb_it() -> None:
    store = HeldStore()
    async with committing(store, LIMITS) as committer:
        first = submit(committer, store)
        await store.entered.acquire()
        leaving, staying = submit(committer, store), submit(committer, store)
        await turns()
        store.released.release()
        await settled(first)
        await store.entered.acquire()  # both are in the running batch
        leaving.cancel()
        await turns()
        store.released.release()
        await settled(staying)
    account = await store.account(1)
    assert account is not None
    assert account.balance(1) == 3


async def slow_shard(
    committer: Committer, store: HeldStore, clock: Clock, *, seconds: float
) -> "asyncio.Task[object]":
    """Run a batch of one for a quarter of `seconds`, one of four for `seconds`; begin a third."""
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


async def test_a_write_that_would_wait_too_long_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, observer = HeldStore(), RecordingObserver()
    limits = replace(LIMITS, wait_seconds_max=1.0)
    async with committing(store, limits, observer) as committer:
        clock = Clock(monkeypatch)
        running = await slow_shard(committer, store, clock, seconds=2.0)
        fitting = [submit(committer, store) for _ in range(4)]
        await turns()
        with pytest.raises(Overloaded) as rejected:
            await committer.submit(add(store))
        assert rejected.value.retry_seconds > 1  # by then the queue has room
        assert observer.sheds == ["expected_wait"]
        store.released.release()
        store.released.release()
        await settled(running, *fitting)


async def test_writes_of_one_message_are_no_load_for_each_other_while_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, observer = HeldStore(), RecordingObserver()
    limits = replace(LIMITS, wait_seconds_max=1.0)
    async with committing(store, limits, observer) as committer:
        running = await slow_shard(committer, store, Clock(monkeypatch), seconds=2.0)
        message = committer.submit_all([Submission(add(store)) for _ in range(11)])
        assert committer.waiting == 10
        with pytest.raises(Overloaded):
            await committer.submit(add(store))
        assert observer.sheds == ["queue_full"] * 3
        for _ in range(4):
            store.released.release()
        results = await asyncio.gather(*message, return_exceptions=True)
        await settled(running)
    assert [type(result) for result in results] == [Receipt] * 9 + [Overloaded] * 2


async def test_a_message_that_finds_a_long_queue_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, observer = HeldStore(), RecordingObserver()
    limits = replace(LIMITS, wait_seconds_max=1.0)
    async with committing(store, limits, observer) as committer:
        running = await slow_shard(committer, store, Clock(monkeypatch), seconds=2.0)
        fitting = [submit(committer, store) for _ in range(4)]
        await turns()
        message = committer.submit_all([Submission(add(store)) for _ in range(3)])
        results = await asyncio.gather(*message, return_exceptions=True)
        assert [type(result) for result in results] == [Overloaded] * 3
        assert observer.sheds == ["expected_wait"] * 3
        for _ in range(2):
            store.released.release()
        await settled(running, *fitting)


async def test_a_write_that_would_miss_its_deadline_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, observer = HeldStore(), RecordingObserver()
    async with committing(store, LIMITS, observer) as committer:
        clock = Clock(monkeypatch)
        running = await slow_shard(committer, store, clock, seconds=2.0)
        with pytest.raises(Overloaded):
            await committer.submit(add(store), seconds_left=0.9)
        assert observer.sheds == ["deadline"]
        in_time = submit(committer, store, seconds_left=1.1)
        await turns()
        store.released.release()
        store.released.release()
        await settled(running, in_time)


async def test_an_idle_shard_rejects_no_write_even_after_slow_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = HeldStore()
    async with committing(store, LIMITS) as committer:
        clock = Clock(monkeypatch)
        running = await slow_shard(committer, store, clock, seconds=100.0)
        store.released.release()
        await settled(running)
        store.released.release()
        await settled(submit(committer, store, seconds_left=0.5))


async def test_a_write_that_would_miss_its_deadline_in_the_next_batch_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, observer = HeldStore(), RecordingObserver()
    async with committing(store, LIMITS, observer) as committer:
        clock = Clock(monkeypatch)
        running = await slow_shard(committer, store, clock, seconds=2.0)
        in_time = submit(committer, store)
        too_late = submit(committer, store, seconds_left=1.6)
        await turns()
        clock.seconds += 1.0  # the running batch takes longer than expected
        store.released.release()
        await settled(running)
        await store.entered.acquire()
        with pytest.raises(Overloaded):
            await too_late
        store.released.release()
        await settled(in_time)
    assert observer.sheds == ["deadline"]


async def test_the_committer_rejects_before_it_knows_the_shard_only_if_many_calls_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = HeldStore()
    async with committing(store, replace(LIMITS, wait_seconds_max=1.0)) as committer:
        assert committer.admission(1000) is Decision.ADMIT  # no latency has been measured yet
        assert not committer.is_overdue(1000)
        running = await slow_shard(committer, store, Clock(monkeypatch), seconds=2.0)
        assert committer.admission(4) is Decision.ADMIT
        assert committer.is_overdue(4)  # they are accepted, and late
        assert not committer.is_overdue(1)
        assert committer.admission(1000) is Decision.LATENCY
        store.released.release()
        await settled(running)
