"""Measures goodput: the number of calls that succeed within their deadline, under any load.

There are two kinds of load. A closed loop finds the best goodput of a server: a fixed number of
callers, each of which sends its next call when the last one has ended. In an open loop, calls
arrive at a fixed rate, whatever the server does, as in an incident.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

from credit_bench.generator.connection import (
    LOST,
    CallConnection,
    header_block,
    message_frame,
)
from credit_bench.generator.workload import Request
from credit_bench.sample import Sample, percentile

DEADLINE_SECONDS = 1.0
# The status of a call of an open loop for which no connection has room under the server's limits.
# The callers of a closed loop wait instead.
UNSENT = "UNSENT"

Then = Callable[[], None] | None
Message = tuple[bytes, bytes]
Waiting = tuple[Message, float, Then]

_TIMEOUT = f"{DEADLINE_SECONDS * 1000:.0f}m"
_TICK_SECONDS = 0.005
_SERVICE = "/credit.v1.CreditService/"


class Goodput:
    """One measurement over several connections.

    A call counts if it arrives in the window and succeeds within one second of its arrival.
    """

    def __init__(
        self,
        connections: Sequence[CallConnection],
        requests: Iterator[Request],
        *,
        warm_up_seconds: float,
        seconds: float,
    ) -> None:
        """Prepare a measurement.

        Args:
            connections: The connections over which the calls are distributed.
            requests: The requests to be sent.
            warm_up_seconds: The time before the window in which calls are made.
            seconds: The length of the window.
        """
        self._connections = connections
        self._round_robin = cycle(connections)
        self._requests = requests
        self._seconds = seconds
        self._warm_up_seconds = warm_up_seconds
        self._begin = self._end = self._cpu = self._clock = 0.0
        self._blocks = {
            method: header_block(_SERVICE + method, "127.0.0.1", _TIMEOUT)
            for method in ("AddCredits", "UseCredits")
        }
        self._under_way = 0
        self._waiting: deque[Waiting] = deque()
        self._latencies_ms: list[float] = []
        self._acknowledged = 0
        self._errors: Counter[str] = Counter()

    async def closed(self, callers: int) -> Sample:
        """Measure a closed loop with a number of concurrent callers."""
        self._start()

        def next_call() -> None:
            if time.perf_counter() < self._end:
                self._send(self._prepare(), time.perf_counter(), next_call)

        for _ in range(callers):
            next_call()
        return await self._finish()

    async def open(self, calls_per_second: float) -> Sample:
        """Measure an open loop, in which calls arrive at a fixed rate."""
        count = int((self._warm_up_seconds + self._seconds) * calls_per_second)
        prepared = [self._prepare() for _ in range(count)]  # before the clock starts
        self._start()
        first = time.perf_counter()
        for number, message in enumerate(prepared):
            arrival = first + number / calls_per_second
            while arrival > time.perf_counter():  # noqa: ASYNC110 - no event marks the time
                await asyncio.sleep(_TICK_SECONDS)
            self._send(message, arrival, None)
            if number % 100 == 0:
                await asyncio.sleep(0)  # reads responses even if this loop is late
        return await self._finish()

    def _start(self) -> None:
        self._begin = time.perf_counter() + self._warm_up_seconds
        self._end = self._begin + self._seconds
        self._cpu, self._clock = time.process_time(), time.perf_counter()

    def _prepare(self) -> Message:
        request = next(self._requests)
        data = message_frame(request.message.SerializeToString())
        return self._blocks[request.method], data

    def _send(self, message: Message, arrival: float, then: Then) -> None:
        block, data = message
        connection = self._with_room(len(data))
        if connection is None:
            if then is None:
                self._errors[UNSENT] += 1
            else:  # the callers of a closed loop wait for room
                self._waiting.append((message, arrival, then))
            return

        def ended(status: str) -> None:
            self._under_way -= 1
            self._note(status, arrival)
            if self._waiting:
                self._send(*self._waiting.popleft())
            if then is not None:
                then()

        self._under_way += 1
        connection.call(block, data, ended)

    def _with_room(self, size: int) -> CallConnection | None:
        for _ in self._connections:
            connection = next(self._round_robin)
            if connection.has_room(size):
                return connection
        return None

    def _note(self, status: str, arrival: float) -> None:
        if status != "OK":
            self._errors[status] += 1
            return
        self._acknowledged += 1
        took = time.perf_counter() - arrival
        if took <= DEADLINE_SECONDS and self._begin <= arrival < self._end:
            self._latencies_ms.append(took * 1000)

    async def _finish(self) -> Sample:
        await asyncio.sleep(max(0.0, self._end - time.perf_counter()))
        share = (time.process_time() - self._cpu) / (time.perf_counter() - self._clock)
        give_up_at = time.perf_counter() + 5 * DEADLINE_SECONDS
        while self._under_way and time.perf_counter() < give_up_at:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(_TICK_SECONDS)
        self._errors[LOST] += self._under_way  # these calls never got a response
        self._errors[UNSENT] += len(self._waiting)
        return Sample(
            operations_per_second=len(self._latencies_ms) / self._seconds,
            p50_ms=percentile(self._latencies_ms, 50),
            p99_ms=percentile(self._latencies_ms, 99),
            acknowledged=self._acknowledged,
            errors={status: count for status, count in self._errors.items() if count},
            generator_cpu_share=share,
        )
