"""Test the directory of users: what both stores promise, also to servers that share a database."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from bson.int64 import Int64
from credit_models.ledger import UINT32_MAX
from credit_server.commit.committer import Committer
from credit_server.store import schema
from credit_server.store.driver import Driver
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Conflict, DirectoryUser, Store, StoreMisconfigured
from pymongo import AsyncMongoClient

from tests.server.commit.scripted_store import add
from tests.server.store.profiler import profiled_reads

USER = DirectoryUser(
    user_id=10, app_id=1, external_id="u-7", created_at=datetime(2026, 1, 2, tzinfo=UTC)
)


async def test_a_user_is_found_by_the_number_and_by_the_external_id(store: Store) -> None:
    assert await store.add_user(USER) == USER
    assert await store.find_user(10) == await store.find_user((1, "u-7")) == USER
    for absent in (11, (1, "U-7"), (1, "u-77"), (2, "u-7")):
        assert await store.find_user(absent) is None


async def test_an_external_id_keeps_its_first_number(store: Store) -> None:
    await store.add_user(USER)
    assert await store.add_user(replace(USER, user_id=11)) == USER
    assert await store.find_user(11) is None


async def test_another_app_can_have_the_same_external_id(store: Store) -> None:
    await store.add_user(USER)
    other = replace(USER, user_id=11, app_id=2)
    assert await store.add_user(other) == other
    assert await store.find_user((1, "u-7")) == USER


async def test_a_number_is_given_to_one_user(store: Store) -> None:
    await store.add_user(USER)
    with pytest.raises(Conflict):
        await store.add_user(replace(USER, external_id="u-8"))
    assert await store.find_user((1, "u-8")) is None


async def test_numbers_ascend_and_never_come_twice(store: Store) -> None:
    assert [await store.next_user_id(5) for _ in range(3)] == [5, 6, 7]
    assert await store.next_user_id(2) == 8
    assert await store.next_user_id(20) == 20
    numbers = await asyncio.gather(*(store.next_user_id(20) for _ in range(20)))
    assert sorted(filter(None, numbers)) == list(range(21, 41))


async def test_a_number_with_credits_is_skipped(store: Store) -> None:
    async with Committer(store) as committer:
        for user_id in (6, 7, UINT32_MAX):
            await committer.submit(add(store, user=user_id))
    assert [await store.next_user_id(5) for _ in range(2)] == [5, 8]
    assert await store.next_user_id(UINT32_MAX) is None


@pytest.mark.parametrize("store", Driver, indirect=True)
async def test_credits_of_a_new_number_are_not_read_from_an_old_primary(
    store: MongoStore, mongod_uri: str, migrated_database: str
) -> None:
    """The read waits until the node has the write of the number."""
    with profiled_reads(mongod_uri, migrated_database) as reads:
        await store.next_user_id(5)
    (read,) = reads
    assert "afterClusterTime" in read["readConcern"]


async def test_numbers_end_with_the_greatest(store: Store) -> None:
    assert await store.next_user_id(UINT32_MAX) == UINT32_MAX
    assert [await store.next_user_id(1) for _ in range(3)] == [None] * 3


async def test_an_external_id_can_have_any_character(store: Store) -> None:
    names = ["$set", "a.b", "ß", "ss", "Zoë", "x" * 128, "é" * 128]
    users = [replace(USER, user_id=20 + at, external_id=name) for at, name in enumerate(names)]
    for user in users:
        assert await store.add_user(user) == user
    assert [await store.find_user((1, name)) for name in names] == users


async def test_servers_that_add_a_user_at_once_get_one_number(
    mongod_uri: str, migrated_database: str
) -> None:
    stores = [MongoStore(mongod_uri, database=migrated_database) for _ in range(2)]
    added = await asyncio.gather(
        *(
            stores[number % 2].add_user(replace(USER, user_id=1 + number, external_id=f"u-{name}"))
            for number, name in enumerate(sorted([*range(5)] * 8))
        )
    )
    assert len({(user.user_id, user.external_id) for user in added}) == 5
    for user in added:
        assert await stores[0].find_user((1, user.external_id)) == user
        assert await stores[1].find_user(user.user_id) == user
    for one in stores:
        await one.close()


async def test_a_database_of_0_3_0_gets_the_directory_by_a_migration(
    mongod_uri: str, database: str
) -> None:
    store = MongoStore(mongod_uri, database=database)
    await store.migrate()
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        for name in (schema.DIRECTORY, schema.COUNTERS):
            await client[database].drop_collection(name)
        await client[database][schema.VERSION].update_one({}, {"$set": {"version": Int64(3)}})
    with pytest.raises(StoreMisconfigured) as refused:
        await store.verify_schema()
    for difference in ("has version 3", "collection directory is", "collection counters is"):
        assert difference in str(refused.value)
    await store.migrate()
    await store.verify_schema()
    await store.close()
