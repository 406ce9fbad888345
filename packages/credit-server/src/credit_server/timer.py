"""Timers that report what their callbacks raise.

asyncio logs it, and a chain of timers, in which each callback starts the next, ends unnoticed.
"""

import asyncio
from collections.abc import Callable

OnBug = Callable[[str, Exception], None]
"""Receives the name of a part and what it raised."""


def _log_only(_part: str, bug: Exception) -> None:
    raise bug  # asyncio logs it


class Timers:
    """Starts timers on the running loop."""

    def __init__(self, on_bug: OnBug = _log_only) -> None:
        """Prepare.

        Args:
            on_bug: Receives what a callback raises.
        """
        self._on_bug = on_bug

    def later(self, seconds: float, part: str, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Run a callback once.

        Args:
            seconds: After how long.
            part: What the callback belongs to.
            callback: What to run.
        """
        return asyncio.get_running_loop().call_later(seconds, self._run, part, callback)

    def _run(self, part: str, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as bug:  # noqa: BLE001 - it is reported
            self._on_bug(part, bug)
