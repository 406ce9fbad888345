"""Sharding by `migrate`, with the replies of a mongos that MongoDB's manual documents.

The tests cannot install a mongos, so the commands were not run on a sharded cluster.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from credit_server.store import migration, schema
from credit_server.store.port import StoreMisconfigured
from credit_server.store.sharding import SHARD_KEY, SHARDED
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

Document = dict[str, Any]  # values of BSON

MONGOS: Document = {"isWritablePrimary": True, "msg": "isdbgrid", "maxWireVersion": 17, "ok": 1.0}
UNAUTHORIZED = OperationFailure("not authorized on admin to execute command", 13)


class Mongos:
    """Answers the commands that concern the whole cluster.

    Attributes:
        entries: The documents of `config.collections`.
        commands: The commands that changed something.
        failure: The error of reads of the configuration and of changes; None: they succeed.
    """

    def __init__(self) -> None:
        self.entries: list[Document] = []
        self.commands: list[Document] = []
        self.failure: OperationFailure | None = None

    @property
    def admin(self) -> "Mongos":
        return self

    def __getitem__(self, name: str) -> "Mongos":
        assert name in {"config", "collections"}
        return self

    async def command(self, command: str | Document) -> Document:
        if command == "hello":
            return MONGOS
        assert isinstance(command, dict)
        self._fail()
        self.commands.append(command)
        if "shardCollection" not in command:
            return {"ok": 1.0}
        name = command["shardCollection"]
        self.entries.append({"_id": name, "key": command["key"], "unique": False})
        return {"collectionsharded": name, "ok": 1.0}

    def find(self, query: Document) -> "Mongos":
        assert query["dropped"] == query["unsplittable"] == {"$ne": True}
        self._fail()
        return self

    async def to_list(self, _length: None) -> list[Document]:
        return self.entries

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class OnCluster:
    """A database on a cluster. It is real, except for the answers of the whole cluster."""

    def __init__(self, database: AsyncDatabase[Document], mongos: Mongos) -> None:
        self.client = mongos
        self._database = database

    def __getitem__(self, name: str) -> Any:  # Any: a collection
        return self._database[name]

    def __getattr__(self, name: str) -> Any:  # Any: any member of a database
        return getattr(self._database, name)


@pytest.fixture
async def bare(mongod_uri: str, database: str) -> AsyncIterator[AsyncDatabase[Document]]:
    client: AsyncMongoClient[Document]
    async with AsyncMongoClient(mongod_uri) as client:
        yield client[database]


def _on(database: AsyncDatabase[Document], mongos: Mongos) -> Any:  # Any: stands for a database
    return OnCluster(database, mongos)


async def test_the_collections_of_users_are_sharded_once_after_their_indexes_are_built(
    bare: AsyncDatabase[Document],
) -> None:
    mongos = Mongos()
    planned = [step.sentence for step in await migration.plan(_on(bare, mongos))]
    assert planned[-4:-1] == [f"shard the collection {name} by user_id" for name in SHARDED]
    assert mongos.commands == []
    await migration.migrate(_on(bare, mongos))
    expected: list[Document] = []
    for name in SHARDED:
        expected.append({"enableSharding": bare.name})
        expected.append({"shardCollection": f"{bare.name}.{name}", "key": {"user_id": 1}})
    assert mongos.commands == expected
    assert await migration.plan(_on(bare, mongos)) == []
    await migration.migrate(_on(bare, mongos))
    assert mongos.commands == expected


async def test_sharding_can_be_declined_and_done_later(bare: AsyncDatabase[Document]) -> None:
    mongos = Mongos()
    mongos.failure = UNAUTHORIZED  # no command may need the rights to shard
    planned = [step.sentence for step in await migration.plan(_on(bare, mongos), shards=False)]
    assert planned
    assert not any("shard" in each for each in planned)
    assert await migration.migrate(_on(bare, mongos), shards=False) == schema.SCHEMA_VERSION
    assert await migration.plan(_on(bare, mongos), shards=False) == []
    assert await schema.verify(_on(bare, mongos)) == []
    assert mongos.commands == []
    mongos.failure = None
    planned = [step.sentence for step in await migration.plan(_on(bare, mongos))]
    assert planned == [f"shard the collection {name} by user_id" for name in SHARDED]


async def test_what_was_interrupted_is_continued(bare: AsyncDatabase[Document]) -> None:
    mongos = Mongos()
    mongos.entries = [{"_id": f"{bare.name}.{name}", "key": SHARD_KEY} for name in SHARDED[:2]]
    planned = [step.sentence for step in await migration.plan(_on(bare, mongos))]
    assert planned[-2:-1] == [f"shard the collection {SHARDED[2]} by user_id"]
    assert planned[-1].startswith("set the schema version")
    assert not any("shard" in each for each in planned[:-2])


async def test_another_shard_key_is_an_error(bare: AsyncDatabase[Document]) -> None:
    mongos = Mongos()
    mongos.entries = [{"_id": f"{bare.name}.{SHARDED[1]}", "key": {"user_id": "hashed"}}]
    with pytest.raises(StoreMisconfigured, match=r"credit_transactions is sharded by .*hashed"):
        await migration.migrate(_on(bare, mongos))
    assert await bare.list_collection_names() == []


async def test_missing_rights_are_named(bare: AsyncDatabase[Document]) -> None:
    mongos = Mongos()
    mongos.failure = UNAUTHORIZED
    with pytest.raises(StoreMisconfigured, match="role clusterManager"):
        await migration.plan(_on(bare, mongos))
    mongos.failure = OperationFailure("an unexpected error", 8000)
    with pytest.raises(OperationFailure, match="unexpected"):
        await migration.plan(_on(bare, mongos))


async def test_a_replica_set_is_not_sharded(bare: AsyncDatabase[Document]) -> None:
    assert not any("shard" in step.sentence for step in await migration.plan(bare))


@pytest.mark.parametrize("name", SHARDED)
def test_unique_indexes_of_sharded_collections_begin_with_the_shard_key(name: str) -> None:
    indexes = [index.document for index in schema.INDEXES[name]]
    assert any(index.get("unique") for index in indexes)
    for index in indexes:
        if index.get("unique"):
            assert next(iter(index["key"].items())) == ("user_id", 1)
