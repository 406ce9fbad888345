"""A database that was lent is as new for the next test."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from credit_server.store import schema
from credit_server.store.driver import Database
from credit_testing.databases import MigratedDatabases
from pymongo import AsyncMongoClient


@pytest.fixture
def databases(mongod_uri: str) -> Iterator[MigratedDatabases]:
    with MigratedDatabases(mongod_uri) as databases:
        yield databases


@pytest.fixture
async def client(mongod_uri: str) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
    async with AsyncMongoClient[dict[str, Any]](mongod_uri) as client:
        yield client


async def _write(database: Database) -> None:
    await database[schema.LEASES].insert_one({"name": "x"}, bypass_document_validation=True)


async def _add_a_collection(database: Database) -> None:
    await database.create_collection("more")


async def _remove_an_index(database: Database) -> None:
    await database[schema.PURCHASES].drop_index(schema.BY_SEQUENCE)


async def _end_validation(database: Database) -> None:
    await database.command({"collMod": schema.PURCHASES, "validator": {}})


async def _start_the_profiler(database: Database) -> None:
    await database.command("profile", 2)


async def _replace_the_version(database: Database) -> None:
    await database[schema.VERSION].delete_many({})
    await _write(database)  # as many documents as before


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        (_write, True),
        (_add_a_collection, False),
        (_remove_an_index, False),
        (_end_validation, False),
        (_start_the_profiler, False),
        (_replace_the_version, True),
    ],
)
async def test_the_next_test_has_no_documents_and_the_same_schema(
    client: AsyncMongoClient[dict[str, Any]],
    databases: MigratedDatabases,
    change: Callable[[Database], Awaitable[None]],
    *,
    is_kept: bool,
) -> None:
    async with databases.lend() as first:
        await change(client[first])
    async with databases.lend() as name:
        assert (name == first) is is_kept
        database = client[name]
        assert await schema.verify(database) == []
        assert (await database.command("profile", -1))["was"] == 0
        collections = {*await database.list_collection_names()}
        assert collections == {*schema.DOCUMENTS}
        for each in collections - {schema.VERSION}:
            assert await database[each].count_documents({}) == 0, each
    names = await client.list_database_names()
    assert (first in names) is is_kept
    await client.drop_database(name)


async def test_databases_that_are_lent_at_once_differ(
    client: AsyncMongoClient[dict[str, Any]], databases: MigratedDatabases
) -> None:
    async with databases.lend() as one, databases.lend() as other:
        assert one != other
    for name in (one, other):
        await client.drop_database(name)
