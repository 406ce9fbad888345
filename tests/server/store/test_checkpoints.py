"""Checkpoints in both stores: what is kept, and proofs from trees of any size."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_models.checkpoint import Checkpoint, proven_head
from credit_models.merkle import MerkleTree
from credit_server.api import tiles
from credit_server.api.tiles import TILE_WIDTH, TileWriter, read_proof
from credit_server.store import checkpoints as port
from credit_server.store.checkpoints import Checkpoints, StoredCheckpoint, Tile, TreeRemoved
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Store, Unreadable
from pymongo import MongoClient

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def _head(user_id: int) -> bytes:
    return b"\x01" + user_id.to_bytes(32, "big")


async def _add(checkpoints: Checkpoints, app_id: int, time: datetime, size: int) -> Checkpoint:
    """Store a checkpoint of the users 2, 4, 6 and so on, and remove what is kept no longer."""
    stated = await _begin(checkpoints, app_id, time, size)
    await _end(checkpoints, stated)
    return stated


async def _begin(checkpoints: Checkpoints, app_id: int, time: datetime, size: int) -> Checkpoint:
    """Store the tree of a checkpoint."""
    tree, writer = MerkleTree(), TileWriter()
    for user_id in range(2, 2 * size + 1, 2):
        tree.add(user_id, _head(user_id))
        writer.add(user_id, _head(user_id))
        if user_id % 500 == 0:
            await checkpoints.add_tiles(app_id, time, writer.take())
    writer.end()
    await checkpoints.add_tiles(app_id, time, writer.take())
    return Checkpoint(app_id=app_id, size=size, root=tree.root(), time=time)


async def _end(checkpoints: Checkpoints, stated: Checkpoint) -> None:
    """Store a checkpoint whose tree is stored, and remove what is kept no longer."""
    await checkpoints.add(StoredCheckpoint(stated.app_id, stated.time, stated.size, stated.text))
    await checkpoints.prune(stated.app_id)


async def _head_of(checkpoints: Checkpoints, stated: Checkpoint, user_id: int) -> bytes | None:
    async def read(level: int, index: int) -> Tile:
        return await checkpoints.tile(stated.app_id, stated.time, level, index)

    near = await checkpoints.tile_of_user(stated.app_id, stated.time, user_id)
    return proven_head(stated, user_id, await read_proof(user_id, stated.size, near, read))


@pytest.mark.parametrize("size", [0, 1, 2, TILE_WIDTH, TILE_WIDTH + 1, 3 * TILE_WIDTH - 1])
async def test_each_user_is_proven_present_or_absent(store: Store, size: int) -> None:
    stated = await _add(store.checkpoints, 1, NOON, size)
    # The same users in another app, or at another time, are not part of the tree.
    await _add(store.checkpoints, 2, NOON, 3)
    await _add(store.checkpoints, 1, NOON - timedelta(days=1), 2)
    edge = 2 * TILE_WIDTH
    for user_id in {1, 2, 3, edge - 1, edge, edge + 1, edge + 2, 2 * size, 2 * size + 1, 2**32 - 1}:
        is_leaf = user_id % 2 == 0 and 0 < user_id <= 2 * size
        found = await _head_of(store.checkpoints, stated, user_id) if user_id else None
        assert found == (_head(user_id) if is_leaf else None)


async def test_a_tree_of_three_levels_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_WIDTH", 4)
    checkpoints = port.MemoryCheckpoints()
    for size in (*range(1, 18), 63, 64, 65, 70):
        stated = await _add(checkpoints, 1, NOON + timedelta(days=size), size)
        for user_id in range(1, 2 * size + 2):
            found = await _head_of(checkpoints, stated, user_id)
            assert found == (_head(user_id) if user_id % 2 == 0 else None)


@pytest.mark.parametrize("earlier", [0, 5, 6, 9])
async def test_a_run_that_ends_after_a_later_one_has_its_tree(store: Store, earlier: int) -> None:
    checkpoints = store.checkpoints
    for day in range(earlier):
        await _add(checkpoints, 1, NOON - timedelta(days=earlier - day), 1)
    slow = await _begin(checkpoints, 1, NOON, 3)
    quick = await _add(checkpoints, 1, NOON + timedelta(hours=1), 3)
    await _end(checkpoints, slow)
    for stated in (slow, quick):
        assert await _head_of(checkpoints, stated, 4) == _head(4)


async def test_each_tile_of_a_proof_is_read_once(store: Store) -> None:
    stated = await _add(store.checkpoints, 1, NOON, TILE_WIDTH + 1)
    near = await store.checkpoints.tile_of_user(1, NOON, 5)
    assert near is not None
    reads: list[tuple[int, int]] = []

    async def read(level: int, index: int) -> Tile:
        reads.append((level, index))
        return await store.checkpoints.tile(1, NOON, level, index)

    leaves = await read_proof(5, stated.size, near, read)
    assert ([leaf.user_id for leaf in leaves], reads) == ([4, 6], [(1, 0)])


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("cut", ["a byte", "a node"])
async def test_a_tile_that_is_cut_off_is_unreadable(
    mongod_uri: str, migrated_database: str, level: int, cut: str
) -> None:
    opened = MongoStore(mongod_uri, database=migrated_database)
    stated = await _add(opened.checkpoints, 1, NOON, TILE_WIDTH + 5)
    tile = await opened.checkpoints.tile(1, NOON, level, 0)
    node_bytes = len(Tile.leaf(2, _head(2))) if level == 0 else port.HASH_BYTES
    shorter = tile.data[: -1 if cut == "a byte" else -node_bytes]
    with MongoClient[dict[str, Any]](mongod_uri) as client:
        client[migrated_database]["checkpoint_tiles"].update_one(
            {"level": level, "index": 0}, {"$set": {"data": shorter}}
        )
    with pytest.raises(Unreadable):
        await _head_of(opened.checkpoints, stated, 4)
    await opened.close()


async def test_the_latest_are_kept_and_their_trees_for_a_shorter_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("credit_server.store.mongo_checkpoints._SLICE", 2)
    for module in ("checkpoints", "mongo_checkpoints"):
        monkeypatch.setattr(f"credit_server.store.{module}.CHECKPOINTS_KEPT", 4)
        monkeypatch.setattr(f"credit_server.store.{module}.TREES_KEPT", 2)
    checkpoints = store.checkpoints
    other = await _add(checkpoints, 2, NOON, 1)
    made = [await _add(checkpoints, 1, NOON + timedelta(days=day), 3) for day in range(6)]
    kept = await checkpoints.newest(1, 10)
    assert [each.note for each in kept] == [each.text for each in made[:1:-1]]
    assert [each.time for each in await checkpoints.newest(1, 1)] == [made[-1].time]
    for stated in made[-2:]:
        assert await _head_of(checkpoints, stated, 4) == _head(4)
    assert await checkpoints.tile_of_user(1, made[-3].time, 4) is None
    with pytest.raises(TreeRemoved):
        await checkpoints.tile(1, made[-3].time, 0, 0)
    assert await _head_of(checkpoints, other, 2) == _head(2)
    assert await checkpoints.newest(3, 10) == []
