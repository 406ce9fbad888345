"""The documents of webhooks and of what is to be sent to them."""

from datetime import datetime
from typing import Annotated

from bson.objectid import ObjectId
from pydantic import Field

from credit_server.store.alert_documents import AlertEventDocument, event_bson
from credit_server.store.fields import Document, Long, Number
from credit_server.store.webhooks import Delivery, Webhook


class WebhookDocument(Document):
    """`webhooks`: a URL that receives the events of an app."""

    id: ObjectId = Field(alias="_id")
    app_id: Number
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    secret: Annotated[str, Field(min_length=1, max_length=128, repr=False)]
    created_at: datetime
    created_by: Number

    @classmethod
    def from_webhook(cls, webhook: Webhook) -> "WebhookDocument":
        """Translate from the port."""
        return cls(
            _id=ObjectId(webhook.id),
            app_id=webhook.app_id,
            url=webhook.url,
            secret=webhook.secret,
            created_at=webhook.created_at,
            created_by=webhook.created_by,
        )

    def to_webhook(self) -> Webhook:
        """Translate to the port."""
        return Webhook(
            id=str(self.id),
            app_id=self.app_id,
            url=self.url,
            secret=self.secret,
            created_at=self.created_at,
            created_by=self.created_by,
        )


class DeliveryDocument(Document):
    """`webhook_deliveries`: an event for a webhook. It is removed when it is acknowledged."""

    id: ObjectId = Field(alias="_id")
    webhook_id: ObjectId
    app_id: Number
    event: AlertEventDocument
    attempts: Annotated[Long, Field(ge=0)]
    created_at: datetime
    # Absent in a dead letter.
    due_at: datetime | None = None
    error: Annotated[str, Field(max_length=500)] | None = None
    # Present only in a dead letter.
    failed_at: datetime | None = None

    @classmethod
    def from_delivery(cls, delivery: Delivery) -> "DeliveryDocument":
        """Translate from the port."""
        return cls(
            _id=ObjectId(delivery.id),
            webhook_id=ObjectId(delivery.webhook_id),
            app_id=delivery.app_id,
            event=AlertEventDocument.model_validate(event_bson(delivery.event)),
            attempts=delivery.attempts,
            created_at=delivery.created_at,
            due_at=delivery.due_at,
            error=delivery.error or None,
            failed_at=delivery.failed_at,
        )

    def to_delivery(self) -> Delivery:
        """Translate to the port."""
        return Delivery(
            id=str(self.id),
            webhook_id=str(self.webhook_id),
            app_id=self.app_id,
            event=self.event.to_event(),
            attempts=self.attempts,
            created_at=self.created_at,
            due_at=self.due_at,
            error=self.error or "",
            failed_at=self.failed_at,
        )
