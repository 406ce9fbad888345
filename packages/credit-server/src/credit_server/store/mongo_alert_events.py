"""The events of alerts in MongoDB: see `alert_events` for the port."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from itertools import takewhile

from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import UINT32_MAX, AlertEvent
from pydantic import ValidationError
from pymongo import ASCENDING, DESCENDING, UpdateOne
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from credit_server.store import schema
from credit_server.store.alert_documents import AlertEventDocument, RemovedEventsDocument
from credit_server.store.alert_events import (
    EventGap,
    EventPage,
    EventsRemoved,
    OrderedEvent,
    PositionUnknown,
)
from credit_server.store.documents import event_gaps
from credit_server.store.driver import Clients, Collection, Database, Document, Session
from credit_server.store.errors import INVALID_DOCUMENT, report
from credit_server.store.mongo_webhooks import MongoWebhooks
from credit_server.store.port import Conflict, StoreUnavailable, Unreadable
from credit_server.store.queries import STALE_READ
from credit_server.store.set_aside import SetAside

_DUPLICATE_KEY = 11000

# The greatest position after which another one can be assigned. Other values are no positions.
_POSITION_MAX = 2**63 - 2


class MongoAlertEvents:
    """Orders and reads the events of `alert_events`."""

    def __init__(
        self,
        clients: Clients,
        database: Database,
        webhooks: MongoWebhooks,
        deadline: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            clients: The clients of the database.
            database: The database, whose read concern is majority.
            webhooks: Receives the ordered events.
            deadline: Translates the driver's errors, and limits the time of an operation.
        """
        self._clients = clients
        self._events = database[schema.ALERT_EVENTS]
        self._confirmed = self._events.with_options(read_concern=ReadConcern("linearizable"))
        self._removed = database[schema.REMOVED_EVENTS]
        self._version = database[schema.VERSION]
        self._webhooks = webhooks
        self._deadline = deadline
        self._malformed = SetAside("event of an alert")

    async def order(self, limit: int) -> int:
        """Give positions to events: see the port.

        Positions have no gap, although several processes may order events at once. The last
        position is read first. Only an import adds a gap, and no server runs then. So an event that
        is found without a position gets a greater position than the last one, from this process or
        from another. Events are updated one by one, and the unique index rejects a position that
        another event has. When this process updates the n-th event that it found, the n - 1 events
        before it have positions after the last one. So the position for the n-th event follows
        these without a gap, or another event has it. Events that cannot be read are left out.
        """
        waiting: Document = {"unordered": True, "_id": {"$nin": self._malformed.ids()}}
        async with self._deadline():
            # The usual case. The read takes an index that is empty then.
            if await self._events.find_one(waiting, {"_id": 1}, hint=schema.BY_UNORDERED) is None:
                return 0
            positions = [await newest_position(self._events) + 1]
            positions += [gap.next for gap in await self._gaps()]
            first = max(positions)
            cursor = self._events.find(waiting).hint(schema.BY_UNORDERED)
            cursor = cursor.sort([("created_at", ASCENDING), ("sequence", ASCENDING)])
            found = await cursor.limit(limit).to_list(None)
            events = self._readable(found)
            if events:
                await self._webhooks.enqueue([event for _, event in events])
                await self._set_positions([id_ for id_, _ in events], first)
        return len(found)

    async def _gaps(self, session: Session | None = None) -> list[EventGap]:
        return event_gaps(await self._version.find_one({"_id": "credit"}, session=session))

    def _readable(self, documents: Sequence[Document]) -> list[tuple[ObjectId, AlertEvent]]:
        """Return the events that can be read, and set the others aside."""
        events: list[tuple[ObjectId, AlertEvent]] = []
        for document in documents:
            try:
                event = AlertEventDocument.model_validate(document).to_event()
            except ValidationError as error:
                self._malformed.add(document["_id"], error)
            else:
                events.append((document["_id"], event))
        return events

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
            (fault,) = error.details["writeErrors"] or [{"code": 0}]
            if fault["code"] == _DUPLICATE_KEY:
                raise Conflict("another process has ordered the events") from error
            if fault["code"] != INVALID_DOCUMENT:
                raise
            # The events before it have positions. The next call orders those after it, from the
            # position that is the next one then.
            self._malformed.add(ids[fault["index"]])

    async def newest(self) -> int:
        """Return the greatest position: see the port."""
        async with self._deadline():
            return await newest_position(self._events)

    async def since(self, position: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return the position and the app of later events: see the port."""
        async with self._deadline():
            cursor = self._events.find(
                {"position": {"$gt": position}, "app_id": {"$type": "long"}},
                {"_id": 0, "position": 1, "app_id": 1},
            ).hint(schema.BY_POSITION)
            found = await cursor.sort("position", ASCENDING).limit(limit).to_list(None)
        return [(each["position"], each["app_id"]) for each in found]

    async def page(
        self, app_id: int, user_id: int | None = None, *, after_position: int = 0, limit: int
    ) -> EventPage:
        """Return events of an app: see the port."""
        query: Document = {"app_id": app_id, "position": {"$gt": after_position}}
        index = schema.BY_APP_AND_POSITION
        if user_id is not None:
            query["user_id"] = user_id
            index = schema.BY_USER_AND_POSITION
        async with self._deadline(), self._clients.causal() as session:
            # Read before the events, so that all events up to this position are among them.
            newest = await newest_position(self._events, session)
            if after_position > newest:
                await self._check_known(after_position)
            cursor = self._events.find(query, session=session).hint(index)
            cursor = cursor.sort("position", ASCENDING).limit(limit)
            documents = await cursor.batch_size(limit + 1).to_list(None)
            # Read after the events. The position is stored before events are removed, so a read
            # that misses a removed event finds its position here.
            removed = await self._removed_until(app_id, session) if after_position else 0
            if after_position < removed:
                raise EventsRemoved(removed)
            if 0 < after_position < newest:
                await self._check_in_no_gap(after_position, session)
            events = [AlertEventDocument.model_validate(document) for document in documents]
        ordered = [OrderedEvent(event.position or 0, event.to_event()) for event in events]
        return EventPage(ordered, max(newest, ordered[-1].position if ordered else 0))

    async def _check_known(self, position: int) -> None:
        """Reject a read after a position that was not found.

        An earlier read may have returned the position, and the present one may miss it because the
        primary has just changed. A linearizable read misses nothing that any read has returned. It
        waits for a majority, so it is not used for each page.
        """
        newest = await newest_position(self._confirmed)
        if position > newest:
            raise PositionUnknown(newest)
        raise StoreUnavailable(STALE_READ)

    async def _check_in_no_gap(self, position: int, session: Session) -> None:
        """Reject a read after a position in a gap.

        Gaps overlap if the last import was of a backup from before the other imports. Then none of
        their events is left.
        """
        gaps = await self._gaps(session)
        last = [gap.last for gap in gaps if gap.last < position < gap.next]
        if last:
            raise PositionUnknown(min(last))

    async def _removed_until(self, app_id: int, session: Session) -> int:
        found = await self._removed.find_one({"_id": app_id}, session=session)
        return 0 if found is None else RemovedEventsDocument.model_validate(found).position

    async def remove_before(self, time: datetime, limit: int) -> int:
        """Remove the oldest events: see the port."""
        async with self._deadline():
            cursor = self._events.find(
                {"position": {"$gt": 0, "$lt": await newest_position(self._events)}},
                {"_id": 0, "position": 1, "app_id": 1, "created_at": 1},
            ).hint(schema.BY_POSITION)
            oldest = await cursor.sort("position", ASCENDING).limit(limit).to_list(None)
            old = [*takewhile(lambda event: not _is_since(event, time), oldest)]
            if not old:
                return 0
            # Of the events of an app, the last one has the greatest position.
            removed = {
                event["app_id"]: event["position"] for event in old if _can_be_recorded(event)
            }
            if removed:
                await self._record_removed(removed)
            # Nothing is added before the last of them, so these are the events that were found.
            await self._events.delete_many(
                {"position": {"$gt": 0, "$lte": old[-1]["position"]}}, hint=schema.BY_POSITION
            )
        return len(old)

    async def _record_removed(self, positions: Mapping[int, int]) -> None:
        """Store the position of the last removed event of each app.

        A malformed document is replaced: all events that were removed before have smaller
        positions.
        """
        updates = [
            UpdateOne({"_id": app_id}, [{"$replaceWith": _removed_until(position)}], upsert=True)
            for app_id, position in positions.items()
        ]
        try:
            await self._removed.bulk_write(updates, ordered=False)
        except BulkWriteError as error:
            # If no document is malformed, the write concern failed.
            faults = error.details["writeErrors"]
            if not faults or any(fault["code"] != INVALID_DOCUMENT for fault in faults):
                raise
            # The `_id` has another type, and cannot be changed. Readers of this app are rejected,
            # because they cannot read the document either. The events of other apps are removed.
            apps = [[*positions][fault["index"]] for fault in faults]
            report(Unreadable("the document of removed events is not valid", app_ids=apps))


def _removed_until(position: int) -> Document:
    """Return the new document of removed events of an app, as an expression."""
    earlier = {"$cond": [{"$eq": [{"$type": "$position"}, "long"]}, "$position", Int64(0)]}
    return {"_id": "$_id", "position": {"$max": [earlier, Int64(position)]}}


async def newest_position(events: Collection, session: Session | None = None) -> int:
    """Return the greatest position in `alert_events`; 0 if there is none."""
    last = await events.find_one(
        {"position": {"$gt": 0, "$lte": Int64(_POSITION_MAX)}},
        {"position": 1},
        sort=[("position", DESCENDING)],
        hint=schema.BY_POSITION,
        session=session,
    )
    return 0 if last is None else int(last["position"])


def _is_since(event: Document, time: datetime) -> bool:
    """Return whether an event was created at a time or later.

    An event without a valid time is removed with those before it, which are older. Otherwise it
    would keep all later events.
    """
    created_at = event.get("created_at")
    return isinstance(created_at, datetime) and created_at >= time


def _can_be_recorded(event: Document) -> bool:
    """Return whether a reader can have read up to the event: no page has the other ones."""
    app_id = event.get("app_id")
    is_app = isinstance(app_id, Int64) and 1 <= app_id <= UINT32_MAX
    return is_app and isinstance(event["position"], int)
