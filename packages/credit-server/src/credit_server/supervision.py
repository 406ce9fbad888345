"""Supervises what runs beside the calls: a part that ends by itself ends the server.

asyncio logs what a task or a timer raises, and goes on without it. The server would then accept
calls that nothing answers. So each part runs under a supervisor, which reports the first failure.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

from credit_server.errors import PartFailed

log = structlog.get_logger("credit_server")


class Supervisor:
    """Runs the server's parts in one task group, and reports the first that fails.

    The parts that are sound go on until `supervised` ends, so that the server can stop in order:
    the calls under way are answered.

    Attributes:
        failure: Is set to the error of the first part that failed.
    """

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._parts: list[asyncio.Task[None]] = []
        self._may_return = False
        self.failure: asyncio.Future[PartFailed] = asyncio.get_running_loop().create_future()

    def start(self, part: str, body: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a part. As long as the server serves, only a cancellation of its task may end it.

        Args:
            part: Names the part in logs and in the error that ends the server.
            body: What to run.
        """
        task = self._group.create_task(self._run(part, body), name=part)
        self._parts.append(task)
        return task

    def failed(self, part: str, error: BaseException) -> None:
        """Report the failure of a part that is no task: a timer, or a thread."""
        log.error("a part of the server has failed", part=part, exc_info=error)
        if not self.failure.done():
            failure = PartFailed(part, error)
            failure.__cause__ = error
            self.failure.set_result(failure)

    @asynccontextmanager
    async def parts_needed(self) -> AsyncIterator[None]:
        """Enclose the time in which no part may return; it is a failure until this context ends."""
        try:
            yield
        finally:
            self._may_return = True

    def end(self) -> None:
        """Cancel the parts that still run."""
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
            self.failed(part, error)  # not this task was cancelled, but what it waits for
        except Exception as error:  # noqa: BLE001 - it is logged, with its traceback
            self.failed(part, error)
        else:
            if not self._may_return:
                self.failed(part, RuntimeError("it returned while the server was serving"))


@asynccontextmanager
async def supervised() -> AsyncIterator[Supervisor]:
    """Supervise parts for as long as the context lasts, and cancel what runs at its end.

    Raises:
        PartFailed: A part failed, and the context raised nothing itself.
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
