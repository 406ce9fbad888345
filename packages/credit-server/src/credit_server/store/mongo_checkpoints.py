"""Checkpoints in MongoDB: see `checkpoints` for the port."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from bson.int64 import Int64
from pydantic import ValidationError
from pymongo import DESCENDING

from credit_server.store import schema
from credit_server.store.checkpoint_documents import CheckpointDocument, TileDocument
from credit_server.store.checkpoints import (
    CHECKPOINTS_KEPT,
    TREES_KEPT,
    StoredCheckpoint,
    Tile,
    TreeRemoved,
)
from credit_server.store.driver import Collection, Database, Document
from credit_server.store.errors import report, unreadable

# How many documents are removed at a time. A tree of 10 million users has 39,000 tiles, and to
# remove all of them at once can take longer than the time limit of an answer.
_SLICE = 1000


class MongoCheckpoints:
    """Keeps checkpoints in `checkpoints`, and their trees in `checkpoint_tiles`."""

    def __init__(
        self, database: Database, deadline: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            database: The database.
            deadline: Translates the driver's errors, and limits the time of an operation.
        """
        self._checkpoints = database[schema.CHECKPOINTS]
        self._tiles = database[schema.CHECKPOINT_TILES]
        self._deadline = deadline

    async def add_tiles(self, app_id: int, time: datetime, tiles: Sequence[Tile]) -> None:
        """Store tiles: see the port."""
        documents = [TileDocument.from_tile(app_id, time, tile).to_bson() for tile in tiles]
        if documents:
            async with self._deadline():
                await self._tiles.insert_many(documents)

    async def add(self, checkpoint: StoredCheckpoint) -> None:
        """Store a checkpoint: see the port."""
        document = CheckpointDocument.from_checkpoint(checkpoint).to_bson()
        async with self._deadline():
            await self._checkpoints.insert_one(document)

    async def prune(self, app_id: int) -> None:
        """Remove what is kept no longer: see the port.

        The tiles of an interrupted run are removed like those of a checkpoint of its time.
        """
        kept = await self.newest(app_id, CHECKPOINTS_KEPT)
        if len(kept) >= TREES_KEPT:
            await self._remove(self._tiles, app_id, kept[TREES_KEPT - 1].time)
        if len(kept) >= CHECKPOINTS_KEPT:
            await self._remove(self._checkpoints, app_id, kept[-1].time)

    async def _remove(self, collection: Collection, app_id: int, before: datetime) -> None:
        """Remove the documents of an app before a time, in slices of bounded duration."""
        query: Document = {"app_id": Int64(app_id), "time": {"$lt": before}}
        while True:
            async with self._deadline():
                found = await collection.find(query, {"_id": 1}).limit(_SLICE).to_list(None)
                if found:
                    ids = [each["_id"] for each in found]
                    await collection.delete_many({"_id": {"$in": ids}})
            if len(found) < _SLICE:
                return

    async def newest(self, app_id: int, limit: int) -> Sequence[StoredCheckpoint]:
        """Return the newest checkpoints of an app: see the port."""
        async with self._deadline():
            cursor = self._checkpoints.find({"app_id": app_id}).hint(schema.BY_APP_AND_CHECKPOINT)
            found = await cursor.sort("time", DESCENDING).limit(limit).to_list(None)
        try:
            return [CheckpointDocument.model_validate(each).to_checkpoint() for each in found]
        except ValidationError as error:
            fault = unreadable(error, app_ids=[app_id])
            report(fault)
            raise fault from error

    async def tile(self, app_id: int, time: datetime, level: int, index: int) -> Tile:
        """Return a tile: see the port."""
        found = await self._tile({"app_id": app_id, "time": time, "level": level, "index": index})
        if found is None:
            raise TreeRemoved(app_id, time)
        return found

    async def tile_of_user(self, app_id: int, time: datetime, user_id: int) -> Tile | None:
        """Return the tile of a user: see the port."""
        return await self._tile(
            {"app_id": app_id, "time": time, "first_user": {"$lte": user_id}},
            sort=[("first_user", DESCENDING)],
        )

    async def _tile(
        self, query: Document, sort: Sequence[tuple[str, int]] | None = None
    ) -> Tile | None:
        async with self._deadline():
            found = await self._tiles.find_one(query, sort=sort)
            return None if found is None else TileDocument.model_validate(found).to_tile()
