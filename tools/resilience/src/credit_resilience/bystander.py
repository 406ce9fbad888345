"""The bystander: what a well-behaved caller sees while others attack."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from credit_resilience.caller import OK


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call; moments are of `time.monotonic`.

    Attributes:
        due: When it was to begin.
        ended: When its answer was there.
        outcome: "OK", or the SDK's name for what went wrong.
    """

    due: float
    ended: float
    outcome: str

    def seconds_since(self, begin: float) -> float:
        """Tell how long it waited from a moment on; before that, others were at fault."""
        return self.ended - max(self.due, begin)


@dataclass(frozen=True, kw_only=True, slots=True)
class Experience:
    """What the bystander saw in a stretch of time.

    Attributes:
        calls: How many calls were under way in it.
        failed: What the others were answered with.
        worst_seconds: The longest wait in it, and after it for calls that began in it.
    """

    calls: int
    failed: Sequence[str]
    worst_seconds: float


class Bystander:
    """A caller at work. Its calls are numbered; they may end in another order."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._calls: dict[int, Call] = {}
        self._told = asyncio.Condition()
        self._gone = False
        self._reader = asyncio.create_task(self._read())

    async def experience(self, begin: float, end: float) -> Experience:
        """Tell what a stretch of time was like, once all its calls have ended.

        Args:
            begin: Its first moment, of `time.monotonic`.
            end: Its last.

        Raises:
            RuntimeError: The caller is not there any more.
        """
        async with self._told:
            await self._told.wait_for(lambda: self._gone or self._known_until(end))
        if not self._known_until(end):
            raise RuntimeError("the bystander's process has ended")
        calls = [call for call in self._calls.values() if call.due <= end and call.ended >= begin]
        return Experience(
            calls=len(calls),
            failed=[call.outcome for call in calls if call.outcome != OK],
            worst_seconds=max((call.seconds_since(begin) for call in calls), default=0.0),
        )

    async def served(self) -> None:
        """Wait until a call has been answered that began after this.

        Raises:
            RuntimeError: The caller is not there any more.
        """
        now = time.monotonic()
        async with self._told:
            await self._told.wait_for(lambda: self._gone or self._served_since(now))
        if not self._served_since(now):
            raise RuntimeError("the bystander's process has ended")

    async def leave(self) -> None:
        """End the process."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker; it is a pipe
        self._process.stdin.close()
        await self._process.wait()
        await self._reader

    def _served_since(self, moment: float) -> bool:
        return any(call.due > moment and call.outcome == OK for call in self._calls.values())

    def _known_until(self, moment: float) -> bool:
        """Whether all calls up to a moment have ended: none is missing before a later one."""
        later = [number for number, call in self._calls.items() if call.due > moment]
        return bool(later) and all(number in self._calls for number in range(min(later)))

    async def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        async for line in self._process.stdout:
            number, due, ended, outcome = line.decode().split()
            async with self._told:
                self._calls[int(number)] = Call(due=float(due), ended=float(ended), outcome=outcome)
                self._told.notify_all()
        async with self._told:
            self._gone = True
            self._told.notify_all()


@asynccontextmanager
async def bystander(target: str) -> AsyncIterator[Bystander]:
    """Let a bystander call for as long as the context lasts; it has been served when it begins."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "credit_resilience.caller", target),
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,
    )
    made = Bystander(process)
    try:
        await made.served()
        yield made
    finally:
        await made.leave()
