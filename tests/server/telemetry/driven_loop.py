"""An event loop whose clock jumps to the next timer: hours pass at once, and in order."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")


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


def drive(main: Coroutine[None, None, None]) -> None:
    """Run a coroutine to its end on a new driven loop."""
    with asyncio.Runner(loop_factory=DrivenLoop) as runner:
        runner.run(main)


def on_driven_loop(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Run an async test on a new driven loop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        drive(test(*args, **kwargs))

    return run
