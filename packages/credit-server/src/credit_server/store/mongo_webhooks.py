"""Webhooks and deliveries in MongoDB: see `webhooks` for the port."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import AlertEvent
from pydantic import ValidationError
from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import BulkWriteError, OperationFailure

from credit_server.store import schema
from credit_server.store.driver import Database, Document
from credit_server.store.errors import INVALID_DOCUMENT, readable
from credit_server.store.set_aside import SetAside
from credit_server.store.webhook_documents import DeliveryDocument, WebhookDocument
from credit_server.store.webhooks import Backlog, Claim, Delivery, Webhook, new_delivery

_DUPLICATE_KEY = 11000

# A delivery cannot be claimed: its form is not valid, or `attempts` is no number (TypeMismatch).
_MALFORMED = (INVALID_DOCUMENT, 14)

# Nearly the last time that Python has: later ones are not decoded as times.
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)

_DUE_ORDER = [("app_id", ASCENDING), ("webhook_id", ASCENDING), ("due_at", ASCENDING)]


class MongoWebhooks:
    """Keeps webhooks in `webhooks`, and what is to be sent in `webhook_deliveries`."""

    def __init__(
        self, database: Database, deadline: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            database: The database.
            deadline: Translates the driver's errors, and limits the time of an operation.
        """
        self._webhooks = database[schema.WEBHOOKS]
        self._deliveries = database[schema.WEBHOOK_DELIVERIES]
        self._deadline = deadline
        self._malformed = SetAside("delivery to a webhook")

    async def enqueue(self, events: Collection[AlertEvent]) -> None:
        """Add the deliveries of events. It may be repeated, within a deadline of the caller."""
        apps = sorted({event.app_id for event in events})
        found = await self._webhooks.find({"app_id": {"$in": apps}}).to_list(None)
        webhooks = readable(found, _webhook)
        deliveries = [
            DeliveryDocument.from_delivery(new_delivery(event, webhook)).to_bson()
            for event in events
            for webhook in webhooks
            if webhook.app_id == event.app_id
        ]
        if not deliveries:
            return
        try:
            await self._deliveries.insert_many(deliveries, ordered=False)
        except BulkWriteError as error:
            # Another process, or an earlier attempt, has added some of them.
            if error.details["writeConcernErrors"]:  # what was added may be rolled back
                raise
            faults = error.details["writeErrors"]
            if any(fault["code"] != _DUPLICATE_KEY for fault in faults):
                raise

    async def set(self, webhook: Webhook, *, keep_secret: bool = False) -> Webhook:
        """Store a webhook: see the port."""
        document = WebhookDocument.from_webhook(webhook).to_bson()
        place = {"app_id": document.pop("app_id"), "url": document.pop("url")}
        changed: Document = {"$setOnInsert": document}
        if not keep_secret:
            changed["$set"] = {"secret": document.pop("secret")}
        async with self._deadline():
            stored = await self._webhooks.find_one_and_update(
                place, changed, upsert=True, return_document=ReturnDocument.AFTER
            )
            return _webhook(stored)

    async def of_app(self, app_id: int) -> Sequence[Webhook]:
        """Return the webhooks of an app: see the port."""
        async with self._deadline():
            found = (
                await self._webhooks.find({"app_id": app_id}).sort("url", ASCENDING).to_list(None)
            )
            return [_webhook(each) for each in found]

    async def remove(self, app_id: int, url: str) -> None:
        """Remove a webhook: see the port."""
        async with self._deadline():
            found = await self._webhooks.find_one({"app_id": app_id, "url": url}, {"_id": 1})
            if found is None:
                return
            # The webhook stays until its deliveries are gone, so that a retry finds it. Those that
            # another process adds meanwhile are removed last, or when they are claimed.
            await self._deliveries.delete_many({"webhook_id": found["_id"]})
            await self._webhooks.delete_one({"_id": found["_id"]})
            await self._deliveries.delete_many({"webhook_id": found["_id"]})

    async def claim(
        self,
        now: datetime,
        until: datetime,
        *,
        after_app: int = 0,
        except_apps: Collection[int] = (),
        except_webhooks: Collection[str] = (),
    ) -> Claim | None:
        """Return a delivery that is due: see the port."""
        # In the order of the index, so that the scan skips what is left out. If that is 100,000
        # deliveries, it takes 2 ms; a scan of an index by time takes 270 ms (2-core machine).
        due: Document = {
            "app_id": {"$gt": after_app, "$nin": list(except_apps)},
            "webhook_id": {"$nin": [ObjectId(id_) for id_ in except_webhooks]},
            "due_at": {"$lte": now},
        }
        async with self._deadline():
            while True:
                due["_id"] = {"$nin": self._malformed.ids()}
                try:
                    found = await self._deliveries.find_one_and_update(
                        due,
                        {"$set": {"due_at": until}, "$inc": {"attempts": Int64(1)}},
                        sort=_DUE_ORDER,
                        hint=schema.BY_DUE_DELIVERY,
                        return_document=ReturnDocument.AFTER,
                    )
                except OperationFailure as error:
                    if error.code not in _MALFORMED:
                        raise
                    await self._set_first_aside(due)
                    continue
                if found is None:
                    return None
                try:
                    return await self._claim_of(found)
                except ValidationError as error:
                    self._malformed.add(found["_id"], error)

    async def _set_first_aside(self, due: Document) -> None:
        # The error of an update has no id. If another process has taken the delivery since, a sound
        # one is left out here, and other processes send it.
        first = await self._deliveries.find_one(
            due, {"_id": 1}, sort=_DUE_ORDER, hint=schema.BY_DUE_DELIVERY
        )
        if first is not None:
            self._malformed.add(first["_id"])

    async def _claim_of(self, document: Document) -> Claim:
        delivery = DeliveryDocument.model_validate(document).to_delivery()
        webhook = await self._webhooks.find_one({"_id": document["webhook_id"]})
        return Claim(delivery, None if webhook is None else _webhook(webhook))

    async def delivered(self, delivery: Delivery) -> None:
        """Remove a delivery: see the port."""
        async with self._deadline():
            await self._deliveries.delete_one({"_id": ObjectId(delivery.id)})

    async def failed(
        self, delivery: Delivery, *, error: str, due_at: datetime | None, now: datetime
    ) -> None:
        """Store that an attempt has failed: see the port."""
        changed: Document = {"$set": {"error": error, "due_at": due_at}}
        if due_at is None:
            changed = {"$set": {"error": error, "failed_at": now}, "$unset": {"due_at": ""}}
        async with self._deadline():
            await self._deliveries.update_one({"_id": ObjectId(delivery.id)}, changed)

    async def dead_letters(
        self, app_id: int, *, after_id: str = "", limit: int
    ) -> Sequence[tuple[Delivery, Webhook]]:
        """Return the dead letters of an app: see the port."""
        webhooks = {webhook.id: webhook for webhook in await self.of_app(app_id)}
        query: Document = {
            "app_id": app_id,
            "failed_at": {"$exists": True},
            # Before the limit, so that a page has fewer dead letters only if no more follow.
            "webhook_id": {"$in": [ObjectId(id_) for id_ in webhooks]},
        }
        if ObjectId.is_valid(after_id):
            query["_id"] = {"$gt": ObjectId(after_id)}
        async with self._deadline():
            cursor = self._deliveries.find(query).hint(schema.BY_DEAD_LETTER)
            found = await cursor.sort("_id", ASCENDING).limit(limit).to_list(None)
            dead = [DeliveryDocument.model_validate(each).to_delivery() for each in found]
        return [(each, webhooks[each.webhook_id]) for each in dead]

    async def resend(self, app_id: int, id_: str, now: datetime) -> int:
        """Make dead letters due now: see the port."""
        query: Document = {"app_id": app_id, "failed_at": {"$exists": True}}
        if id_:
            if not ObjectId.is_valid(id_):
                return 0
            query["_id"] = ObjectId(id_)
        async with self._deadline():
            result = await self._deliveries.update_many(
                query,
                {"$set": {"due_at": now, "attempts": Int64(0)}, "$unset": {"failed_at": ""}},
                hint=schema.BY_DEAD_LETTER,
            )
        return result.matched_count

    async def remove_dead(self, time: datetime, limit: int) -> int:
        """Remove old dead letters: see the port."""
        old: Document = {"failed_at": {"$exists": True, "$lt": time}}
        async with self._deadline():
            cursor = self._deliveries.find(old, {"_id": 1}).hint(schema.BY_DEAD_LETTER)
            ids = [each["_id"] for each in await cursor.limit(limit).to_list(None)]
            if ids:
                # The time is compared again, because some may have been resent meanwhile.
                await self._deliveries.delete_many({"_id": {"$in": ids}, **old})
        return len(ids)

    async def backlog(self) -> Backlog:
        """Return what has not succeeded: see the port."""
        async with self._deadline():
            oldest = await self._deliveries.find_one(
                {"due_at": {"$exists": True}, "created_at": {"$lt": _LATEST}},
                {"created_at": 1},
                sort=[("created_at", ASCENDING)],
                hint=schema.BY_PENDING_AGE,
            )
            dead = await self._deliveries.count_documents(
                {"failed_at": {"$exists": True}}, hint=schema.BY_DEAD_LETTER
            )
        return Backlog(None if oldest is None else oldest["created_at"], dead)


def _webhook(document: Document | None) -> Webhook:
    return WebhookDocument.model_validate(document).to_webhook()
