"""Run the bystander: a well-behaved caller that measures its calls while others attack."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from credit_resilience.caller import OK

PERIOD_SECONDS = 0.025


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call, with times of `time.monotonic`.

    Attributes:
        due: When the call was scheduled to begin.
        ended: When its answer arrived.
        outcome: "OK", or the name of the SDK's error.
    """

    due: float
    ended: float
    outcome: str

    def seconds_since(self, begin: float) -> float:
        """Return how long the call waited after `begin`; an earlier wait has another cause."""
        return self.ended - max(self.due, begin)


@dataclass(frozen=True, kw_only=True, slots=True)
class Experience:
    """The results of the bystander's calls in a period.

    Attributes:
        calls: How many calls were in progress during the period.
        failed: The errors of the calls that failed.
        worst_seconds: The longest wait of these calls, counted from the start of the period.
    """

    calls: int
    failed: Sequence[str]
    worst_seconds: float


class Bystander:
    """A running caller. Its calls are numbered and may end in another order."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._calls: dict[int, Call] = {}
        self._changed = asyncio.Condition()
        self._ended = False
        self._reader = asyncio.create_task(self._read())

    async def experience(self, begin: float, end: float) -> Experience:
        """Return the results of a period, once all its calls have ended.

        Args:
            begin: The start of the period, of `time.monotonic`.
            end: The end of the period.

        Raises:
            RuntimeError: The bystander's process has ended.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended or self._known_until(end))
        if not self._known_until(end):
            raise RuntimeError("the bystander's process has ended")
        calls = [call for call in self._calls.values() if call.due <= end and call.ended >= begin]
        return Experience(
            calls=len(calls),
            failed=[call.outcome for call in calls if call.outcome != OK],
            worst_seconds=max((call.seconds_since(begin) for call in calls), default=0.0),
        )

    async def served(self) -> None:
        """Wait until a call that begins after now succeeds.

        Raises:
            RuntimeError: The bystander's process has ended.
        """
        now = time.monotonic()
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended or self._served_since(now))
        if not self._served_since(now):
            raise RuntimeError("the bystander's process has ended")

    async def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker; it is a pipe
        self._process.stdin.close()
        await self._process.wait()
        await self._reader

    def _served_since(self, moment: float) -> bool:
        return any(call.due > moment and call.outcome == OK for call in self._calls.values())

    def _known_until(self, moment: float) -> bool:
        """Return whether all calls due up to a moment have ended.

        That is so when no number is missing before that of a later call.
        """
        later = [number for number, call in self._calls.items() if call.due > moment]
        return bool(later) and all(number in self._calls for number in range(min(later)))

    async def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        async for line in self._process.stdout:
            number, due, ended, outcome = line.decode().split()
            async with self._changed:
                self._calls[int(number)] = Call(due=float(due), ended=float(ended), outcome=outcome)
                self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()


@asynccontextmanager
async def bystander(
    target: str, period_seconds: float = PERIOD_SECONDS
) -> AsyncIterator[Bystander]:
    """Run a bystander until the context exits. The context starts after its first successful call.

    Args:
        target: The server's host:port.
        period_seconds: The time between the starts of two calls.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "credit_resilience.caller", target, str(period_seconds)),
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,
    )
    caller = Bystander(process)
    try:
        await caller.served()
        yield caller
    finally:
        await caller.stop()
