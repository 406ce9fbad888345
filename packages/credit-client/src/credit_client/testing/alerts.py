"""The alerts of apps, and the events of all alerts, in the fake."""

from collections.abc import Collection, Sequence

from credit_models import (
    AlertEvent,
    ListAlertEventsRequest,
    ListAlertEventsResponse,
    RemoveAlertRequest,
)
from credit_models.ledger import AlertEvent as LedgerEvent
from credit_models.ledger import TooManyAlerts, changed_alerts
from credit_models.ledger.alerts import Alerts
from credit_models.translation.alerts import AlertChange, alert_of, event_to_message

# The sizes of pages: those of the contract.
_PAGE_SIZE = 100
_PAGE_SIZE_MAX = 1000


class FakeAlerts:
    """The alerts for every user of an app, and all events. An event has its position at once."""

    def __init__(self) -> None:
        self._of_apps: dict[int, Alerts] = {}
        self._events: list[LedgerEvent] = []

    def of_app(self, app_id: int) -> Alerts:
        """Return the alerts for every user of an app."""
        return self._of_apps.get(app_id, ())

    def change(self, request: AlertChange) -> Alerts | TooManyAlerts:
        """Set or remove an alert of an app, and return the alerts of the app."""
        changed = changed_alerts(
            self.of_app(request.app_id),
            alert_of(request),
            remove=isinstance(request, RemoveAlertRequest),
        )
        if not isinstance(changed, TooManyAlerts):
            self._of_apps[request.app_id] = changed
        return changed

    def add(self, events: Sequence[LedgerEvent]) -> None:
        """Add the events of a write."""
        self._events.extend(events)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self._events)

    def drop(self, users: Collection[int], start: int) -> None:
        """Drop the events of users from a position on: their atomic batch was rejected."""
        self._events[start:] = [each for each in self._events[start:] if each.user_id not in users]

    def all(self) -> Sequence[AlertEvent]:
        """Return all events, oldest first."""
        return [event_to_message(event, position) for position, event in enumerate(self._events, 1)]

    def page(self, request: ListAlertEventsRequest) -> ListAlertEventsResponse:
        """Return a page of the events of an app. The fake keeps all events."""
        after = len(self) if request.from_now else request.after_position
        found = [
            event
            for event in self.all()
            if event.position > after
            and event.app_id == request.app_id
            and request.user_id in (None, event.user_id)
        ]
        size = min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MAX)
        more = found[size - 1].position if len(found) > size else 0
        return ListAlertEventsResponse(
            events=found[:size], next_after_position=more, position=more or len(self)
        )
