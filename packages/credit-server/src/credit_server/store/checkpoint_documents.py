"""The documents of checkpoints and of their trees."""

from datetime import datetime
from typing import Annotated, Self

from bson.objectid import ObjectId
from pydantic import Field, model_validator

from credit_server.store.checkpoints import HASH_BYTES, StoredCheckpoint, Tile
from credit_server.store.fields import Credits, Document, Long, Number

_Index = Annotated[Long, Field(ge=0)]


class CheckpointDocument(Document):
    """`checkpoints`: a signed checkpoint of an app."""

    id: ObjectId | None = Field(default=None, alias="_id")
    app_id: Number
    time: datetime
    size: Credits
    note: Annotated[str, Field(min_length=1, max_length=4096)]

    @classmethod
    def from_checkpoint(cls, checkpoint: StoredCheckpoint) -> "CheckpointDocument":
        """Translate from the port. The store sets the id."""
        return cls(
            app_id=checkpoint.app_id,
            time=checkpoint.time,
            size=checkpoint.size,
            note=checkpoint.note,
        )

    def to_checkpoint(self) -> StoredCheckpoint:
        """Translate to the port."""
        return StoredCheckpoint(app_id=self.app_id, time=self.time, size=self.size, note=self.note)


class TileDocument(Document):
    """`checkpoint_tiles`: adjacent nodes of a level of a checkpoint's tree."""

    id: ObjectId | None = Field(default=None, alias="_id")
    app_id: Number
    time: datetime
    level: _Index
    index: _Index
    # Not set above level 0.
    first_user: Number | None = None
    data: bytes

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.level == 0:
            self.to_tile().leaves()
        elif len(self.data) % HASH_BYTES:
            raise ValueError("a hash of a tile is cut off")
        return self

    @classmethod
    def from_tile(cls, app_id: int, time: datetime, tile: Tile) -> "TileDocument":
        """Translate from the port. The store sets the id."""
        return cls(
            app_id=app_id,
            time=time,
            level=tile.level,
            index=tile.index,
            first_user=tile.first_user or None,
            data=tile.data,
        )

    def to_tile(self) -> Tile:
        """Translate to the port."""
        return Tile(
            level=self.level, index=self.index, first_user=self.first_user or 0, data=self.data
        )
