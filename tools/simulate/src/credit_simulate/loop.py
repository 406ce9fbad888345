"""An event loop with virtual time, which advances only when no task can run."""

import asyncio
import itertools
from collections.abc import Callable
from contextvars import Context, copy_context
from heapq import heappop, heappush
from random import Random
from typing import Any, TypeVarTuple

_Arguments = TypeVarTuple("_Arguments")

_TURN_SECONDS = 1e-7
"""The time of a turn. If time did not advance, a task could wait for the same instant forever."""


class Stalled(Exception):
    """The simulation does not end: all tasks wait without a timer, or run again and again."""


class _Handle(asyncio.Handle):
    """A callback, without the data that asyncio keeps for debugging."""

    __slots__ = ()

    # asyncio's types declare none of these. Any: the callback of a task or of a future.
    _args: Any
    _callback: Any
    _context: Context
    _repr: str | None
    _source_traceback: None

    def __init__(  # does not call asyncio's, which checks for debug mode
        self, callback: Any, args: Any, loop: asyncio.AbstractEventLoop, context: Context | None
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def cancel(self) -> None:
        """Do not run the callback."""
        self._cancelled = True
        self._callback = self._args = None


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks of one thread, without I/O. The seed decides which task runs first.

    The order of one task's own steps, and of callbacks that are no tasks, is that of asyncio.

    Attributes:
        faults: The exceptions that nothing handled.
    """

    # asyncio declares neither in its types.
    _ready: Any
    _stopping: bool

    def __init__(self, random: Random, *, reorders: bool, turns_max: int = 100_000) -> None:
        """Begin at time 0.

        Args:
            random: Decides the order of tasks.
            reorders: Whether the order differs from asyncio's.
            turns_max: The number of turns after which the simulation counts as endless.
        """
        super().__init__()
        self._random = random
        self._reorders = reorders
        self._now = 0.0
        self._turns, self._turns_max = 0, turns_max
        # Python compares tuples in C. With asyncio's heap of handles, comparisons take 10% of a
        # run.
        self._timers: list[tuple[float, int, asyncio.TimerHandle | asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self.faults: list[str] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Return the seconds since the loop began."""
        return self._now

    def pause(self, seconds: float) -> "asyncio.Future[None]":
        """Return a future that completes after some seconds.

        It takes half the CPU time of `asyncio.sleep`.
        """
        future: asyncio.Future[None] = asyncio.Future(loop=self)
        heappush(self._timers, (self._now + seconds, next(self._numbers), future))
        return future

    def call_soon(
        self,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call a function in the next turn."""
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call a function after some seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call a function at a time; functions of the same time in the order of registration."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is dropped when it is due."""

    def _write_to_self(self) -> None:
        pass

    def _run_once(self) -> None:
        self._turns += 1
        if self._turns == self._turns_max:
            raise Stalled(f"the simulation does not end within {self._turns_max} turns")
        self._advance()
        ready = self._ready
        if self._reorders and len(ready) > 1:
            self._shuffle()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:  # noqa: SLF001 - the loop is one of asyncio's
                handle._run()  # noqa: SLF001

    def _advance(self) -> None:
        """Advance the time, to the next timer if no task can run, and run the timers that are due.

        The tasks that they wake run in the same turn.

        Raises:
            Stalled: There is no timer.
        """
        timers = self._timers
        self._now += _TURN_SECONDS
        if not self._ready:
            while timers and timers[0][2].cancelled():
                heappop(timers)
            if timers:
                self._now = max(self._now, timers[0][0])
            elif not self._stopping:
                raise Stalled("all tasks are waiting, and there is no timer")
        while timers and timers[0][0] <= self._now:
            _, _, timer = heappop(timers)
            if timer.cancelled():
                continue
            if isinstance(timer, asyncio.Future):
                timer.set_result(None)
            else:
                timer._run()  # noqa: SLF001 - as below

    def _shuffle(self) -> None:
        handles = list(self._ready)
        places = [place for place, handle in enumerate(handles) if _is_step(handle)]
        if len(places) < 2:
            return
        steps = [handles[place] for place in places]
        self._random.shuffle(steps)
        for place, step in zip(places, steps, strict=True):
            self._ready[place] = step

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.faults.append(f"{context['message']}: {error!r}")


def _is_step(handle: asyncio.Handle) -> bool:
    """Return whether a callback is the next step of a task."""
    # Any: the attribute is not in asyncio's types.
    private: Any = handle
    callback = private._callback  # noqa: SLF001 - a handle shows its callback in no other way
    return isinstance(getattr(callback, "__self__", None), asyncio.Task)
