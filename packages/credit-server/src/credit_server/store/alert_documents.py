"""The documents of alerts and of their events."""

from collections.abc import Sequence as Values
from datetime import datetime
from typing import Literal

from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import Alert, AlertEvent, Direction
from pydantic import Field

from credit_server.store.fields import Credits, Document, Number, Sequence

_Direction = Literal["falls_below", "rises_to"]
_DIRECTIONS: dict[Direction, _Direction] = {
    Direction.FALLS_BELOW: "falls_below",
    Direction.RISES_TO: "rises_to",
}


class AlertDocument(Document):
    """An alert of a user in an app, or of an app."""

    credits: Number
    direction: _Direction

    @classmethod
    def from_alerts(cls, alerts: Values[Alert]) -> "list[AlertDocument] | None":
        """Translate from the ledger; None: there are no alerts."""
        return [
            cls(credits=alert.credits, direction=_DIRECTIONS[alert.direction]) for alert in alerts
        ] or None

    @staticmethod
    def to_alerts(documents: "list[AlertDocument] | None") -> tuple[Alert, ...]:
        """Translate to the ledger."""
        return tuple(
            Alert(credits=document.credits, direction=Direction(document.direction))
            for document in documents or ()
        )


class AlertEventDocument(Document):
    """`alert_events`: one crossing of an alert's limit."""

    id: ObjectId = Field(alias="_id")
    user_id: Number
    app_id: Number
    alert: AlertDocument
    balance: Credits
    transaction_id: ObjectId
    sequence: Sequence
    created_at: datetime
    # Present until the event has a position.
    unordered: bool | None = None
    position: Sequence | None = None

    def to_event(self) -> AlertEvent:
        """Translate to the ledger."""
        (alert,) = AlertDocument.to_alerts([self.alert])
        return AlertEvent(
            id=str(self.id),
            user_id=self.user_id,
            app_id=self.app_id,
            alert=alert,
            balance=self.balance,
            transaction_id=str(self.transaction_id),
            sequence=self.sequence,
            created_at=self.created_at,
        )


class RemovedEventsDocument(Document):
    """`removed_events`: the position of the last removed event of an app."""

    app_id: Number = Field(alias="_id")
    position: Sequence


def event_bson(event: AlertEvent) -> dict[str, object]:
    """Return the document of a new event, which has no position yet."""
    return {
        "_id": ObjectId(event.id),
        "user_id": Int64(event.user_id),
        "app_id": Int64(event.app_id),
        "alert": {
            "credits": Int64(event.alert.credits),
            "direction": event.alert.direction.value,
        },
        "balance": Int64(event.balance),
        "transaction_id": ObjectId(event.transaction_id),
        "sequence": Int64(event.sequence),
        "created_at": event.created_at,
        "unordered": True,
    }
