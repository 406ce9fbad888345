"""The port of checkpoints, and the twin in memory.

The store keeps the signed notes of an app's latest checkpoints, and the trees of the latest few,
from which a server reads the proof for a user. A tree is stored in tiles: see `api.tiles`. A tree
is stored before its checkpoint, so a checkpoint that can be read has its tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

# How many checkpoints of an app are kept, and how many of them with their trees, which take 38
# bytes for each user. The contract names both numbers.
CHECKPOINTS_KEPT = 400
TREES_KEPT = 7


# A leaf in a tile: the user in 4 bytes, the length of the head in 1, and the head.
_USER_BYTES = 4

# A node above level 0.
HASH_BYTES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """Adjacent nodes of one level of a tree.

    Attributes:
        level: The level, 0 for leaves.
        index: The number of tiles of the level before it.
        first_user: The user of the first leaf; 0 above level 0.
        data: The leaves or hashes.
    """

    level: int
    index: int
    first_user: int = 0
    data: bytes

    @staticmethod
    def leaf(user_id: int, head: bytes) -> bytes:
        """Return the data of a leaf."""
        return user_id.to_bytes(_USER_BYTES, "big") + len(head).to_bytes(1, "big") + head

    def leaves(self) -> list[tuple[int, bytes]]:
        """Return the users and heads of a tile of level 0.

        Raises:
            ValueError: The data is cut off.
        """
        found, at = [], 0
        while at < len(self.data):
            begin = at + _USER_BYTES + 1
            user_id = int.from_bytes(self.data[at : at + _USER_BYTES], "big")
            at = begin + int.from_bytes(self.data[begin - 1 : begin], "big")
            found.append((user_id, self.data[begin:at]))
            if max(begin, at) > len(self.data):
                raise ValueError(f"leaf {len(found)} of a tile is cut off")
        return found


class TreeRemoved(Exception):
    """The tree of a checkpoint was removed after the checkpoint was read.

    Read the newest checkpoints again: there are newer ones, which have their trees.
    """

    def __init__(self, app_id: int, time: datetime) -> None:
        super().__init__(f"the tree of the checkpoint of app {app_id} of {time} was removed")


class StoredCheckpoint(NamedTuple):
    """A signed checkpoint of an app.

    Attributes:
        app_id: The app.
        time: The signed time, in whole milliseconds. An app has one checkpoint of a time.
        size: The number of leaves of its tree.
        note: The signed text.
    """

    app_id: int
    time: datetime
    size: int
    note: str


class Checkpoints(Protocol):
    """Keeps checkpoints."""

    async def add_tiles(self, app_id: int, time: datetime, tiles: Sequence[Tile]) -> None:
        """Store tiles of the tree of a checkpoint that is being made.

        Raises:
            StoreError: The tiles, or some of them, were not stored.
        """
        ...

    async def add(self, checkpoint: StoredCheckpoint) -> None:
        """Store a checkpoint whose tree is stored.

        Raises:
            StoreError: It was not stored, or it is unknown whether it was.
        """
        ...

    async def prune(self, app_id: int) -> None:
        """Remove the checkpoints and trees of an app that are kept no longer.

        Nothing is removed while there are fewer than are kept: a run that began before the oldest
        of them may still store its checkpoint, which is then one of the kept.

        Raises:
            StoreError: Not all of them were removed.
        """
        ...

    async def newest(self, app_id: int, limit: int) -> Sequence[StoredCheckpoint]:
        """Return the newest checkpoints of an app, by descending time.

        Args:
            app_id: The app.
            limit: The maximum number of checkpoints, at least 1. The first `TREES_KEPT` have trees.
        """
        ...

    async def tile(self, app_id: int, time: datetime, level: int, index: int) -> Tile:
        """Return a tile of a checkpoint's tree.

        Raises:
            TreeRemoved: The tree was removed after the checkpoint was read.
        """
        ...

    async def tile_of_user(self, app_id: int, time: datetime, user_id: int) -> Tile | None:
        """Return the last tile of leaves whose first user is this user or an earlier one.

        None: the user comes before all leaves of the tree, or the tree has no leaves.
        """
        ...


class MemoryCheckpoints:
    """Keeps checkpoints in this process."""

    def __init__(self) -> None:
        self._checkpoints: list[StoredCheckpoint] = []
        self._tiles: dict[tuple[int, datetime, int, int], Tile] = {}

    async def add_tiles(self, app_id: int, time: datetime, tiles: Sequence[Tile]) -> None:
        """Store tiles: see the port."""
        self._tiles |= {(app_id, time, each.level, each.index): each for each in tiles}

    async def add(self, checkpoint: StoredCheckpoint) -> None:
        """Store a checkpoint: see the port."""
        self._checkpoints.append(checkpoint)

    async def prune(self, app_id: int) -> None:
        """Remove what is kept no longer: see the port."""
        kept = await self.newest(app_id, CHECKPOINTS_KEPT)
        self._checkpoints = [each for each in self._checkpoints if each.app_id != app_id]
        self._checkpoints += kept
        if len(kept) < TREES_KEPT:
            return
        oldest = kept[TREES_KEPT - 1].time
        self._tiles = {
            key: tile for key, tile in self._tiles.items() if key[0] != app_id or key[1] >= oldest
        }

    async def newest(self, app_id: int, limit: int) -> Sequence[StoredCheckpoint]:
        """Return the newest checkpoints of an app: see the port."""
        found = [each for each in self._checkpoints if each.app_id == app_id]
        return sorted(found, key=lambda each: each.time, reverse=True)[:limit]

    async def tile(self, app_id: int, time: datetime, level: int, index: int) -> Tile:
        """Return a tile: see the port."""
        found = self._tiles.get((app_id, time, level, index))
        if found is None:
            raise TreeRemoved(app_id, time)
        return found

    async def tile_of_user(self, app_id: int, time: datetime, user_id: int) -> Tile | None:
        """Return the tile of a user: see the port."""
        tiles = [
            tile
            for key, tile in self._tiles.items()
            if key[:3] == (app_id, time, 0) and tile.first_user <= user_id
        ]
        return max(tiles, key=lambda tile: tile.first_user, default=None)
