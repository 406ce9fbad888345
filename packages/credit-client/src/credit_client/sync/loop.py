"""The event loop beneath the synchronous clients: one thread per process, shared by all of them.

A call from any thread runs as a task of this loop, and the caller waits for its end. The thread
starts with the first call. A forked process starts a thread of its own.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from grpclib.exceptions import GRPCError

from credit_client.errors import CreditError
from credit_client.transport import AttemptFailed

T = TypeVar("T")


class LoopThread:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        """Start the thread."""
        self.loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._entered: set[AbstractAsyncContextManager[Any]] = set()
        self._posted: set[asyncio.Task[None]] = set()
        # A daemon: the interpreter would otherwise wait for it before it runs `_stop_at_exit`.
        self._thread = threading.Thread(target=self._serve, name="credit-client", daemon=True)
        self._thread.start()

    @property
    def is_usable(self) -> bool:
        """Whether the loop runs, in this process."""
        return self._process == os.getpid() and not self.loop.is_closed()

    def check_is_outside(self) -> None:
        """Check that this is not the loop's own thread, which would wait for itself.

        Raises:
            RuntimeError: It is.
        """
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError(
                "a synchronous client cannot be used in the thread of its own event loop, where"
                " functions that fetch tokens run; nothing was sent. Use credit_client.CreditClient"
                " there"
            )

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter a context, which `leave` or the end of the thread leaves."""
        value = await manager.__aenter__()
        self._entered.add(manager)
        return value

    async def leave(self, manager: AbstractAsyncContextManager[Any]) -> None:
        """Leave a context, unless that has happened already."""
        if manager in self._entered:
            self._entered.discard(manager)
            await manager.__aexit__(None, None, None)

    def post(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin work without waiting for it; do nothing after a fork or the end of the loop."""
        if self.is_usable:
            self.loop.call_soon_threadsafe(self._begin, work)

    def stop(self) -> None:
        """Leave all contexts, cancel all tasks, and end the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def submit(self, start: Callable[[], None]) -> None:
        """Run a function on the loop, soon.

        Each submission wakes the loop. Threads could share a wake-up (53 instead of 67 µs of CPU
        for a call beside the work itself, median of 16 threads), but a signal handler can interrupt
        a thread that has announced a wake-up and not made it yet. Alternatives without such an
        announcement cost more. With 16 threads, this way takes 2.7 context switches per call, a
        loop that stays awake while threads submit 3.3, and a loop that pauses for 20 to 200 µs to
        collect submissions 4.7 (voluntary context switches, busy 2-core machine).
        """
        self.loop.call_soon_threadsafe(start)

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self.loop.create_task(work())
        # The loop itself refers to its tasks weakly.
        self._posted.add(task)
        task.add_done_callback(self._posted.discard)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self._finish())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    async def _finish(self) -> None:
        for manager in list(self._entered):
            await self.leave(manager)
        tasks = asyncio.all_tasks(self.loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Call(Generic[T]):
    """A task of the loop, for whose end a thread waits.

    The task can pass work to the waiting thread with `put`, so that an app's own functions run in
    the thread that has made the call.
    """

    def __init__(self, thread: LoopThread) -> None:
        """Prepare a call."""
        self._thread = thread
        self._context = copy_context()
        self._work: SimpleQueue[Callable[[], object] | asyncio.Task[T] | None] = SimpleQueue()
        self._task: asyncio.Task[T] | None = None
        self._dropped = False

    def put(self, work: Callable[[], object]) -> None:
        """Run work in the waiting thread. If it raises, the call is cancelled and raises that."""
        self._work.put(work)

    def run(self, awaitable: Awaitable[T]) -> T:
        """Run a task, and return its result.

        An exception that reaches the waiting thread from outside, such as KeyboardInterrupt or a
        worker's time limit, cancels the task, waits for its end, and passes.
        """
        try:
            self._thread.submit(partial(self._start, awaitable))
            while not isinstance(ended := self._work.get(), asyncio.Task):
                if ended is not None:
                    ended()
        except BaseException as interruption:
            self._thread.submit(partial(self._cancel, awaitable))
            _add_notes(interruption, self._wait_quietly())
            raise
        error = None if ended.cancelled() else ended.exception()
        if error is None:
            return ended.result()
        try:
            raise _without_internals(error)
        finally:
            # Otherwise the exception and this frame would refer to each other.
            del error, ended

    def _start(self, awaitable: Awaitable[T]) -> None:
        if not self._dropped:
            work = awaitable if isinstance(awaitable, Coroutine) else _awaited(awaitable)
            self._task = self._thread.loop.create_task(work, context=self._context)
            self._task.add_done_callback(self._work.put)

    def _cancel(self, awaitable: Awaitable[T]) -> None:
        if self._task is not None:
            if not self._task.cancel():
                # It has ended already, and the interruption has hit the thread that took its end.
                self._work.put(self._task)
            return
        self._dropped = True
        if isinstance(awaitable, Coroutine):
            awaitable.close()
        self._work.put(None)

    def _wait_quietly(self) -> asyncio.Task[T] | None:
        """Wait for the end of a cancelled task, and do no more work for it."""
        while True:
            ended = self._work.get()
            if ended is None or isinstance(ended, asyncio.Task):
                return ended


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _add_notes(interruption: BaseException, ended: asyncio.Task[Any] | None) -> None:
    """Add to an interruption what the cancelled call has noted: the key of its write."""
    if ended is None:
        return
    try:
        answer = ended.result()
    except BaseException as error:  # noqa: BLE001 - CancelledError, and what else ended the task
        for note in getattr(error, "__notes__", ()):
            interruption.add_note(note)
    else:
        id_ = getattr(answer, "transaction_id", "")
        what = f", as the transaction {id_}" if id_ else ""
        interruption.add_note(f"the call of the credit service had already succeeded{what}")


def _without_internals(error: BaseException) -> BaseException:
    """Remove the frames of the event loop from the tracebacks of an error of the service.

    Other exceptions keep them: they show which line of an app's own function raised. So does the
    cause of an error that such a function caused (`TokenUnavailable`).
    """
    match error:
        case BaseExceptionGroup():
            causes: Sequence[BaseException | None] = error.exceptions
        case CreditError():
            causes = [error.__cause__ if isinstance(error.__cause__, AttemptFailed) else None]
        case AttemptFailed() | GRPCError() | OSError():
            causes = [error.__cause__]
        case _:
            return error
    error.__traceback__ = None
    for cause in causes:
        if cause is not None:
            _without_internals(cause)
    return error


# Replaced in a forked process, where another thread's hold on it would last forever. Reentrant:
# a signal handler may make a call while the thread that it interrupts opens a client.
_lock = threading.RLock()
_thread: LoopThread | None = None
_is_exiting = False

# Threads of the parent process. Their loops share epoll with the parent, so that closing them, as
# their garbage collection may, would change what the parent waits for.
_abandoned: list[LoopThread] = []


def start_once(start: Callable[[LoopThread], T]) -> T:
    """Call a function with this process's loop thread, while no other thread does.

    Raises:
        RuntimeError: This is the loop's own thread, or the interpreter exits.
    """
    global _thread  # noqa: PLW0603 - one per process, as is its purpose
    if _thread is not None:
        _thread.check_is_outside()
    if _is_exiting:
        raise RuntimeError("the interpreter exits: no call can be made any more")
    with _lock:
        if _thread is None or not _thread.is_usable:
            _thread = LoopThread()
        return start(_thread)


def _begin_again_in_child() -> None:
    global _lock, _thread  # noqa: PLW0603
    _lock = threading.RLock()
    if _thread is not None:
        _abandoned.append(_thread)
        _thread = None


def _stop_at_exit() -> None:
    global _is_exiting  # noqa: PLW0603
    _is_exiting = True
    if _thread is not None and _thread.is_usable:
        _thread.stop()


os.register_at_fork(after_in_child=_begin_again_in_child)
atexit.register(_stop_at_exit)
