"""Translates alerts and their events between the ledger's values and the contract's messages."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from credit_models import Alert as AlertMessage
from credit_models import AlertDirection, RemoveAlertRequest, SetAlertRequest
from credit_models import AlertEvent as AlertEventMessage
from credit_models.errors import Violation
from credit_models.ledger import Alert, AlertEvent, Direction

DIRECTIONS: Mapping[AlertDirection, Direction] = MappingProxyType(
    {
        AlertDirection.FALLS_BELOW: Direction.FALLS_BELOW,
        AlertDirection.RISES_TO: Direction.RISES_TO,
    }
)
_MESSAGES = {direction: message for message, direction in DIRECTIONS.items()}

AlertChange = SetAlertRequest | RemoveAlertRequest


def direction_rule(request: AlertChange) -> Iterator[Violation]:
    """Yield the violation of a request whose direction is unset or unknown."""
    if request.direction not in DIRECTIONS:
        what = f"must be a known direction, got {int(request.direction)}"
        yield Violation(field="direction", description=what)


def alert_of(request: AlertChange) -> Alert:
    """Return the alert of a valid request."""
    return Alert(credits=request.credits, direction=DIRECTIONS[request.direction])


def alerts_to_messages(alerts: Iterable[Alert]) -> list[AlertMessage]:
    """Return the messages of alerts."""
    return [_alert_to_message(alert) for alert in alerts]


def event_to_message(event: AlertEvent, position: int) -> AlertEventMessage:
    """Return the message of an event that has a position."""
    return AlertEventMessage(
        id=event.id,
        user_id=event.user_id,
        app_id=event.app_id,
        alert=_alert_to_message(event.alert),
        balance=event.balance,
        transaction_id=event.transaction_id,
        sequence=event.sequence,
        created_at=event.created_at,
        position=position,
    )


def _alert_to_message(alert: Alert) -> AlertMessage:
    return AlertMessage(credits=alert.credits, direction=_MESSAGES[alert.direction])
