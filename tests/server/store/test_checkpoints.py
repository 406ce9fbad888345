"""Checkpoints in both stores: what is kept, and proofs from trees of any size."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from credit_models.checkpoint import Checkpoint, proven_head
from credit_models.merkle import MerkleTree
from credit_server.api import tiles
from credit_server.api.tiles import TILE_WIDTH, TileWriter, read_proof
from credit_server.store import checkpoints as port
from credit_server.store.checkpoints import Checkpoints, StoredCheckpoint, Tile, TreeRemoved
from credit_server.store.driver import Driver
from credit_server.store.memory import MemoryStore
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Store

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", *Driver])
async def store(
    request: pytest.FixtureRequest, mongod_uri: str, migrated_database: str
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    opened = MongoStore(mongod_uri, database=migrated_database, driver=request.param)
    yield opened
    await opened.close()


def _head(user_id: int) -> bytes:
    return b"\x01" + user_id.to_bytes(32, "big")


async def _add(checkpoints: Checkpoints, app_id: int, time: datetime, size: int) -> Checkpoint:
    """Store a checkpoint of the users 2, 4, 6 and so on."""
    tree, writer = MerkleTree(), TileWriter()
    for user_id in range(2, 2 * size + 1, 2):
        tree.add(user_id, _head(user_id))
        writer.add(user_id, _head(user_id))
        if user_id % 500 == 0:
            await checkpoints.add_tiles(app_id, time, writer.take())
    writer.end()
    await checkpoints.add_tiles(app_id, time, writer.take())
    stated = Checkpoint(app_id=app_id, size=size, root=tree.root(), time=time)
    await checkpoints.add(StoredCheckpoint(app_id, time, size, stated.text))
    return stated


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


async def test_the_latest_are_kept_and_their_trees_for_a_shorter_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
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
