"""Offers a load over several connections, and counts what succeeds in time.

There are two kinds of load. In a closed loop, a fixed number of callers send the next call when
the last one has ended. In an open loop, calls arrive at a fixed rate, whatever the server does, as
in an incident.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle

from credit_bench.cpu import CpuMeter
from credit_bench.generator.connection import (
    LOST,
    CallConnection,
    header_block,
    message_frame,
)
from credit_bench.generator.requests import Request
from credit_bench.sample import Sample, percentile

# The status of a call of an open loop for which no connection has room under the server's limits.
# The callers of a closed loop wait instead.
UNSENT = "UNSENT"
# The status of an operation that failed in a call that succeeded.
FAILED_IN_BATCH = "FAILED_IN_BATCH"

Then = Callable[[], None] | None
_TICK_SECONDS = 0.005


class _Call:
    """A call: its bytes, the time of its arrival, and what follows it."""

    __slots__ = ("arrival", "block", "data", "done", "operations", "succeeded", "then")

    def __init__(self, block: bytes, data: bytes, request: Request) -> None:
        self.block = block
        self.data = data
        self.operations = request.operations
        self.succeeded = request.succeeded
        self.done = request.operations or 0
        self.arrival = 0.0
        self.then: Then = None


class Load:
    """One measurement: a warm-up, a window, and a wait for the calls that are still in progress.

    An operation counts if it succeeds in the window, within the deadline of its call. The rows of
    a list count as they arrive; a list that is longer than the window is broken off.
    """

    def __init__(
        self,
        connections: Sequence[CallConnection],
        requests: Iterator[Request],
        *,
        warm_up_seconds: float,
        seconds: float,
        deadline_seconds: float,
        watched: Mapping[str, Sequence[int]],
    ) -> None:
        """Prepare the measurement.

        Args:
            connections: The connections over which the calls are distributed.
            requests: The requests to be sent.
            warm_up_seconds: The time before the window in which calls are made.
            seconds: The length of the window.
            deadline_seconds: The deadline of each call.
            watched: The processes whose CPU time is measured, by name.
        """
        self._connections = connections
        self._round_robin = cycle(connections)
        self._requests = requests
        self._seconds = seconds
        self._warm_up_seconds = warm_up_seconds
        self._deadline_seconds = deadline_seconds
        self._watched = watched
        self._begin = self._end = 0.0
        self._blocks: dict[str, bytes] = {}
        self._under_way = 0
        self._sending = False  # whether an open loop, which may be late, has calls left
        self._waiting: deque[_Call] = deque()
        self._latencies_ms: list[float] = []
        self._warmed_up = self._in_window = self._acknowledged = 0
        self._errors: Counter[str] = Counter()

    async def closed(self, callers: int) -> Sample:
        """Measure a closed loop with a number of concurrent callers."""
        self._start()

        def next_call() -> None:
            now = time.perf_counter()
            if now < self._end:
                call = self._prepare()
                call.arrival, call.then = now, next_call
                self._send(call)

        for _ in range(callers):
            next_call()
        return await self._sample()

    async def open(self, calls_per_second: float) -> Sample:
        """Measure an open loop, in which calls arrive at a fixed rate."""
        count = int((self._warm_up_seconds + self._seconds) * calls_per_second)
        prepared = [self._prepare() for _ in range(count)]  # before the clock starts
        self._sending = True
        self._start()
        sample = asyncio.create_task(self._sample())
        first = time.perf_counter()
        for number, call in enumerate(prepared):
            call.arrival = first + number / calls_per_second
            while call.arrival > time.perf_counter():  # noqa: ASYNC110 - no event marks the time
                await asyncio.sleep(_TICK_SECONDS)
            self._send(call)
            if number % 100 == 0:
                await asyncio.sleep(0)  # reads responses even if this loop is late
        self._sending = False
        return await sample

    async def all(self, callers: int) -> Sample:
        """Send all of a finite number of requests, without measuring."""
        ended = asyncio.Event()

        def next_call() -> None:
            request = next(self._requests, None)
            if request is None:
                if not self._under_way and not self._waiting:
                    ended.set()
                return
            call = self._message(request)
            call.then = next_call
            self._send(call)

        for _ in range(callers):
            next_call()
        await ended.wait()
        return self._result(1, {})

    def _start(self) -> None:
        self._begin = time.perf_counter() + self._warm_up_seconds
        self._end = self._begin + self._seconds

    def _prepare(self) -> _Call:
        return self._message(next(self._requests))

    def _message(self, request: Request) -> _Call:
        block = self._blocks.get(request.path)
        if block is None:
            timeout = f"{self._deadline_seconds * 1000:.0f}m"
            block = self._blocks[request.path] = header_block(request.path, "127.0.0.1", timeout)
        data = message_frame(request.message.SerializeToString())
        return _Call(block, data, request)

    def _send(self, call: _Call) -> None:
        connection = self._with_room(len(call.data))
        if connection is None:
            if call.then is None:
                self._errors[UNSENT] += 1
            else:  # the callers of a closed loop wait for room
                self._waiting.append(call)
            return

        def received(messages: Sequence[bytes], status: str | None) -> None:
            if status is not None:
                self._ended(call, status)
            elif call.operations is None:
                self._count(call, len(messages))
            elif call.succeeded is not None:
                call.done = call.succeeded(messages[0])

        self._under_way += call.operations is not None
        connection.call(call.block, call.data, received)

    def _with_room(self, size: int) -> CallConnection | None:
        for _ in self._connections:
            connection = next(self._round_robin)
            if connection.has_room(size):
                return connection
        return None

    def _ended(self, call: _Call, status: str) -> None:
        self._under_way -= call.operations is not None
        if status != "OK":
            self._errors[status] += call.operations or 1
        else:
            if call.operations is not None:
                self._count(call, call.done)
                self._errors[FAILED_IN_BATCH] += call.operations - call.done
            if self._begin <= call.arrival < self._end:
                self._latencies_ms.append((time.perf_counter() - call.arrival) * 1000)
        if self._waiting:
            self._send(self._waiting.popleft())
        if call.then is not None:
            call.then()

    def _count(self, call: _Call, operations: int) -> None:
        self._acknowledged += operations
        now = time.perf_counter()
        if now - call.arrival > self._deadline_seconds:
            return
        if now < self._begin:
            self._warmed_up += operations
        elif now < self._end:
            self._in_window += operations

    async def _sample(self) -> Sample:
        await asyncio.sleep(self._begin - time.perf_counter())
        meter = CpuMeter(self._watched)
        await asyncio.sleep(max(0.0, self._end - time.perf_counter()))
        cpu_ms = meter.milliseconds_per(self._in_window)
        give_up_at = time.perf_counter() + 5 * self._deadline_seconds
        while self._sending or (self._under_way and time.perf_counter() < give_up_at):  # noqa: ASYNC110 - a poll
            await asyncio.sleep(_TICK_SECONDS)
        self._errors[LOST] += self._under_way  # these calls never got a response
        self._errors[UNSENT] += len(self._waiting)
        return self._result(self._seconds, cpu_ms)

    def _result(self, seconds: float, cpu_ms: Mapping[str, float]) -> Sample:
        return Sample(
            operations_per_second=self._in_window / seconds,
            warm_up_operations_per_second=(
                self._warmed_up / self._warm_up_seconds if self._warm_up_seconds else 0.0
            ),
            p50_ms=percentile(self._latencies_ms, 50),
            p99_ms=percentile(self._latencies_ms, 99),
            acknowledged=self._acknowledged,
            errors={status: count for status, count in self._errors.items() if count},
            cpu_ms=cpu_ms,
        )
