"""The port of the events of alerts, and the twin in memory.

An event is written with its entry and without a position, because concurrent transactions commit in
any order. Then `order` gives positions to committed events: 1, 2, 3 and so on, without a gap. So a
reader that has read up to a position never misses an event before it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from credit_models.ledger import AlertEvent

from credit_server.store.webhooks import MemoryWebhooks


class OrderedEvent(NamedTuple):
    """An event with its position, from 1."""

    position: int
    event: AlertEvent


class AlertEvents(Protocol):
    """Orders the events of alerts, and reads them."""

    async def order(self, limit: int) -> int:
        """Give positions to committed events that have none, those of the oldest entries first.

        Before that, the deliveries for the webhooks of their apps are added.

        Several processes may do so at once. Those that are too late raise Conflict.

        Args:
            limit: The most events, at least 1.

        Returns:
            The number of events that had no position. If it is the limit, there may be more.

        Raises:
            Conflict: Another process was faster. The next call orders the remaining events.
            StoreUnavailable: The store cannot be reached.
        """
        ...

    async def newest(self) -> int:
        """Return the greatest position; 0 if there is none."""
        ...

    async def since(self, position: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return the position and the app of events of all apps after a position, by position."""
        ...

    async def page(
        self, app_id: int, user_id: int | None = None, *, after_position: int = 0, limit: int
    ) -> Sequence[OrderedEvent]:
        """Return events of an app by ascending position.

        Args:
            app_id: The app.
            user_id: Only events of this user; None: of all users.
            after_position: The page starts after this position, 0 to 2**63 - 1.
            limit: The most events, at least 1.
        """
        ...


class MemoryAlertEvents:
    """Keeps the events in this process."""

    def __init__(self, webhooks: MemoryWebhooks | None = None) -> None:
        """Keep no event.

        Args:
            webhooks: Receives the ordered events; None: an object of its own.
        """
        self._webhooks = webhooks or MemoryWebhooks()
        self._unordered: dict[str, AlertEvent] = {}
        self._ordered: list[AlertEvent] = []

    def add(self, events: Iterable[AlertEvent]) -> None:
        """Add events of a transaction that is committed."""
        self._unordered.update((event.id, event) for event in events)

    async def order(self, limit: int) -> int:
        """Give positions to events: see the port."""
        waiting = self._unordered.values()
        found = sorted(waiting, key=lambda event: (event.created_at, event.sequence))[:limit]
        self._webhooks.enqueue(found)
        self._ordered += [self._unordered.pop(event.id) for event in found]
        return len(found)

    async def newest(self) -> int:
        """Return the greatest position: see the port."""
        return len(self._ordered)

    async def since(self, position: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return the position and the app of later events: see the port."""
        later = enumerate(self._ordered[position : position + limit], position + 1)
        return [(number, event.app_id) for number, event in later]

    async def page(
        self, app_id: int, user_id: int | None = None, *, after_position: int = 0, limit: int
    ) -> Sequence[OrderedEvent]:
        """Return events of an app: see the port."""
        found = [
            OrderedEvent(position, event)
            for position, event in enumerate(self._ordered, 1)
            if position > after_position
            and event.app_id == app_id
            and user_id in (None, event.user_id)
        ]
        return found[:limit]
