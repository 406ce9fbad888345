"""Test that reads share queries and never see a state older than their arrival."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from credit_server.store.port import StoreUnavailable
from credit_server.store.shared_reads import SharedReads


class HeldQueries:
    """Queries that take their values when they are sent, and return them when they are released.

    Attributes:
        values: The state of the store.
        sent: The keys of each query.
        released: One permit for each answer.
        error: What a query raises when it is released; None: it returns the values.
    """

    def __init__(self) -> None:
        self.values: dict[int, str] = {}
        self.sent: list[Sequence[int]] = []
        self.released = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def __call__(self, keys: Sequence[int]) -> dict[int, str]:
        self.sent.append(keys)
        found = {key: self.values[key] for key in keys if key in self.values}
        await self.released.acquire()
        if self.error is not None:
            raise self.error
        return found


def shared_reads(
    query: Callable[[Sequence[int]], Awaitable[dict[int, str]]],
    *,
    seconds_max: float = 60.0,
    slow_seconds: float = 0.0,
    at_once: int = 2,
    keys_max: int = 128,
) -> SharedReads[int, str]:
    """Make shared reads; every query is slow, unless the test says otherwise."""
    return SharedReads(
        query,
        seconds_max=seconds_max,
        slow_seconds=slow_seconds,
        at_once=at_once,
        keys_max=keys_max,
    )


async def turn() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def started(reads: SharedReads[int, str], *keys: int) -> list[asyncio.Task[str | None]]:
    tasks = [asyncio.create_task(reads.read(key)) for key in keys]
    await turn()
    return tasks


async def test_a_lone_read_is_sent_at_once() -> None:
    queries = HeldQueries()
    queries.values = {1: "one"}
    queries.released.release()
    assert await shared_reads(queries).read(1) == "one"
    assert queries.sent == [[1]]


async def test_a_key_without_a_value_is_none() -> None:
    queries = HeldQueries()
    queries.released.release()
    assert await shared_reads(queries).read(1) is None


async def test_reads_that_arrive_together_share_a_query() -> None:
    queries = HeldQueries()
    queries.values = {1: "one", 2: "two"}
    queries.released.release()
    reads = shared_reads(queries)
    tasks = await started(reads, 1, 2, 1, 3)
    assert await asyncio.gather(*tasks) == ["one", "two", "one", None]
    assert queries.sent == [[1, 2, 3]]


@pytest.mark.parametrize("at_once", [1, 2, 3])
async def test_reads_that_arrive_while_queries_run_share_the_next_one(at_once: int) -> None:
    queries = HeldQueries()
    reads = shared_reads(queries, at_once=at_once)
    running = [await started(reads, key) for key in range(at_once)]
    later = [await started(reads, key) for key in (7, 8, 7)]
    assert queries.sent == [[key] for key in range(at_once)]
    queries.released.release()
    await turn()
    assert queries.sent[at_once:] == [[7, 8]]
    for _ in range(at_once):
        queries.released.release()
    await asyncio.gather(*(task for tasks in running + later for task in tasks))


async def test_a_query_starts_beside_another_only_while_that_one_is_slow() -> None:
    queries = HeldQueries()
    reads = shared_reads(queries, slow_seconds=60.0)
    first = await started(reads, 1)
    later = [*await started(reads, 2), *await started(reads, 3)]
    assert queries.sent == [[1]]
    for task in list(reads._tasks):
        reads._is_slow(task)
    await turn()
    assert queries.sent == [[1], [2, 3]]
    waiting = await started(reads, 4)
    queries.released.release()  # the slow one; the other one serves the read that waits
    await asyncio.gather(*first)
    assert queries.sent == [[1], [2, 3]]
    queries.released.release()
    queries.released.release()
    await asyncio.gather(*later, *waiting)
    assert queries.sent == [[1], [2, 3], [4]]


@pytest.mark.parametrize("at_once", [1, 2])
async def test_a_read_never_returns_a_state_from_before_its_arrival(at_once: int) -> None:
    queries = HeldQueries()
    queries.values = {1: "before"}
    reads = shared_reads(queries, at_once=at_once)
    early = [await started(reads, 1) for _ in range(at_once)]
    queries.values = {1: "after"}  # a write is acknowledged while the queries run
    late = await started(reads, 1)
    for _ in range(at_once + 1):
        queries.released.release()
    assert [await task for tasks in early for task in tasks] == ["before"] * at_once
    assert await asyncio.gather(*late) == ["after"]


async def test_a_query_has_a_limited_number_of_keys() -> None:
    queries = HeldQueries()
    reads = shared_reads(queries, at_once=1, keys_max=3)
    tasks = await started(reads, *range(8))
    for _ in range(3):
        queries.released.release()
        await turn()
    assert queries.sent == [[0, 1, 2], [3, 4, 5], [6, 7]]
    await asyncio.gather(*tasks)


async def test_one_hanging_query_does_not_hold_up_later_reads() -> None:
    queries = HeldQueries()
    hanging: asyncio.Future[dict[int, str]] = asyncio.get_running_loop().create_future()

    async def query(keys: Sequence[int]) -> dict[int, str]:
        return await (hanging if 1 in keys else queries(keys))

    reads = shared_reads(query)
    held = await started(reads, 1)
    for key in (2, 3):
        queries.released.release()
        assert await reads.read(key) is None
    assert not held[0].done()
    hanging.set_result({1: "one"})
    assert await asyncio.gather(*held) == ["one"]


async def test_an_error_fails_the_reads_of_its_query_and_no_others() -> None:
    queries = HeldQueries()
    reads = shared_reads(queries, at_once=1)
    failing = await started(reads, 1, 2)
    later = await started(reads, 3)
    queries.error = StoreUnavailable("gone")
    queries.released.release()
    await turn()
    assert [str(task.exception()) for task in failing] == ["gone", "gone"]
    queries.error, queries.values = None, {3: "three"}
    # The query for 3 was sent after the error, with the values of that moment.
    queries.released.release()
    assert await asyncio.gather(*later) == [None]
    queries.released.release()
    assert await reads.read(3) == "three"


async def test_a_cancelled_read_leaves_the_others_alone() -> None:
    queries = HeldQueries()
    queries.values = {1: "one"}
    reads = shared_reads(queries, at_once=1)
    first, second = await started(reads, 1, 1)
    first.cancel()
    queries.released.release()
    assert await second == "one"
    assert first.cancelled()


async def test_a_late_read_fails_whether_its_query_was_sent_or_not() -> None:
    queries = HeldQueries()
    reads = shared_reads(queries, seconds_max=0.01, at_once=1)
    late = [*await started(reads, 1), *await started(reads, 2)]
    for task in late:
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await task
    queries.released.release()
    await turn()
    assert queries.sent == [[1]], "the read of 2 had failed before its query was sent"
    queries.released.release()
    assert await shared_reads(queries).read(3) is None


async def test_no_query_is_sent_for_reads_that_were_cancelled_while_they_waited() -> None:
    queries = HeldQueries()
    reads = shared_reads(queries, at_once=1)
    running = await started(reads, 1)
    (dropped,) = await started(reads, 2)
    dropped.cancel()
    await turn()
    queries.released.release()
    await asyncio.gather(*running)
    await turn()
    assert queries.sent == [[1]]
    queries.released.release()
    assert await reads.read(3) is None, "later reads are still served"
    assert queries.sent == [[1], [3]]


async def test_a_query_that_is_cancelled_cancels_its_reads() -> None:
    """Cancel a query, as an event loop does at its end: no read may then wait forever."""
    reads = shared_reads(HeldQueries())
    tasks = await started(reads, 1)
    for task in reads._tasks:
        task.cancel()
    await turn()
    assert [task.cancelled() for task in tasks] == [True]
