"""A stretch of awaiting that somebody else can end with an error."""

import asyncio
from collections.abc import Callable
from types import TracebackType


class Scope:
    """Makes whoever waits in `with scope:` get the error that `cancel` was called with.

    A body that has no need to wait any more ends as it would have, and keeps its result.

    grpclib has such a class, `grpclib.utils.Wrapper`. It cancels the task and does not take the
    cancellation back, which afterwards breaks every `asyncio.timeout` and `TaskGroup` around the
    call, and it hides a real cancellation that comes at the same moment. This one follows
    `asyncio.timeout` in both. It may be entered many times, though not twice at once, and from
    different tasks.
    """

    def __init__(self, check: Callable[[], None] | None = None) -> None:
        """Begin nothing yet.

        Args:
            check: Called whenever the scope is entered; raises where it must not be.
        """
        self._check = check
        self._error: Exception | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._cancelled = False

    def __enter__(self) -> None:
        if self._check is not None:
            self._check()
        if self._error is not None:
            raise self._error
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a scope must be entered inside a task")
        self._task = task
        self._cancelling = task.cancelling()

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if task is None or not self._cancelled:
            return
        self._cancelled = False
        ours_alone = task.uncancel() <= self._cancelling
        if ours_alone and isinstance(error, asyncio.CancelledError) and self._error is not None:
            raise self._error from None

    def cancel(self, error: Exception) -> None:
        """Ends the scope: whoever waits inside, or enters it later, gets the first such error."""
        if self._error is not None:
            return
        self._error = error
        task = self._task
        if task is None:
            return
        waits = task is not asyncio.current_task()
        if waits:
            self._interrupt(task)
        else:
            # It may leave without waiting. Until Python 3.13 a cancellation that has not arrived
            # cannot be taken back: it would hit the next await outside.
            asyncio.get_running_loop().call_soon(self._interrupt, task)

    def _interrupt(self, task: asyncio.Task[object]) -> None:
        if self._task is task:
            self._cancelled = True
            task.cancel()
