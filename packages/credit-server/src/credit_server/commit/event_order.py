"""Give positions to the events of alerts, soon after they are committed."""

import asyncio
from random import Random

import structlog

from credit_server.store.port import Conflict, Store, StoreError

log = structlog.get_logger("credit_server.commit")

# The pause between two searches for events. An idle search is one read of an empty index.
_INTERVAL_SECONDS = 0.5

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

    async def run(self) -> None:
        """Order events until cancelled.

        An unexpected error is logged and does not end the server: balances do not depend on events.
        """
        pause = _INTERVAL_SECONDS
        while True:
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
            try:
                await self.order()
            except Exception as error:
                if pause == _INTERVAL_SECONDS or not isinstance(error, StoreError):
                    log.warning(
                        "the events of alerts cannot be ordered; the server retries",
                        error=str(error),
                        exc_info=None if isinstance(error, StoreError) else error,
                    )
                pause = min(2 * pause, _BACKOFF_SECONDS_MAX)
            else:
                pause = _INTERVAL_SECONDS

    async def order(self) -> None:
        """Order all committed events, unless another process orders them at the same time.

        Raises:
            StoreError: The store cannot be reached.
        """
        try:
            while await self._store.alert_events.order(_CHUNK) == _CHUNK:
                pass
        except Conflict:
            pass
