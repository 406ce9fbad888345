"""Wake the calls that wait for events of alerts."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from credit_server.store.port import Store, StoreError

log = structlog.get_logger("credit_server.alerts")

# The pause between two searches for new events. A search is one read of an index for all calls.
_INTERVAL_SECONDS = 0.25

# The most new events of one read.
_CHUNK = 1000


class EventWatch:
    """Searches for new events while calls wait, and wakes the calls for the events' apps.

    A call that is woken reads its own events, so nothing is buffered here.
    """

    def __init__(self, store: Store, *, interval_seconds: float = _INTERVAL_SECONDS) -> None:
        """Prepare; nothing is read before a call waits.

        Args:
            store: Keeps the events.
            interval_seconds: The pause between two searches.
        """
        self._events = store.alert_events
        self._interval = interval_seconds
        self._waiting: dict[asyncio.Event, int] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def waiting(self, app_id: int) -> Iterator[asyncio.Event]:
        """Return an event that is set when the app may have new events.

        Enter the context before you read the events: later events then set the returned one.
        """
        changed = asyncio.Event()
        self._waiting[changed] = app_id
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            yield changed
        finally:
            del self._waiting[changed]

    async def _look(self) -> None:
        last: int | None = None
        logged = False
        while self._waiting:
            try:
                if last is None:
                    # An event can have arrived between the read of a call and this read.
                    last = await self._events.newest()
                    self._wake(None)
                else:
                    found = await self._events.since(last, _CHUNK)
                    if found:
                        last = found[-1][0]
                        self._wake({app_id for _, app_id in found})
            except Exception as error:
                last = None  # a waiting call reports an error of the store when it reads again
                if not isinstance(error, StoreError) and not logged:
                    logged = True
                    log.exception("new events of alerts cannot be read; the server retries")
            else:
                logged = False
            await asyncio.sleep(self._interval)

    def _wake(self, apps: set[int] | None) -> None:
        for changed, app_id in self._waiting.items():
            if apps is None or app_id in apps:
                changed.set()
