"""Where an open client may be used, and how a call that waits is ended from outside."""

import asyncio
import os
from types import TracebackType


class Home:
    """The event loop and the process that an open client belongs to.

    Connections, timers and waiting calls belong to one event loop. Its objects are not safe to use
    from another thread, and a forked process shares the sockets with its parent.
    """

    def __init__(self) -> None:
        """Remember the running event loop and this process.

        Raises:
            RuntimeError: No event loop is running.
        """
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()

    def check(self) -> None:
        """Reject a use of the client outside its event loop or process.

        Raises:
            RuntimeError: The client is used elsewhere. Nothing was sent.
        """
        process = os.getpid()
        if process != self._process:
            raise RuntimeError(
                f"this client was opened in process {self._process}, and this is process {process}:"
                " connections cannot be shared after a fork, and nothing was sent. Open a client"
                " in each process, after the fork"
            )
        # asyncio's own frameworks use `_get_running_loop` where there may be no loop.
        running = asyncio._get_running_loop()  # noqa: SLF001
        if running is self._loop:
            return
        if self._loop.is_closed():
            raise RuntimeError(
                "this client was opened in an event loop that is closed, and its connections ended"
                " with that loop; nothing was sent. Open a client inside each event loop:"
                " `async with CreditClient(…)` within what asyncio.run() runs"
            )
        raise RuntimeError(
            "this client was opened in another event loop, and nothing was sent. Open one client"
            " per event loop, or pass the call to the client's loop:"
            " asyncio.run_coroutine_threadsafe(client.balance(…), loop)"
        )


class Scope:
    """A block of code, `with scope:`, in which `cancel` ends the waiting with an error.

    A body that does not wait any more ends normally and keeps its result.

    grpclib has such a class, `grpclib.utils.Wrapper`. It cancels the task and does not take the
    cancellation back, which afterwards breaks every `asyncio.timeout` and `TaskGroup` around the
    call, and it hides a real cancellation that comes at the same moment. This class follows
    `asyncio.timeout` in both. A scope may be entered many times, though not twice at once, and from
    different tasks.
    """

    _error: Exception | None = None
    _task: asyncio.Task[object] | None = None
    _cancelling = 0
    _cancelled = False

    def __enter__(self) -> None:
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
        """End the scope: the task inside it, and each that enters later, gets the first error."""
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
            # The task may leave without waiting. Until Python 3.13 a cancellation that has not
            # arrived cannot be taken back: it would hit the next await outside.
            asyncio.get_running_loop().call_soon(self._interrupt, task)

    def _interrupt(self, task: asyncio.Task[object]) -> None:
        if self._task is task:
            self._cancelled = True
            task.cancel()
