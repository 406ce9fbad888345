"""Reuse migrated databases in tests: to empty one takes a tenth of the CPU of a migration."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from credit_server.store import migration, schema
from credit_server.store.driver import Database
from pymongo import AsyncMongoClient


class MigratedDatabases:
    """The migrated databases of one replica set; each is lent to one test at a time."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._schemas: dict[str, object] = {}
        self._free: list[str] = []

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[str]:
        """Yield the name of a migrated database without documents.

        Afterwards it is emptied for the next test. It is dropped if the test has added or removed a
        collection or an index, changed a validator or the version, or left the profiler on.
        """
        name = self._free.pop() if self._free else await self._migrated()
        try:
            yield name
        finally:
            client: AsyncMongoClient[dict[str, Any]]
            async with AsyncMongoClient(self._uri) as client:
                if await _schema(client[name]) == self._schemas[name]:
                    await _empty(client[name])
                    self._free.append(name)
                else:
                    await client.drop_database(name)

    async def _migrated(self) -> str:
        name = f"test_{uuid4().hex}"
        client: AsyncMongoClient[dict[str, Any]]
        async with AsyncMongoClient(self._uri) as client:
            await migration.migrate(client[name])
            await _empty(client[name])  # of the lease of the migration
            self._schemas[name] = await _schema(client[name])
        return name


async def _schema(database: Database) -> object:
    """Return the properties that a test must not change, for a comparison."""
    profiler = await database.command("profile", -1)  # -1: return the level alone
    collections = {entry["name"]: entry async for entry in await database.list_collections()}
    indexes = (await database.command("dbStats"))["indexes"]
    return profiler["was"], collections, indexes, await database[schema.VERSION].find_one()


async def _empty(database: Database) -> None:
    if (await database.command("dbStats"))["objects"] == 1:
        return  # the version of the schema
    for name in await database.list_collection_names():
        if name != schema.VERSION:
            await database[name].delete_many({})
