"""Time limits that work in a cancelled task with all supported releases of Python.

Until Python 3.11.2, which Debian 12 has, `asyncio.timeout` in a task that has been cancelled before
ends with CancelledError instead of TimeoutError (https://github.com/python/cpython/issues/102780).
Cleanup code often runs in such a task.
"""

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(eq=False, slots=True)
class Timeout:
    """A time limit for a block of code: `async with Timeout(5): ...`.

    Attributes:
        seconds: The longest time; None: no limit.

    Raises:
        TimeoutError: The time has passed; raised by the block.
    """

    seconds: float | None
    _task: asyncio.Task[object] | None = field(default=None, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    _cancelling: int = field(default=0, init=False)
    _expired: bool = field(default=False, init=False)

    def expired(self) -> bool:
        """Return whether the time has passed within the block."""
        return self._expired

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a timeout must be entered inside a task")
        self._task, self._cancelling = task, task.cancelling()
        if self.seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(self.seconds, self._expire)
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        task, self._task = self._task, None
        if not self._expired or task is None:
            return
        # A cancellation from elsewhere has priority.
        ours_alone = task.uncancel() <= self._cancelling
        if ours_alone and error_type is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        if self._task is not None:
            self._expired = True
            self._task.cancel()
