"""The tree of a checkpoint in tiles: each has up to 256 adjacent nodes of one level.

A tile of level 0 has leaves: users with their heads. The roots of the tiles of a level are the
nodes of the next level, and the last level has one tile. So the audit path of one leaf among
millions is read from a few small tiles, one for each level.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from credit_models.checkpoint import Leaf, proof_indexes
from credit_models.merkle import audit_path, leaf_hash

from credit_server.store.checkpoints import HASH_BYTES, Tile
from credit_server.store.errors import report
from credit_server.store.port import Unreadable

TILE_WIDTH = 256


@dataclass(slots=True)
class _Level:
    """The nodes of a level that are in no tile yet.

    Attributes:
        data: The leaves or hashes.
        nodes: The number of these nodes.
        first_user: The user of the first leaf.
        tiles: The number of complete tiles.
    """

    data: bytearray = field(default_factory=bytearray)
    nodes: int = 0
    first_user: int = 0
    tiles: int = 0


class TileWriter:
    """Makes the tiles of a tree while its leaves are added. Memory holds one tile of each level."""

    def __init__(self) -> None:
        self._levels = [_Level()]
        self._made: list[Tile] = []

    def add(self, user_id: int, head: bytes) -> None:
        """Add a leaf."""
        if not self._levels[0].nodes:
            self._levels[0].first_user = user_id
        self._append(0, Tile.leaf(user_id, head))

    def end(self) -> None:
        """Make the last tile of each level, after the last leaf."""
        level = 0
        while level < len(self._levels):
            # The only node of a level is the root of the tree.
            if self._levels[level].nodes and (level == 0 or self._count(level) > 1):
                self._close(level)
            level += 1

    def take(self) -> Sequence[Tile]:
        """Return the tiles that were made since the last call."""
        made, self._made = self._made, []
        return made

    def _count(self, level: int) -> int:
        return self._levels[level].tiles * TILE_WIDTH + self._levels[level].nodes

    def _append(self, level: int, data: bytes) -> None:
        if level == len(self._levels):
            self._levels.append(_Level())
        self._levels[level].data += data
        self._levels[level].nodes += 1
        if self._levels[level].nodes == TILE_WIDTH:
            self._close(level)

    def _close(self, level: int) -> None:
        """Make a tile of the open nodes of a level, and add its root to the next level."""
        open_ = self._levels[level]
        tile = Tile(
            level=level,
            index=open_.tiles,
            first_user=open_.first_user,
            data=bytes(open_.data),
        )
        self._made.append(tile)
        self._levels[level] = _Level(tiles=open_.tiles + 1)
        self._append(level + 1, audit_path(_nodes(tile), 0)[1])


# Reads a tile by its level and its index.
ReadTile = Callable[[int, int], Awaitable[Tile]]


async def read_proof(user_id: int, size: int, near: Tile | None, read: ReadTile) -> list[Leaf]:
    """Return the leaf of a user or, if there is none, the leaves before and after the user.

    Args:
        user_id: The user.
        size: The number of leaves of the tree.
        near: The last tile of leaves that begins with this user or an earlier one; None: there is
            none.
        read: Reads another tile. Each is read once.

    Raises:
        Unreadable: A tile does not have the number of nodes that it should have.
    """
    first, users = 0, list[int]()
    tiles = dict[tuple[int, int], Tile]()
    if near is not None:
        first, users = near.index * TILE_WIDTH, [user for user, _ in near.leaves()]
        tiles[0, near.index] = near

    async def read_once(level: int, index: int) -> Tile:
        if (level, index) not in tiles:
            tiles[level, index] = await read(level, index)
        return tiles[level, index]

    indexes = proof_indexes(user_id, users, first=first, size=size)
    return [await _read_leaf(index, size, read_once) for index in indexes]


async def _read_leaf(index: int, size: int, read: ReadTile) -> Leaf:
    path: list[bytes] = []
    level, position, nodes = 0, index, size
    user_id, head = 0, b""
    while level == 0 or nodes > 1:
        tile = await read(level, position // TILE_WIDTH)
        hashes = _nodes(tile)
        expected = min(TILE_WIDTH, nodes - position // TILE_WIDTH * TILE_WIDTH)
        if len(hashes) != expected:
            fault = Unreadable(
                f"tile {tile.index} of level {level} of a checkpoint has {len(hashes)} nodes"
                f" instead of {expected}: make a new checkpoint"
            )
            report(fault)
            raise fault
        if level == 0:
            user_id, head = tile.leaves()[position % TILE_WIDTH]
        path += audit_path(hashes, position % TILE_WIDTH)[0]
        level, position, nodes = level + 1, position // TILE_WIDTH, math.ceil(nodes / TILE_WIDTH)
    return Leaf(user_id=user_id, head=head, index=index, path=path)


def _nodes(tile: Tile) -> list[bytes]:
    """Return the hashes of the nodes of a tile."""
    if tile.level == 0:
        return [leaf_hash(*each) for each in tile.leaves()]
    data = tile.data
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
