"""The base of the synchronous facades: an asynchronous client that is open on the loop thread."""

import asyncio
import copy
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

from credit_client.client import CreditClient
from credit_client.errors import ClientClosed, Outcome
from credit_client.request import given_request_id
from credit_client.settings import ClientSettings
from credit_client.sync.loop import Call, LoopThread, start_once

T = TypeVar("T")

# A change of threads costs tens of microseconds: rows that have arrived share one.
_ROWS_MAX = 100


@dataclass(frozen=True, slots=True)
class _Opened:
    """A client that is open on a loop thread."""

    thread: LoopThread
    client: CreditClient


class Session:
    """Opens an asynchronous client at its first use, and again in each forked process."""

    def __init__(self, unopened: CreditClient) -> None:
        """Open nothing yet.

        Args:
            unopened: A client that is never opened itself: each process opens a copy of it.
        """
        self._unopened = unopened
        self._opened: _Opened | None = None
        self._finalizer: weakref.finalize[..., Session] | None = None
        self._entered = False
        self._closed = False

    @property
    def settings(self) -> ClientSettings:
        """The settings of the client."""
        return self._unopened.settings

    @property
    def client(self) -> CreditClient:
        """The client, which is open in this process.

        Raises:
            ClientClosed: The session was closed.
        """
        return self._open().client

    def run(self, awaitable: Awaitable[T]) -> T:
        """Run a call on the loop thread, and return its result."""
        return Call[T](self._open().thread).run(awaitable)

    def rows(self, rows: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """Yield the rows of a list, and hold at most 100 of them."""
        thread = self._open().thread
        ahead = _ReadAhead(rows)
        try:
            while some := Call[list[T]](thread).run(ahead.some()):
                yield from some
        finally:
            thread.post(ahead.close)

    def import_(self, begin: Callable[["Importing"], Awaitable[T]]) -> T:
        """Run an import whose rows are read, and whose functions are called, in this thread."""
        call = Call[T](self._open().thread)
        return call.run(begin(Importing(call.put)))

    def enter(self) -> None:
        """Open the client.

        Raises:
            RuntimeError: A `with` block of the client is open.
        """
        if self._entered:
            raise RuntimeError("the client is already open: share it, or create another client")
        self._closed = False
        self._open()
        self._entered = True

    def close(self) -> None:
        """Close the client."""
        self._closed, self._entered = True, False
        opened, self._opened = self._opened, None
        if opened is None:
            return
        if self._finalizer is not None:
            self._finalizer.detach()
        if opened.thread.is_usable:
            Call[None](opened.thread).run(opened.thread.leave(opened.client))

    def _open(self) -> _Opened:
        opened = self._opened
        if opened is not None and opened.thread.is_usable:
            opened.thread.check_is_outside()
            return opened
        return start_once(self._open_on)

    def _open_on(self, thread: LoopThread) -> _Opened:
        if self._closed:
            error = ClientClosed("the client was closed", request_id=given_request_id())
            error.outcome = Outcome.NO_CHANGE
            raise error
        if self._opened is None or self._opened.thread is not thread:
            client = copy.copy(self._unopened)
            Call[CreditClient](thread).run(thread.enter(client))
            self._opened = _Opened(thread, client)
            # For a client that is dropped without being closed.
            self._finalizer = weakref.finalize(self, thread.post, partial(thread.leave, client))
            self._finalizer.atexit = False
        return self._opened


class _ReadAhead(Generic[T]):
    """Reads a list, and collects the rows that arrive without a wait."""

    def __init__(self, rows: AsyncGenerator[T, None]) -> None:
        self._rows = rows
        self._next: asyncio.Task[list[T]] | None = None

    async def some(self) -> list[T]:
        """Return the next rows: at least one, or none at the end of the list."""
        some: list[T] = []
        while len(some) < _ROWS_MAX:
            if self._next is None:
                self._next = asyncio.create_task(self._row())
            if some:
                await asyncio.sleep(0)
                # A failure is raised by the next call: the rows before it come first.
                if not self._next.done() or self._next.cancelled() or self._next.exception():
                    break
            row, self._next = await self._next, None
            if not row:
                break
            some += row
        return some

    async def close(self) -> None:
        """End the list, also while its next row is awaited."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await self._rows.aclose()

    async def _row(self) -> list[T]:
        """Return the next row alone, or nothing at the end."""
        async for row in self._rows:
            return [row]
        return []


class Importing:
    """Passes an import's own code to the thread that waits for the import."""

    def __init__(self, put: Callable[[Callable[[], object]], None]) -> None:
        """Take what runs work in the waiting thread."""
        self._put = put

    async def rows(self, rows: Iterable[T]) -> AsyncIterator[T]:
        """Yield rows that the waiting thread reads."""
        loop, iterator = asyncio.get_running_loop(), (row for row in rows)
        while True:
            arrived: asyncio.Future[list[T]] = loop.create_future()
            self._put(partial(_read, iterator, loop, arrived))
            some = await arrived
            for row in some:
                yield row
            if not some:
                return

    def function(self, function: Callable[[T], None] | None) -> Callable[[T], None] | None:
        """Return a function that the waiting thread runs, with what it was called with."""
        if function is None:
            return None
        return lambda value: self._put(partial(function, value))


def _read(
    rows: Iterator[T], loop: asyncio.AbstractEventLoop, arrived: "asyncio.Future[list[T]]"
) -> None:
    loop.call_soon_threadsafe(arrived.set_result, list(islice(rows, _ROWS_MAX)))
