"""The port of the events of alerts, and the twin in memory.

An event is written with its entry and without a position, because concurrent transactions commit in
any order. Then `order` gives positions to committed events: 1, 2, 3 and so on, without a gap. So a
reader that has read up to a position never misses an event before it.

Only an import of a backup leaves a gap. Readers may have stored the positions of events that the
restored database lacks. So the next event gets a position that no event had before the import, and
a reader that continues from a position in the gap is rejected. The gaps are stored, because the
events beside them are removed later. The store in memory has no gap: it has no import.

Old events are removed, those with the smallest positions first. The latest event stays, because the
next position follows from it. For each app, the store keeps the position up to which its events
were removed, so that a reader that continues from an earlier position is rejected.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import takewhile
from typing import NamedTuple, Protocol

from credit_models.ledger import AlertEvent

from credit_server.store.webhooks import MemoryWebhooks


class OrderedEvent(NamedTuple):
    """An event with its position, from 1."""

    position: int
    event: AlertEvent


class EventPage(NamedTuple):
    """Events of an app, by ascending position.

    Attributes:
        events: The events.
        position: All requested events up to here are in the page, as far as the limit allows: the
            greatest position of all apps when the page was read.
    """

    events: Sequence[OrderedEvent]
    position: int


class EventGap(NamedTuple):
    """Positions that an import has left out.

    Attributes:
        last: The greatest position of the imported events; 0 if there was none.
        next: The least position of later events.
    """

    last: int
    next: int


class EventsRemoved(Exception):
    """Events of the app after the position of a read were removed.

    Attributes:
        position: The position of the last removed event of the app.
    """

    def __init__(self, position: int) -> None:
        super().__init__(f"events up to the position {position} were removed")
        self.position = position


class PositionUnknown(Exception):
    """The position of a read does not belong to any event, kept or removed.

    The position is from another database, or from this one before it was restored.

    Attributes:
        last: The greatest position of an event before that position; 0 if there is none.
    """

    def __init__(self, last: int) -> None:
        super().__init__(f"no event has the position; the greatest position before it is {last}")
        self.last = last


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
    ) -> EventPage:
        """Return events of an app by ascending position.

        All reads of the store for a page see at least what the earlier ones have seen, also right
        after a change of primary.

        Args:
            app_id: The app.
            user_id: Only events of this user; None: of all users.
            after_position: The page starts after this position, 1 to 2**63 - 1; 0: with the oldest
                event.
            limit: The most events, at least 1.

        Raises:
            EventsRemoved: Events of the app after the position were removed.
            PositionUnknown: The position is greater than that of any event, or in a gap.
            StoreUnavailable: The store cannot be reached or, right after a change of primary, does
                not return the event with the position yet.
        """
        ...

    async def remove_before(self, time: datetime, limit: int) -> int:
        """Remove the oldest ordered events, but not the latest event.

        Several processes may do so at once.

        Args:
            time: Only events of entries that were created before this time.
            limit: The most events, at least 1.

        Returns:
            The number of old events that were found. If it is the limit, there may be more.
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
        self._ordered: list[OrderedEvent] = []
        self._newest = 0
        self._removed: dict[int, int] = {}

    @property
    def unordered(self) -> int:
        """The number of events without a position."""
        return len(self._unordered)

    def add(self, events: Iterable[AlertEvent]) -> None:
        """Add events of a transaction that is committed."""
        self._unordered.update((event.id, event) for event in events)

    async def order(self, limit: int) -> int:
        """Give positions to events: see the port."""
        waiting = self._unordered.values()
        found = sorted(waiting, key=lambda event: (event.created_at, event.sequence))[:limit]
        self._webhooks.enqueue(found)
        for event in found:
            self._newest += 1
            self._ordered.append(OrderedEvent(self._newest, self._unordered.pop(event.id)))
        return len(found)

    async def newest(self) -> int:
        """Return the greatest position: see the port."""
        return self._newest

    async def since(self, position: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return the position and the app of later events: see the port."""
        later = [(each.position, each.event.app_id) for each in self._ordered]
        return [each for each in later if each[0] > position][:limit]

    async def page(
        self, app_id: int, user_id: int | None = None, *, after_position: int = 0, limit: int
    ) -> EventPage:
        """Return events of an app: see the port."""
        if after_position > self._newest:
            raise PositionUnknown(self._newest)
        removed = self._removed.get(app_id, 0)
        if 0 < after_position < removed:
            raise EventsRemoved(removed)
        found = [
            each
            for each in self._ordered
            if each.position > after_position
            and each.event.app_id == app_id
            and user_id in (None, each.event.user_id)
        ]
        return EventPage(found[:limit], self._newest)

    async def remove_before(self, time: datetime, limit: int) -> int:
        """Remove the oldest events: see the port."""
        old = [*takewhile(lambda each: each.event.created_at < time, self._ordered[:-1])][:limit]
        self._removed |= {each.event.app_id: each.position for each in old}
        del self._ordered[: len(old)]
        return len(old)
