"""Reuse migrated databases in tests: to empty one takes a tenth of the CPU of a migration."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self
from uuid import uuid4

from credit_server.store import migration, schema
from pymongo import AsyncMongoClient, MongoClient, WriteConcern
from pymongo.database import Database

# A transaction that a test has left open blocks a deletion, and may need the event loop to end.
_TIMEOUT_MILLISECONDS = 30_000


class MigratedDatabases:
    """The migrated databases of one replica set; each is lent to one test at a time.

    One synchronous client serves all tests. It blocks the event loop for the few milliseconds of a
    command, but takes a third of the CPU time of a new asynchronous client in each test.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: MongoClient[dict[str, Any]] = MongoClient(
            uri, timeoutMS=_TIMEOUT_MILLISECONDS
        )
        self._schemas: dict[str, object] = {}
        self._versions: dict[str, list[dict[str, Any]]] = {}
        self._free: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[str]:
        """Yield the name of a migrated database without documents.

        After the test, all documents are removed except the version of the schema, which is
        restored. The database is dropped if the test has added or removed a collection or an index,
        changed a validator, or left the profiler on.
        """
        name = self._free.pop() if self._free else await self._migrated()
        try:
            yield name
        finally:
            database = self._client[name]
            if _schema(database) == self._schemas[name]:
                self._restore_version(database)
                _empty(database)
                self._free.append(name)
            else:
                self._client.drop_database(name)

    async def _migrated(self) -> str:
        name = f"test_{uuid4().hex}"
        client: AsyncMongoClient[dict[str, Any]]
        async with AsyncMongoClient(self._uri) as client:
            await migration.migrate(client[name])
        database = self._client[name]
        _empty(database)  # remove the lease of the migration
        self._schemas[name] = _schema(database)
        self._versions[name] = list(database[schema.VERSION].find())
        return name

    def _restore_version(self, database: Database[dict[str, Any]]) -> None:
        versions = self._versions[database.name]
        if list(database[schema.VERSION].find()) != versions:
            database[schema.VERSION].delete_many({})
            database[schema.VERSION].insert_many(versions)


def _schema(database: Database[dict[str, Any]]) -> object:
    """Return the properties that a test must not change, for a comparison."""
    profiler = database.command("profile", -1)  # -1: return the level alone
    collections = {entry["name"]: entry for entry in database.list_collections()}
    indexes = database.command("dbStats")["indexes"]
    return profiler["was"], collections, indexes


def _empty(database: Database[dict[str, Any]]) -> None:
    if database.command("dbStats")["objects"] == 1:
        return  # the version of the schema
    quick = database.with_options(write_concern=WriteConcern(w=1))
    for name in quick.list_collection_names():
        if name != schema.VERSION:
            quick[name].delete_many({})
    database[schema.LEASES].delete_many({})  # waits until a majority has all deletes
