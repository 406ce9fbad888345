"""The closed loop: callers that each send the next call when the last one was answered."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence

from grpc import aio  # type: ignore[import-untyped]  # grpcio ships no types

from credit_bench.generator.workload import Request
from credit_bench.sample import Sample, percentile

Call = Callable[[Request], Awaitable[object]]


class Load:
    """One measurement: a warm-up, a window, and the wait for the calls still under way.

    Throughput counts the calls that end in the window. Latency is taken of the calls that begin in
    it and counts them however late they end: to leave out those that are still under way would
    leave out the slowest.

    Args:
        call: Makes a call; raises `AioRpcError` when it fails.
        callers: What each caller sends; its length is the number of callers.
        warm_up_seconds: How long calls are made before the window.
        seconds: The length of the window.
    """

    def __init__(
        self,
        call: Call,
        callers: Sequence[Iterator[Request]],
        *,
        warm_up_seconds: float,
        seconds: float,
    ) -> None:
        self._call = call
        self._callers = callers
        self._seconds = seconds
        self._begin = time.perf_counter() + warm_up_seconds
        self._end = self._begin + seconds
        self._latencies_ms: list[float] = []
        self._in_window = 0
        self._acknowledged = 0
        self._errors: Counter[str] = Counter()

    async def run(self) -> Sample:
        """Measure."""
        async with asyncio.TaskGroup() as group:
            for requests in self._callers:
                group.create_task(self._caller(requests))
            cpu_share = await self._cpu_share()
        return Sample(
            operations_per_second=self._in_window / self._seconds,
            p50_ms=percentile(self._latencies_ms, 50),
            p99_ms=percentile(self._latencies_ms, 99),
            acknowledged=self._acknowledged,
            errors=dict(self._errors),
            generator_cpu_share=cpu_share,
        )

    async def _caller(self, requests: Iterator[Request]) -> None:
        for request in requests:
            started = time.perf_counter()
            if started >= self._end:
                return
            try:
                await self._call(request)
            except aio.AioRpcError as error:
                self._errors[error.code().name] += 1
                continue
            ended = time.perf_counter()
            self._acknowledged += 1
            if self._begin <= ended < self._end:
                self._in_window += 1
            if started >= self._begin:
                self._latencies_ms.append((ended - started) * 1000)

    async def _cpu_share(self) -> float:
        await asyncio.sleep(self._begin - time.perf_counter())
        cpu, clock = time.process_time(), time.perf_counter()
        await asyncio.sleep(self._end - time.perf_counter())
        return (time.process_time() - cpu) / (time.perf_counter() - clock)


async def drain(call: Call, requests: Iterator[Request], callers: int) -> Sample:
    """Make all the calls of a finite row, as fast as that many callers can; nothing is timed.

    Args:
        call: As for `Load`.
        requests: What is to be sent; shared by the callers.
        callers: How many calls are under way at once.
    """
    acknowledged = 0
    errors: Counter[str] = Counter()

    async def caller() -> None:
        nonlocal acknowledged
        for request in requests:
            try:
                await call(request)
                acknowledged += 1
            except aio.AioRpcError as error:
                errors[error.code().name] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return Sample(
        operations_per_second=0,
        p50_ms=None,
        p99_ms=None,
        acknowledged=acknowledged,
        errors=dict(errors),
        generator_cpu_share=0,
    )
