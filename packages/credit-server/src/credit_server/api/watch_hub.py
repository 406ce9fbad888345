"""Distributes committed transactions to the watchers of a server process.

All watchers share one reader of the store's log. A transaction without watchers costs two look-ups.
A transaction with watchers is encoded once for all of them. The feed of each watcher is bounded: if
it overflows, the watcher reads the transactions from the store again, at the pace of its client.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import cached_property
from typing import Protocol

import structlog
from credit_models.timeouts import Timeout

from credit_server.admission.decision import Decision, NotAdmitted
from credit_server.api import convert
from credit_server.api.watch_token import Scope
from credit_server.store.history import TransactionRow
from credit_server.store.port import LogEntry, LogPosition, Store, StoreUnavailable, Unreadable

log = structlog.get_logger("credit_server.watch")

# The limits of a feed. A transaction has 200 bytes, or 20 kB with the longest notes and metadata.
_WAITING_MAX = 1024
_WAITING_BYTES_MAX = 1024 * 1024

# The pause of a watcher after each message, multiplied by the number of watchers, and the longest
# pause. All watchers of a busy app together then take a bounded part of the event loop.
_PAUSE_SECONDS = 0.0008
_PAUSE_SECONDS_MAX = 0.5

_RETRY_SECONDS = 1.0

_UNREADABLE = "the log of transactions cannot be read"


class Shared:
    """A committed transaction, converted once for all its watchers."""

    def __init__(self, entry: LogEntry) -> None:
        """Take the entry of the log."""
        self.entry = entry
        self._events: dict[Scope, bytes] = {}

    @cached_property
    def row(self) -> TransactionRow:
        """The transaction."""
        return self.entry.row()

    @cached_property
    def data(self) -> bytes:
        """The transaction as a `CreditTransaction`."""
        (data,) = convert.transactions_to_wire([self.row])
        return data

    def event(self, scope: Scope, token: Callable[[], str]) -> bytes:
        """Return the `WatchResponse` of a scope.

        Args:
            scope: What is watched.
            token: Makes the token of the event. It is the same for all watchers of the scope.
        """
        found = self._events.get(scope)
        if found is None:
            found = self._events[scope] = convert.transaction_event_to_wire(token(), self.data)
        return found


class Feed:
    """What was committed in a scope since a position, until its watcher takes it.

    Attributes:
        start: Everything in the scope after this position is in the feed.
        lost: Whether the watcher was too slow. The feed is then empty until it is restarted.
    """

    def __init__(self, start: LogPosition) -> None:
        """Begin after a position."""
        self._changed = asyncio.Event()
        self._failure: Exception | None = None
        self.restart(start)

    def restart(self, start: LogPosition) -> None:
        """Drop what has not been taken, and begin again after a position."""
        self.start = start
        self.lost = False
        self._waiting: deque[Shared] = deque()
        self._size = 0

    def add(self, shared: Shared) -> None:
        """Add a transaction. If there is no room, drop all transactions."""
        if self.lost:
            return
        self._size += len(shared.data)
        self._waiting.append(shared)
        if len(self._waiting) > _WAITING_MAX or self._size > _WAITING_BYTES_MAX:
            self._waiting.clear()
            self.lost = True
        self._changed.set()

    def end(self, failure: Exception) -> None:
        """Make the next take of the watcher raise an error."""
        self._failure = self._failure or failure
        self._changed.set()

    def raise_failure(self) -> None:
        """Raise the error with which the feed was ended, if any."""
        if self._failure is not None:
            raise self._failure

    @property
    def empty(self) -> bool:
        """Whether the watcher has taken everything."""
        return not self._waiting and not self.lost

    async def take(self, seconds: float) -> list[Shared]:
        """Return the added transactions, by ascending position, once there are any.

        Args:
            seconds: After this time the result is empty.

        Raises:
            Exception: The feed was ended with this error.
        """
        if self.empty and self._failure is None:
            self._changed.clear()
            with suppress(TimeoutError):
                async with Timeout(seconds):
                    await self._changed.wait()
        self.raise_failure()
        taken = list(self._waiting)
        self._waiting.clear()
        self._size = 0
        return taken


class WatchObserver(Protocol):
    """Observes the watchers of a hub."""

    def changed(self, watchers: int) -> None:
        """Note the number of watchers."""

    def distributed(self, delay_seconds: float) -> None:
        """Note the time from the creation of a transaction to its distribution."""


class Unobserved:
    """Ignores all watchers."""

    def changed(self, watchers: int) -> None:
        """Ignore the number."""

    def distributed(self, delay_seconds: float) -> None:
        """Ignore a transaction."""


UNOBSERVED = Unobserved()


class WatchHub:
    """Reads the log while there are watchers, and distributes it.

    Attributes:
        position: The position of the log up to which everything was distributed.
    """

    def __init__(
        self,
        store: Store,
        *,
        watchers_max: int = 2048,
        observer: WatchObserver = UNOBSERVED,
    ) -> None:
        """Prepare to distribute; nothing is read yet.

        Args:
            store: Its log is read.
            watchers_max: The most watchers, at least 1. One identity may have half of them.
            observer: Observes the watchers.
        """
        self._store = store
        self._watchers_max = watchers_max
        self._observer = observer
        self.position = LogPosition(0, b"")
        self._of_user: dict[int, set[Feed]] = {}
        self._of_app: dict[int, set[Feed]] = {}
        # The number of watchers of each caller.
        self._callers: Counter[str] = Counter()
        self._reading: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None

    @property
    def watchers(self) -> int:
        """The number of watchers."""
        return self._callers.total()

    @property
    def pause_seconds(self) -> float:
        """How long a watcher pauses after each message."""
        return min(self.watchers * _PAUSE_SECONDS, _PAUSE_SECONDS_MAX)

    @contextmanager
    def watching(self, caller: str, *, shared: bool) -> Iterator[None]:
        """Count a watcher.

        Args:
            caller: The name of the caller.
            shared: Whether callers share this name, so that only the limit for all of them applies.

        Raises:
            NotAdmitted: There are too many watchers.
        """
        self._check_room(caller, shared=shared)
        self._callers[caller] += 1
        self._observer.changed(self.watchers)
        try:
            yield
        finally:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]
            self._observer.changed(self.watchers)
            if not self._callers and self._reading is not None:
                self._reading.cancel()
                self._reading = None

    @asynccontextmanager
    async def feed(self, scope: Scope) -> AsyncIterator[Feed]:
        """Return a feed of what is committed from now on, to a watcher that is counted.

        Args:
            scope: What is watched.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        feeds, id_ = (
            (self._of_user, scope.user_id) if scope.user_id else (self._of_app, scope.app_id)
        )
        await self._read()
        feed = Feed(self.position)
        feeds.setdefault(id_, set()).add(feed)
        try:
            yield feed
        finally:
            feeds[id_].discard(feed)
            if not feeds[id_]:
                del feeds[id_]

    def restart(self, feed: Feed) -> None:
        """Restart a feed with what is committed from now on."""
        feed.restart(self.position)

    def _check_room(self, caller: str, *, shared: bool) -> None:
        if self.watchers >= self._watchers_max:
            raise NotAdmitted(
                Decision.WATCHERS,
                f"the server has the maximum of {self._watchers_max} streams of Watch",
                retry_seconds=_RETRY_SECONDS,
            )
        own_max = max(1, self._watchers_max // 2)
        if not shared and self._callers[caller] >= own_max:
            raise NotAdmitted(
                Decision.RUNNING_CALLS,
                f"the caller has the maximum of {own_max} streams of Watch",
                retry_seconds=_RETRY_SECONDS,
            )

    async def _read(self) -> None:
        """Begin to read the log unless it is being read. Return when no later entry is missed."""
        if self._reading is None or self._opened is None:
            self._opened = asyncio.get_running_loop().create_future()
            # A watcher that is cancelled does not retrieve the error.
            self._opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())
            self._reading = asyncio.create_task(self._distribute(self._opened))
        opened = self._opened
        await asyncio.shield(opened)
        if self._opened is not opened:
            # Reading has failed since. The watcher was not registered, so it was not ended.
            raise StoreUnavailable(_UNREADABLE)

    async def _distribute(self, opened: "asyncio.Future[None]") -> None:
        """Distribute the log until a read fails."""
        try:
            async with aclosing(self._store.follow_log()) as pages:
                async for page in pages:
                    for entry in page.entries:
                        self._add(entry)
                    self.position = page.end
                    if not opened.done():
                        opened.set_result(None)
        except Exception as error:  # noqa: BLE001 - every watcher ends with it
            self._end(opened, error)

    def _add(self, entry: LogEntry) -> None:
        of_user, of_app = self._of_user.get(entry.user_id), self._of_app.get(entry.app_id)
        if not of_user and not of_app:
            return
        shared = Shared(entry)
        feeds = (*(of_user or ()), *(of_app or ()))
        try:
            shared.data  # noqa: B018 - converted here, so that an error ends only this watcher
        except Unreadable as error:
            # To skip the entry would leave a gap that no watcher can detect.
            for feed in feeds:
                feed.end(Unreadable(str(error)))
            return
        for feed in feeds:
            feed.add(shared)
        self._observer.distributed(max(0.0, time.time() - shared.row.created_at / 1000))

    def _end(self, opened: "asyncio.Future[None]", error: Exception) -> None:
        """End all watchers with an error; the next one begins to read again."""
        if self._opened is opened:
            self._reading = self._opened = None
        expected = isinstance(error, StoreUnavailable)
        log.warning(_UNREADABLE, exc_info=None if expected else error)
        for feeds in (*self._of_user.values(), *self._of_app.values()):
            for feed in feeds:
                # One exception for each: a traceback grows wherever it is raised.
                feed.end(StoreUnavailable(_UNREADABLE))
        if not opened.done():
            opened.set_exception(error)
