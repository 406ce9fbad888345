"""The minimal client makes real calls, and goodput counts only calls that succeed in time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO

from credit_bench.cell import Users
from credit_bench.contract import contract
from credit_bench.generator.connection import LOST, CallConnection, header_block, message_frame
from credit_bench.generator.goodput import UNSENT, Goodput
from credit_bench.generator.workload import requests
from credit_bench.options import parse
from credit_bench.overload import CALLERS, Overload, kept_median, measure
from credit_bench.report import show
from credit_bench.run import Result
from credit_bench.sample import Sample
from credit_bench.system import System
from credit_models import CreditRequest
from credit_models.codec import encode
from credit_server.http2.limits import ConnectionLimits
from credit_testing.stores import HeldStore
from rich.console import Console

from tests.server.serving import serving

ADD = "/credit.v1.CreditService/AddCredits"
SAMPLE = Sample(
    operations_per_second=100,
    p50_ms=5.0,
    p99_ms=9.0,
    acknowledged=100,
    errors={},
    generator_cpu_share=0.1,
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
    connection.call(block, message_frame(message), ended.set_result)
    return await ended


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
        rows = requests(contract(), Users.RANDOM, 10, "seed")
        goodput = Goodput([connection], rows, warm_up_seconds=0.05, seconds=0.1)
        sample = await goodput.open(1000)
    # A user may have too few credits; each call either succeeds or fails.
    assert sample.acknowledged + sample.failed == 150
    assert sample.operations_per_second * 0.1 <= sample.acknowledged


async def test_a_call_without_room_is_not_sent() -> None:
    goodput = Goodput([], requests(contract(), Users.HOT, 1, "seed"), warm_up_seconds=0, seconds=1)
    goodput._send((b"", b""), 0.0, None)
    assert goodput._errors == {UNSENT: 1}


async def test_a_caller_of_a_closed_loop_waits_for_room() -> None:
    async with (
        serving(connections=ConnectionLimits(streams_max=2)) as served,
        connected(served.port) as connection,
    ):
        rows = requests(contract(), Users.RANDOM, 10, "seed")
        sample = await Goodput([connection], rows, warm_up_seconds=0, seconds=0.2).closed(10)
    assert UNSENT not in sample.errors
    assert sample.acknowledged + sample.failed > 10


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


def test_the_report_shows_the_median_share_and_a_run_with_refusals_is_clean() -> None:
    overloads = [overloaded(kept) for kept in (0.5, 0.95, 1.0)]
    assert kept_median(overloads, System.OURS) == 0.95
    assert kept_median(overloads, System.PEER) is None
    result = Result(measurements=[], audits={}, overloads=overloads)
    assert result.clean
    console = Console(record=True, width=120, file=StringIO())
    show(result, [], parse(["--overload"]), console)
    text = console.export_text()
    assert "95% of the best goodput remains" in text
    assert "UNAVAILABLE 7" in text
