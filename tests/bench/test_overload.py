"""The minimal client makes real calls, and goodput counts only calls that succeed in time."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from os import getpid
from pathlib import Path
from typing import Any

from credit_bench.contract import contract
from credit_bench.generator.connection import LOST, CallConnection, header_block, message_frame
from credit_bench.generator.load import UNSENT, Load
from credit_bench.generator.requests import Requests
from credit_bench.overload import CALLERS, Overload, busy_loops, kept_median, measure
from credit_bench.page import bars, figures
from credit_bench.results import Result
from credit_bench.sample import Sample
from credit_bench.workloads import OVERLOAD, Operation, System, Users
from credit_models import CreditRequest
from credit_models.codec import encode
from credit_server.http2.limits import ConnectionLimits
from credit_testing.child import descendants, is_alive
from credit_testing.stores import HeldStore

from tests.server.serving import serving

ADD = "/credit.v1.CreditService/AddCredits"
SAMPLE = Sample(
    operations_per_second=100,
    warm_up_operations_per_second=20,
    p50_ms=5.0,
    p99_ms=9.0,
    acknowledged=100,
    errors={},
    cpu_ms={},
)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[CallConnection]:
    _, connection = await asyncio.get_running_loop().create_connection(
        CallConnection, "127.0.0.1", port
    )
    await connection.ready.wait()
    yield connection
    connection.close()


async def outcome(connection: CallConnection, path: str, message: bytes) -> str:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    block = header_block(path, "127.0.0.1", "60S")

    def received(messages: Sequence[bytes], status: str | None) -> None:
        if status is not None:
            ended.set_result(status)

    connection.call(block, message_frame(message), received)
    return await ended


def load(
    connections: Sequence[CallConnection],
    users: Users = Users.RANDOM,
    operation: Operation = Operation.WRITE,
    **changes: Any,
) -> Load:
    requests = Requests(contract(), users, 10, "seed").of(operation)
    given: dict[str, Any] = {
        "warm_up_seconds": 0,
        "seconds": 0.2,
        "deadline_seconds": 1.0,
        "watched": {},
    }
    return Load(connections, requests, **(given | changes))


async def test_a_call_ends_with_the_name_of_its_status() -> None:
    valid = encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9))
    async with serving() as served, connected(served.port) as connection:
        assert await outcome(connection, ADD, valid) == "OK"
        assert await outcome(connection, ADD, b"") == "INVALID_ARGUMENT"
        assert await outcome(connection, "/nothing", b"") == "UNIMPLEMENTED"


async def test_a_call_is_lost_if_its_connection_ends() -> None:
    store = HeldStore()
    valid = encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9))
    async with serving(store) as served, connected(served.port) as connection:
        call = asyncio.create_task(outcome(connection, ADD, valid))
        await store.entered.wait()
        connection.close()
        assert await call == LOST
        assert not connection.has_room(1)
        store.released.set()


async def test_every_call_of_an_open_loop_is_counted_once() -> None:
    async with serving() as served, connected(served.port) as connection:
        sample = await load([connection], warm_up_seconds=0.05, seconds=0.1).open(1000)
    # A user may have too few credits; each call either succeeds or fails.
    assert sample.acknowledged + sample.failed == 150
    assert sample.operations_per_second * 0.1 <= sample.acknowledged


async def test_a_call_without_room_is_not_sent() -> None:
    none = load([], Users.HOT)
    none._send(none._prepare())
    assert none._errors == {UNSENT: 1}


async def test_a_caller_of_a_closed_loop_waits_for_room() -> None:
    async with (
        serving(connections=ConnectionLimits(streams_max=2)) as served,
        connected(served.port) as connection,
    ):
        sample = await load([connection]).closed(10)
    assert UNSENT not in sample.errors
    assert sample.acknowledged + sample.failed > 10


async def test_operations_of_the_warm_up_are_counted_apart() -> None:
    async with serving() as served, connected(served.port) as connection:
        some = load(
            [connection], operation=Operation.READ, warm_up_seconds=0.2, watched={"me": [getpid()]}
        )
        sample = await some.closed(2)
    counted = sample.warm_up_operations_per_second + sample.operations_per_second
    # Up to two reads end after the window.
    assert 0 <= sample.acknowledged - counted * 0.2 < 2.5
    assert sample.warm_up_operations_per_second > 0
    assert set(sample.cpu_ms) == {"load", "me"}


async def test_an_operation_after_its_deadline_does_not_count() -> None:
    late = load([], deadline_seconds=1.0)
    late._begin, late._end = 0.0, math.inf
    call = late._prepare()
    for age in (0.5, 2.0):
        call.arrival = time.perf_counter() - age
        late._ended(call, "OK")
    assert (late._in_window, late._acknowledged) == (1, 2)


async def test_the_rows_of_a_list_are_counted_one_by_one() -> None:
    async with serving() as served, connected(served.port) as connection:
        for number in range(3):
            message = CreditRequest(user_id=1, app_id=1, credits=5 + number, created_by=9)
            assert await outcome(connection, ADD, encode(message)) == "OK"
        lists = load([connection], Users.HOT, Operation.LIST, seconds=0.3)
        sample = await lists.closed(1)
    assert sample.errors == {}
    assert sample.acknowledged >= 3
    # The last list may be broken off.
    assert sample.acknowledged - 3 * len(lists._latencies_ms) in range(4)


async def test_the_failed_operations_of_a_batch_are_counted() -> None:
    some = load([], operation=Operation.BATCH)
    some._begin, some._end = 0.0, math.inf
    call = some._prepare()
    assert call.succeeded is not None
    messages = contract().ledger
    outcomes = [
        messages.OperationOutcome(receipt={"balance": 1}),
        messages.OperationOutcome(failure={"code": 14}),
    ]
    response = messages.BatchWriteResponse(outcomes=outcomes).SerializeToString()
    call.operations, call.done = 2, call.succeeded(response)
    call.arrival = time.perf_counter()
    some._ended(call, "OK")
    assert (some._in_window, some._acknowledged) == (1, 1)
    assert some._errors == {"FAILED_IN_BATCH": 1}


async def test_a_message_longer_than_a_window_is_sent_in_parts() -> None:
    sizes: list[int] = []
    connection = CallConnection()
    connection._transport = Writes(sizes)  # type: ignore[assignment] # writes are all it does
    ended: list[str | None] = []
    connection.call(b"", bytes(100_000), lambda _, status: ended.append(status))
    assert sum(sizes) == 65_535
    connection._on_window(0, 100_000)
    assert sum(sizes) == 65_535
    connection._on_window(1, 100_000)
    assert sum(sizes) == 100_000
    assert max(sizes) == 16_384
    assert not ended


class Writes:
    """Collects the sizes of the DATA frames that a connection writes."""

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes

    def write(self, data: bytes) -> None:
        while data:
            size = int.from_bytes(data[:3], "big")
            if data[3] == 0:
                self._sizes.append(size)
            data = data[9 + size :]


async def test_the_flood_is_ten_times_the_best_goodput() -> None:
    asked: list[Sequence[str]] = []

    async def generate(arguments: Sequence[str]) -> Sample:
        asked.append(arguments)
        best = f"--callers={CALLERS[1]}" in arguments
        return replace(SAMPLE, operations_per_second=200 if best else 100)

    overload = await measure(System.OURS, 1, generate, seconds=1)
    assert (overload.callers, overload.kept) == (CALLERS[1], 0.5)
    assert "--open-rate=2000" in asked[-2]
    assert f"--callers={CALLERS[1]}" in asked[-1]
    assert len(overload.samples) == len(CALLERS) + 2


def overloaded(kept: float) -> Overload:
    return Overload(
        system=System.OURS,
        repetition=1,
        searched={
            64: replace(SAMPLE, operations_per_second=80),
            8: replace(SAMPLE, operations_per_second=9),
        },
        flooded=replace(SAMPLE, operations_per_second=100 * kept, errors={"UNAVAILABLE": 7}),
        again=replace(SAMPLE, operations_per_second=120),
    )


def test_the_page_shows_the_median_share_and_a_run_with_refusals_is_clean() -> None:
    overloads = [overloaded(kept) for kept in (0.5, 0.95, 1.0)]
    overloads += [replace(overloaded(0.8), busy=True)]
    assert kept_median(overloads, System.OURS) == 0.95
    assert kept_median(overloads, System.OURS, busy=True) == 0.8
    assert kept_median(overloads, System.PEER) is None
    result = Result(group=OVERLOAD, facts={}, audits={}, unavailable={}, overloads=overloads)
    assert result.clean
    text = figures(result, Path())
    assert "| 50%, 95%, 100% | 95% |" in text
    assert "| 20%, 20%, 20% |" in text
    assert "UNAVAILABLE 21" in text
    kept = [line for line in bars({OVERLOAD: result}).splitlines() if "kept" in line]
    assert kept == [
        "| kept under ten times the load | ≥ 95% | 95% | yes | - |",
        "| kept under ten times the load beside a busy loop on each core | ≥ 80% | 80% | yes | - |",
    ]


async def test_busy_loops_end_with_their_context() -> None:
    before = set(descendants(getpid()))
    async with busy_loops(1):
        (loop,) = set(descendants(getpid())) - before
    assert not is_alive(loop)
