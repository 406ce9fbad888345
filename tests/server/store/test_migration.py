"""Test the plan of a migration, and that one migration of a database runs at a time."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from bson.int64 import Int64
from credit_server.store import leases, migration, schema
from credit_server.store.leases import held
from credit_server.store.mongo import MongoStore
from credit_server.store.port import StoreError
from pymongo import AsyncMongoClient, monitoring
from pymongo.asynchronous.database import AsyncDatabase

from tests.server.store.old_schemas import make_schema

Document = dict[str, Any]  # values of BSON

CHANGING = {"create", "collMod", "createIndexes", "dropIndexes", "update", "insert", "delete"}


class Changes(monitoring.CommandListener):
    """Records the commands that change a database, except for those of leases."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in CHANGING:
            self.names.append(f"{event.command_name} {event.command[event.command_name]}")

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
async def bare(
    mongod_uri: str, database: str, changes: Changes
) -> AsyncIterator[AsyncDatabase[Document]]:
    """Provide a database that does not exist yet."""
    client: AsyncMongoClient[Document]
    async with AsyncMongoClient(mongod_uri, event_listeners=[changes]) as client:
        yield client[database]


async def state_of(database: AsyncDatabase[Document]) -> Document:
    """Return the collections with their options, indexes and documents."""
    options = await schema.collection_options(database)
    return {
        name: (
            options[name],
            await database[name].index_information(),
            await database[name].find().to_list(None),
        )
        for name in options
    }


async def sentences(database: AsyncDatabase[Document]) -> list[str]:
    return [step.sentence for step in await migration.plan(database)]


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_a_plan_changes_nothing_and_is_empty_after_the_migration(
    mongod_uri: str, bare: AsyncDatabase[Document], changes: Changes, version: int
) -> None:
    if version:
        await make_schema(version, mongod_uri, bare.name)
    before = await state_of(bare)
    planned = await sentences(bare)
    assert changes.names == []
    assert await state_of(bare) == before
    assert planned[-1] == f"set the schema version to 4; it is {version or 'not set'}"
    assert "create the collection directory" in planned
    old_index = "drop the index user_id_idempotency_key of credit_transactions"
    assert (old_index in planned) == (version == 1)
    assert await migration.migrate(bare) == schema.SCHEMA_VERSION
    assert len(changes.names) == len(planned)
    changes.names.clear()
    assert await sentences(bare) == []
    await migration.migrate(bare)
    assert changes.names == []


async def test_a_migration_keeps_the_gaps_of_imports(
    bare: AsyncDatabase[Document],
) -> None:
    await migration.migrate(bare)
    gaps = [{"last": Int64(0), "next": Int64(7)}]
    await bare["schema_version"].update_one(
        {"_id": "credit"}, {"$set": {"version": Int64(3), "event_gaps": gaps}}
    )
    assert await migration.migrate(bare) == schema.SCHEMA_VERSION
    stored = await bare["schema_version"].find_one()
    assert stored is not None
    assert (stored["version"], stored["event_gaps"]) == (schema.SCHEMA_VERSION, gaps)


async def test_two_migrations_at_once_do_each_step_once(
    mongod_uri: str, bare: AsyncDatabase[Document], changes: Changes
) -> None:
    await make_schema(1, mongod_uri, bare.name)
    steps = len(await sentences(bare))
    waited: list[str] = []
    migrations = [
        migration.migrate(bare, on_wait=partial(waited.append, name)) for name in ("a", "b", "c")
    ]
    assert await asyncio.gather(*migrations) == [schema.SCHEMA_VERSION] * 3
    assert len(changes.names) == steps
    assert len(waited) == 2
    assert await schema.verify(bare) == []


async def test_a_migration_waits_until_the_lease_of_one_that_was_killed_ends(
    bare: AsyncDatabase[Document], changes: Changes
) -> None:
    lease = {"_id": "migration", "owner": "killed", "until": datetime.now(UTC) + timedelta(hours=1)}
    await bare["leases"].insert_one(lease)
    changes.names.clear()
    waits = asyncio.Event()
    migrating = asyncio.create_task(migration.migrate(bare, on_wait=waits.set))
    await waits.wait()
    assert not changes.names
    await bare["leases"].update_one({}, {"$set": {"until": datetime.now(UTC)}})
    await migrating
    assert await schema.verify(bare) == []


async def test_a_migration_that_was_paused_for_too_long_stops_before_its_next_step(
    bare: AsyncDatabase[Document],
) -> None:
    async with held(bare["leases"], "migration", on_wait=lambda: None) as lease:
        await lease.extend()
        until = datetime.now(UTC) + timedelta(hours=1)
        taken = {"$set": {"owner": "another release", "until": until}}
        await bare["leases"].update_one({}, taken)
        with pytest.raises(StoreError, match="no data is damaged; run the command again"):
            await lease.extend()
    lease_after = await bare["leases"].find_one()
    assert lease_after is not None
    assert lease_after["owner"] == "another release"


async def test_a_lease_is_extended_while_a_step_takes_long(
    bare: AsyncDatabase[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_RENEWAL_SECONDS", 0.01)
    async with held(bare["leases"], "migration", on_wait=lambda: None):
        first = await bare["leases"].find_one()
        assert first is not None
        while True:
            later = await bare["leases"].find_one()
            assert later is not None
            if later["until"] > first["until"]:
                break
            await asyncio.sleep(0.01)
    released = await bare["leases"].find_one()
    assert released is not None
    assert released["until"] < later["until"]


async def test_a_step_that_is_planned_says_what_differs(bare: AsyncDatabase[Document]) -> None:
    await migration.migrate(bare)
    await bare["directory"].drop_index("app_id_external_id")
    await bare.command({"collMod": "purchases", "validator": {}})
    await bare.command({"collMod": "user_credits", "validationAction": "warn"})
    assert await sentences(bare) == [
        "replace the validator of user_credits",
        "replace the validator of purchases",
        "build indexes of directory: app_id_external_id",
    ]
    await bare["schema_version"].update_one({}, {"$set": {"version": Int64(5)}})
    with pytest.raises(schema.SchemaTooNew):
        await migration.plan(bare)


async def test_the_store_returns_the_plan(mongod_uri: str, database: str) -> None:
    store = MongoStore(mongod_uri, database=database)
    assert "create the collection purchases" in await store.planned_migration()
    await store.migrate()
    assert await store.planned_migration() == []
    await store.close()
