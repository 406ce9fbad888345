"""The closed loop: each caller sends its next call when the last one has ended."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence

from grpc import aio  # type: ignore[import-untyped]  # grpcio ships no types

from credit_bench.generator.workload import Request
from credit_bench.sample import Sample, percentile

Call = Callable[[Request], Awaitable[object]]


class Load:
    """One measurement: a warm-up, a window, and a wait for the calls that are still in progress.

    Throughput counts the calls that end in the window. Latency covers the calls that start in the
    window, however late they end: without the calls that are still in progress, the slowest would
    be missing.

    Args:
        call: Makes a call; raises `AioRpcError` when it fails.
        callers: The requests of each caller; its length is the number of callers.
        warm_up_seconds: The time before the window in which calls are made.
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
        """Run the measurement."""
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


async def send_all(call: Call, requests: Iterator[Request], callers: int) -> Sample:
    """Send a finite number of requests as fast as possible, without measuring.

    Args:
        call: As for `Load`.
        requests: The requests to be sent, shared by the callers.
        callers: The number of concurrent calls.
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
