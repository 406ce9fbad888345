"""An event loop whose clock jumps to the next timer: hours pass at once, and in order."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class DrivenLoop(asyncio.SelectorEventLoop):
    """Runs ready callbacks; if there is none, sets its clock to the time of the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()  # type: ignore[misc] # a private part of asyncio's loop

    # Any: asyncio's own private lists.
    _ready: Any
    _scheduled: Any


def drive(scenario: Callable[[DrivenLoop], Coroutine[None, None, None]]) -> None:
    """Run a scenario to its end on its own loop, for tests that are not coroutines."""
    loop = DrivenLoop()
    try:
        loop.run_until_complete(scenario(loop))
    finally:
        loop.close()
