"""The events of alerts in MongoDB: see `alert_events` for the port."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from itertools import takewhile

from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import AlertEvent
from pymongo import ASCENDING, DESCENDING, UpdateOne
from pymongo.errors import BulkWriteError

from credit_server.store import schema
from credit_server.store.alert_documents import AlertEventDocument, RemovedEventsDocument
from credit_server.store.alert_events import EventsRemoved, OrderedEvent
from credit_server.store.driver import Database, Document
from credit_server.store.errors import readable
from credit_server.store.mongo_webhooks import MongoWebhooks
from credit_server.store.port import Conflict

_DUPLICATE_KEY = 11000


class MongoAlertEvents:
    """Orders and reads the events of `alert_events`."""

    def __init__(
        self,
        database: Database,
        webhooks: MongoWebhooks,
        deadline: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            database: The database.
            webhooks: Receives the ordered events.
            deadline: Translates the driver's errors, and limits the time of an operation.
        """
        self._events = database[schema.ALERT_EVENTS]
        self._removed = database[schema.REMOVED_EVENTS]
        self._webhooks = webhooks
        self._deadline = deadline

    async def order(self, limit: int) -> int:
        """Give positions to events: see the port.

        Positions have no gap, although several processes may order events at once. The last
        position is read first. So an event that was found without a position gets a greater one,
        from this process or from another. Events are updated one by one, and the unique index
        rejects a position that is taken. When this process comes to its n-th event, n - 1 of
        the events that it found have a position after the last one, so the next position is free
        and follows them, or is taken.
        """
        async with self._deadline():
            # The usual case. The read takes an index that is empty then.
            if await self._events.find_one({"unordered": True}, {"_id": 1}) is None:
                return 0
            first = await self._newest() + 1
            cursor = self._events.find({"unordered": True}).hint(schema.BY_UNORDERED)
            cursor = cursor.sort([("created_at", ASCENDING), ("sequence", ASCENDING)])
            found = await cursor.limit(limit).to_list(None)
            if not found:  # another process has ordered them
                return 0
            events = readable(found, _event)
            await self._webhooks.enqueue(events)
            await self._set_positions([event["_id"] for event in found], first)
        return len(found)

    async def _set_positions(self, ids: Sequence[ObjectId], first: int) -> None:
        updates = [
            UpdateOne(
                {"_id": id_, "unordered": True},
                {"$set": {"position": Int64(position)}, "$unset": {"unordered": ""}},
            )
            for position, id_ in enumerate(ids, first)
        ]
        try:
            await self._events.bulk_write(updates)
        except BulkWriteError as error:
            # The updates stop at the first one that fails. Without one, the write concern failed.
            faults = error.details["writeErrors"]
            if not faults or faults[0]["code"] != _DUPLICATE_KEY:
                raise
            raise Conflict("another process has ordered the events") from error

    async def newest(self) -> int:
        """Return the greatest position: see the port."""
        async with self._deadline():
            return await self._newest()

    async def _newest(self) -> int:
        last = await self._events.find_one(
            {"position": {"$exists": True}},
            {"position": 1},
            sort=[("position", DESCENDING)],
            hint=schema.BY_POSITION,
        )
        return 0 if last is None else int(last["position"])

    async def since(self, position: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return the position and the app of later events: see the port."""
        async with self._deadline():
            cursor = self._events.find(
                {"position": {"$gt": position}}, {"_id": 0, "position": 1, "app_id": 1}
            ).hint(schema.BY_POSITION)
            found = await cursor.sort("position", ASCENDING).limit(limit).to_list(None)
        return [(each["position"], each["app_id"]) for each in found]

    async def page(
        self, app_id: int, user_id: int | None = None, *, after_position: int = 0, limit: int
    ) -> Sequence[OrderedEvent]:
        """Return events of an app: see the port."""
        query: Document = {"app_id": app_id, "position": {"$gt": after_position}}
        index = schema.BY_APP_AND_POSITION
        if user_id is not None:
            query["user_id"] = user_id
            index = schema.BY_USER_AND_POSITION
        async with self._deadline():
            cursor = self._events.find(query).hint(index).sort("position", ASCENDING)
            documents = await cursor.limit(limit).batch_size(limit + 1).to_list(None)
            # Read after the events. The position is stored before events are removed, so a read
            # that misses a removed event finds its position here.
            removed = await self._removed_until(app_id) if after_position else 0
            if after_position < removed:
                raise EventsRemoved(removed)
            events = [AlertEventDocument.model_validate(document) for document in documents]
        return [OrderedEvent(event.position or 0, event.to_event()) for event in events]

    async def _removed_until(self, app_id: int) -> int:
        found = await self._removed.find_one({"_id": app_id})
        return 0 if found is None else RemovedEventsDocument.model_validate(found).position

    async def remove_before(self, time: datetime, limit: int) -> int:
        """Remove the oldest events: see the port."""
        async with self._deadline():
            cursor = self._events.find(
                {"position": {"$lt": await self._newest()}},
                {"_id": 0, "position": 1, "app_id": 1, "created_at": 1},
            ).hint(schema.BY_POSITION)
            oldest = await cursor.sort("position", ASCENDING).limit(limit).to_list(None)
            old = [*takewhile(lambda event: event["created_at"] < time, oldest)]
            if not old:
                return 0
            # Of the events of an app, the last one has the greatest position.
            removed = {event["app_id"]: event["position"] for event in old}
            await self._removed.bulk_write(
                [
                    UpdateOne({"_id": app_id}, {"$max": {"position": Int64(position)}}, upsert=True)
                    for app_id, position in removed.items()
                ]
            )
            # No event is added before the last of them, so this removes only the events found.
            await self._events.delete_many({"position": {"$lte": old[-1]["position"]}})
        return len(old)


def _event(document: Document) -> AlertEvent:
    return AlertEventDocument.model_validate(document).to_event()
