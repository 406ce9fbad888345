"""Cause faults, some of them at the same time, and record them."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from credit_testing.child import ChildFailed

from credit_torture.faults import FAULTS
from credit_torture.links import NotCut
from credit_torture.record import Recorder
from credit_torture.world import Impossible, World

_POLL_SECONDS = 0.05
_RETRY_SECONDS = 0.2
PATIENCE_SECONDS = 1800.0
"""How long a service may need to recover: much longer than on the slowest machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """The rate of faults.

    Attributes:
        hold_seconds: The shortest and the longest duration of a fault.
        pause_seconds: The mean pause after a fault.
        writes: The least number of writes that are acknowledged between two faults.
        concurrent_max: The most faults at a time.
    """

    hold_seconds: tuple[float, float]
    pause_seconds: float
    writes: int
    concurrent_max: int


@asynccontextmanager
async def _patience(finding: str) -> AsyncIterator[None]:
    """Raise `ChildFailed` with a finding if the context does not end in time."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield
    except TimeoutError as error:
        raise ChildFailed(f"{finding}, within {PATIENCE_SECONDS:,.0f} s") from error


class Nemesis:
    """Causes faults in a world.

    Attributes:
        count: How many faults have happened.
    """

    def __init__(
        self, world: World, pace: Pace, recorder: Recorder, acknowledged: Callable[[], int]
    ) -> None:
        """Prepare.

        Args:
            world: The parts that faults affect.
            pace: The rate of faults.
            recorder: Receives a line for each fault.
            acknowledged: Returns how many writes were acknowledged so far.
        """
        self.count = 0
        self._world = world
        self._pace = pace
        self._recorder = recorder
        self._acknowledged = acknowledged

    async def run(
        self, kinds: Sequence[str], goes_on: Callable[[], bool], *, faults: int | None = None
    ) -> None:
        """Cause faults of all kinds repeatedly, in a random order, and end each of them.

        A fault that does not happen is retried until it happens. If it does not happen within
        `PATIENCE_SECONDS`, or if the service does not recover in that time, `ChildFailed` is
        raised.

        Args:
            kinds: The names of the faults.
            goes_on: Returns whether to cause another fault.
            faults: The number of faults; None: there is no limit.
        """
        shuffled = (
            kind for _ in itertools.count() for kind in self._world.random.sample(kinds, len(kinds))
        )
        wanted = itertools.islice(shuffled, faults)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._pace.concurrent_max):
                tasks.create_task(self._cause(wanted, goes_on))

    async def _cause(self, kinds: Iterator[str], goes_on: Callable[[], bool]) -> None:
        random, pace = self._world.random, self._pace
        for kind in kinds:
            if not goes_on():
                return
            async with _patience(f"the fault did not happen, or its part did not recover: {kind}"):
                happened = await self._strike_until_it_happens(kind, goes_on)
            if not happened:
                return
            self.count += 1
            wanted = self._acknowledged() + pace.writes
            async with _patience(f"the writes were not acknowledged after the fault: {kind}"):
                while self._acknowledged() < wanted:  # noqa: ASYNC110 - a poll
                    await asyncio.sleep(_POLL_SECONDS)
            await asyncio.sleep(random.expovariate(1 / pace.pause_seconds))

    async def _strike_until_it_happens(self, kind: str, goes_on: Callable[[], bool]) -> bool:
        """Cause a fault, and record each reason why it did not happen; return whether it did."""
        reasons: set[str] = set()
        while True:
            reason = await self._strike(kind, self._world.random.uniform(*self._pace.hold_seconds))
            if reason is None:
                return True
            if reason not in reasons:
                self._recorder.write({"fault": kind, "did_not_happen": reason})
            reasons.add(reason)
            if not goes_on():
                return False
            await asyncio.sleep(_RETRY_SECONDS)

    async def _strike(self, kind: str, seconds: float) -> str | None:
        """Cause a fault; return the reason why it did not happen, or None if it did."""
        began, wall = time.monotonic_ns(), time.time_ns()
        try:
            async with AsyncExitStack() as stack:
                target = await stack.enter_async_context(FAULTS[kind](self._world))
                await asyncio.sleep(seconds)
        except (Impossible, NotCut) as error:
            return str(error)
        ended = time.monotonic_ns()
        times = {"began": began, "ended": ended, "wall": wall}
        self._recorder.write({"fault": kind, "target": target, **times})
        return None
