"""Give positions to the events of alerts, soon after they are committed."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random

import structlog
from credit_models.timeouts import Timeout

from credit_server.repeat import Pauses, repeat
from credit_server.store.port import Conflict, Store, StoreError

log = structlog.get_logger("credit_server.commit")

# The pause between two searches for events of other processes. An idle search is one read of an
# empty index. The contract promises a position within a second.
_INTERVAL_SECONDS = 0.9

# The pause after this process has committed an event, so that events of the next batches are
# ordered with it.
_GATHER_SECONDS = 0.2

# The longest pause after failures. It doubles with each.
_BACKOFF_SECONDS_MAX = 30.0

# How many events are ordered at once.
_CHUNK = 500


class EventOrder:
    """Orders the events of alerts. All servers do so concurrently: see `AlertEvents.order`."""

    def __init__(self, store: Store, *, random: Random | None = None) -> None:
        """Prepare; `run` orders.

        Args:
            store: Keeps the events.
            random: For jitter; not for secrets.
        """
        self._store = store
        self._random = random or Random()  # noqa: S311 - jitter needs no secrecy
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Search soon, because this process has committed an event."""
        self._woken.set()

    async def run(self, ordered: Callable[[], None] = lambda: None) -> None:
        """Order events until cancelled.

        Args:
            ordered: Called after events got positions, and their webhooks got deliveries.
        """

        async def search() -> None:
            self._woken.clear()
            if await self.order():
                ordered()

        await repeat(
            search,
            Pauses(interval_seconds=_INTERVAL_SECONDS, backoff_seconds_max=_BACKOFF_SECONDS_MAX),
            random=self._random,
            log=log,
            warning="the events of alerts cannot be ordered; the server retries",
            expected=(StoreError,),
            sleep=self._pause,
        )

    async def _pause(self, seconds: float) -> None:
        """Pause for a time, or shorter if an event is committed."""
        with suppress(TimeoutError):
            async with Timeout(seconds):
                await self._woken.wait()
                await asyncio.sleep(_GATHER_SECONDS)

    async def order(self) -> bool:
        """Order all committed events, unless another process orders them at the same time.

        Returns:
            Whether there were any.

        Raises:
            StoreError: The store cannot be reached.
        """
        found = False
        try:
            while count := await self._store.alert_events.order(_CHUNK):
                found = True
                if count < _CHUNK:
                    break
        except Conflict:
            self.wake()  # the other process may have found fewer events
        return found
