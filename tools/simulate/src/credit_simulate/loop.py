"""An event loop with virtual time, which advances only when no task can run."""

import asyncio
from random import Random
from typing import Any

_TURN_SECONDS = 1e-7
"""The time of a turn. If time did not advance, a task could wait for the same instant forever."""


class Stalled(Exception):
    """The simulation does not end: all tasks wait without a timer, or run again and again."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks of one thread, without I/O. The seed decides which task runs first.

    The order of one task's own steps, and of callbacks that are no tasks, is that of asyncio.

    Attributes:
        faults: The exceptions that nothing handled.
    """

    # asyncio declares none of these in its types.
    _ready: Any
    _clock_resolution: float

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
        self._selector = self
        self._clock_resolution = 1e-9
        self.faults: list[str] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Return the seconds since the loop began."""
        return self._now

    def select(self, timeout: float | None) -> tuple[()]:
        """Advance the time to the next timer, instead of waiting for I/O.

        Raises:
            Stalled: There is no timer.
        """
        if timeout is None:
            raise Stalled("all tasks wait, and there is no timer")
        self._now += timeout + _TURN_SECONDS
        return ()

    def _process_events(self, event_list: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _run_once(self) -> None:
        self._turns += 1
        if self._turns == self._turns_max:
            raise Stalled(f"the simulation does not end within {self._turns_max} turns")
        if self._reorders and len(self._ready) > 1:
            self._shuffle()
        # Any: the method is not in asyncio's types.
        once: Any = super()
        once._run_once()  # noqa: SLF001 - the loop is one of asyncio's

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
