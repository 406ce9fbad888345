"""Supervises the parts of the server that run beside the calls.

asyncio logs what a task or a timer raises, and continues without it: the server would then accept
calls that nothing answers, and a chain of timers, in which each callback starts the next, would end
unnoticed. So each part runs under a supervisor, which reports the first failure and so ends the
server.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

from credit_server.errors import PartFailed

log = structlog.get_logger("credit_server")

# Receives the name of a part and the exception that it raised.
OnBug = Callable[[str, Exception], None]


class Supervisor:
    """Runs the server's parts in one task group, and reports the first that fails.

    The other parts run until `supervised` ends, so that the server can stop in order and answer the
    calls that are running.

    Attributes:
        failure: Is set to the error of the first part that failed.
    """

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._parts: list[asyncio.Task[None]] = []
        self._may_return = False
        self.failure: asyncio.Future[PartFailed] = asyncio.get_running_loop().create_future()

    def start(self, part: str, body: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a part. While the server serves, only a cancellation of its task may end it.

        Args:
            part: The name of the part in logs and in the error that ends the server.
            body: The coroutine to run.
        """
        task = self._group.create_task(self._run(part, body), name=part)
        # If the task is cancelled before its first step, the body never runs.
        task.add_done_callback(lambda _: body.close())
        self._parts.append(task)
        return task

    def failed(self, part: str, error: BaseException) -> None:
        """Report the failure of a part that is not a task: a timer or a thread."""
        log.error("a part of the server has failed", part=part, exc_info=error)
        if not self.failure.done():
            failure = PartFailed(part, error)
            failure.__cause__ = error
            self.failure.set_result(failure)

    @asynccontextmanager
    async def parts_needed(self) -> AsyncIterator[None]:
        """Treat each part that returns within this context as failed."""
        try:
            yield
        finally:
            self._may_return = True

    def end(self) -> None:
        """Cancel the parts that are still running."""
        self._may_return = True
        for task in self._parts:
            task.cancel()

    async def _run(self, part: str, body: Coroutine[Any, Any, None]) -> None:
        task = asyncio.current_task()
        try:
            await body
        except asyncio.CancelledError as error:
            if task is None or task.cancelling():
                raise
            self.failed(part, error)  # this task was not cancelled, but something it awaits was
        except Exception as error:  # noqa: BLE001 - it is logged, with its traceback
            self.failed(part, error)
        else:
            if not self._may_return:
                self.failed(part, RuntimeError("it returned while the server was serving"))


@asynccontextmanager
async def supervised() -> AsyncIterator[Supervisor]:
    """Supervise parts within this context, and cancel those that still run at its end.

    Raises:
        PartFailed: A part failed, and the context itself raised nothing.
    """
    error: Exception | None = None
    async with asyncio.TaskGroup() as group:
        supervisor = Supervisor(group)
        try:
            yield supervisor
        except Exception as raised:  # noqa: BLE001 - a task group would raise it within a group
            error = raised
        finally:
            supervisor.end()
    if error is not None:
        raise error
    if supervisor.failure.done():
        raise supervisor.failure.result()


def _let_asyncio_log(_part: str, bug: Exception) -> None:
    raise bug


class Timers:
    """Starts timers on the running loop, and reports the exceptions of their callbacks."""

    def __init__(self, on_bug: OnBug = _let_asyncio_log) -> None:
        """Create timers.

        Args:
            on_bug: Receives the exception of a callback. By default asyncio only logs it.
        """
        self._on_bug = on_bug

    def later(self, seconds: float, part: str, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Run a callback once.

        Args:
            seconds: The delay.
            part: The name of the part that the callback belongs to.
            callback: The callback.
        """
        return asyncio.get_running_loop().call_later(seconds, self._run, part, callback)

    def _run(self, part: str, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as bug:  # noqa: BLE001 - it is reported
            self._on_bug(part, bug)
