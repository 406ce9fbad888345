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
from credit_server.store.driver import Database, Document
from credit_server.store.errors import report, unreadable


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
        """Store a checkpoint: see the port.

        The tiles of an interrupted run are removed like those of a checkpoint of the same time.
        """
        document = CheckpointDocument.from_checkpoint(checkpoint).to_bson()
        async with self._deadline():
            await self._checkpoints.insert_one(document)
        kept = await self.newest(checkpoint.app_id, CHECKPOINTS_KEPT)
        of_app: Document = {"app_id": Int64(checkpoint.app_id)}
        async with self._deadline():
            await self._tiles.delete_many({**of_app, "time": {"$lt": kept[:TREES_KEPT][-1].time}})
            await self._checkpoints.delete_many({**of_app, "time": {"$lt": kept[-1].time}})

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
