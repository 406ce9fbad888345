"""Remove old events of alerts, and old dead letters of webhooks."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from random import Random

import structlog

from credit_server.commit.clock import Clock
from credit_server.commit.errors import ClockSkewed
from credit_server.repeat import Pauses, repeat
from credit_server.store.port import Store, StoreError

log = structlog.get_logger("credit_server.commit")

# How long events and dead letters are kept, as the contract defines.
KEPT = timedelta(days=30)

# The pause between two searches. A search that finds nothing costs two reads of an index.
_INTERVAL_SECONDS = 3600.0

# The most events or dead letters that one command removes.
_CHUNK = 500


class EventRetention:
    """Removes old events and dead letters. All servers do so concurrently."""

    def __init__(self, store: Store, clock: Clock, *, random: Random | None = None) -> None:
        """Prepare; `run` removes.

        Args:
            store: Keeps the events and the dead letters.
            clock: Returns the current time.
            random: Spreads the searches of servers that start together; not for secrets.
        """
        self._store = store
        self._clock = clock
        self._random = random or Random()  # noqa: S311 - spreading needs no secrecy

    async def run(self) -> None:
        """Remove old events and dead letters until cancelled.

        The pauses vary widely, so that servers that start together do not search at the same time.
        """
        await repeat(
            self.remove,
            Pauses(
                interval_seconds=_INTERVAL_SECONDS,
                backoff_seconds_max=_INTERVAL_SECONDS,
                shortest=0.1,
            ),
            random=self._random,
            log=log,
            warning="old events of alerts cannot be removed; the server retries",
            expected=(ClockSkewed, StoreError),
        )

    async def remove(self) -> None:
        """Remove all events and dead letters that are too old.

        Raises:
            ClockSkewed: The clocks of this machine and the store differ by too much. With a wrong
                clock, events that are not old would be removed.
            StoreError: The store cannot be reached.
        """
        before = self._clock.now().now - KEPT
        await _all(self._store.alert_events.remove_before, before)
        lost = await _all(self._store.webhooks.remove_dead, before)
        if lost:
            log.warning("dead letters of webhooks were removed", dead_letters=lost, days=KEPT.days)


async def _all(remove: Callable[[datetime, int], Awaitable[int]], before: datetime) -> int:
    removed = 0
    while True:
        found = await remove(before, _CHUNK)
        removed += found
        if found < _CHUNK:
            return removed
