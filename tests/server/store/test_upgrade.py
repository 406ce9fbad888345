"""Test the migration of a database of an earlier release: no data are lost, no key counts twice."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import Add, KeyReused, Receipt, Refusal, Use
from credit_server.commit import Committer
from credit_server.store import leases, schema
from credit_server.store.mongo import MongoStore
from credit_server.store.port import StoreError, StoreMisconfigured
from credit_testing.ledger_check import findings
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError

from tests.server.store.old_schemas import _SCHEMAS, DATA, Document, make_schema, make_schema_1

STEPS = ["create", "collMod", "createIndexes", "dropIndexes", "update"]
"""The commands of a migration that change the database."""


NEW_IN_3 = [
    "the validator of user_credits differs",
    "the index due_at_user_id of user_credits is missing",
    "the validator of credit_transactions differs",
    "the index user_id_related_id_sequence of credit_transactions is missing",
    "the index user_id_app_id_type_sequence of credit_transactions is missing",
    "the validator of purchases differs",
    "the index user_id_app_id_report_id_sequence of purchases is missing",
    "the collection app_policies is missing",
    "the collection leases is missing",
]
"""The differences of a database that was not migrated to schema 3."""

NEW_IN_4 = [
    "the index app_id_created_at_id of credit_transactions is missing",
    "the index app_id_created_at_id of purchases is missing",
    "the collection alert_events is missing",
    "the collection removed_events is missing",
    "the collection webhooks is missing",
    "the collection webhook_deliveries is missing",
    "the collection directory is missing",
    "the collection counters is missing",
    "the collection checkpoints is missing",
    "the collection checkpoint_tiles is missing",
    "the validator of schema_version differs",
]
"""The differences of a database that was not migrated to schema 4."""


@pytest.fixture
async def old(mongod_uri: str, database: str) -> AsyncIterator[MongoStore]:
    """Provide a store on a database of release 0.1.0."""
    await make_schema_1(mongod_uri, database)
    store = MongoStore(mongod_uri, database=database, timeout_seconds=2)
    yield store
    await store.close()


@pytest.fixture(params=[1, 2])
async def earlier(
    request: pytest.FixtureRequest, mongod_uri: str, database: str
) -> AsyncIterator[MongoStore]:
    """Provide a store on a database of each earlier schema."""
    await make_schema(request.param, mongod_uri, database)
    store = MongoStore(mongod_uri, database=database, timeout_seconds=2)
    yield store
    await store.close()


@pytest.fixture
def client(mongod_uri: str) -> Iterator[MongoClient[Document]]:
    with MongoClient[Document](mongod_uri, tz_aware=True) as connected:
        yield connected


@contextmanager
def failpoint(client: MongoClient[Document], mode: object, **data: Any) -> Iterator[None]:
    """Have mongod fail or delay the commands of a migration."""
    point = {"configureFailPoint": "failCommand"}
    client.admin.command(
        {**point, "mode": mode, "data": {"appName": "credit-server migrate", **data}}
    )
    try:
        yield
    finally:
        client.admin.command({**point, "mode": "off"})


def add(key: str, *, user: int = 7, app: int = 1, credits_: int = 100) -> Add:
    return Add(
        user_id=user,
        app_id=app,
        credits=credits_,
        created_by=9,
        key=key,
        transaction_id=str(ObjectId()),
    )


def use(key: str, *, report: str = "r-1") -> Use:
    return Use(
        user_id=7,
        app_id=1,
        report_id=report,
        report_name="Traffic",
        credits=100,
        created_by=9,
        key=key,
        transaction_id=str(ObjectId()),
        purchase_id=str(ObjectId()),
    )


def found(result: Receipt | Refusal) -> tuple[bool, int]:
    assert isinstance(result, Receipt), result
    return result.replayed, result.transaction.sequence


async def test_a_database_of_0_1_0_is_not_served_before_it_is_migrated(old: MongoStore) -> None:
    with pytest.raises(StoreMisconfigured, match="credit-server migrate") as refused:
        await old.verify_schema()
    for difference in (
        "the schema has version 1, this server needs 4",
        "the index user_id_app_id_sequence of credit_transactions is missing",
        "the index user_id_app_id_idempotency_key of credit_transactions is missing",
        "the index user_id_idempotency_key of credit_transactions is obsolete",
        "the index user_id_app_id_sequence of purchases is missing",
        *NEW_IN_3,
        *NEW_IN_4,
    ):
        assert difference in str(refused.value)


async def test_a_database_of_0_2_0_is_not_served_before_it_is_migrated(
    mongod_uri: str, database: str
) -> None:
    await make_schema(2, mongod_uri, database)
    store = MongoStore(mongod_uri, database=database, timeout_seconds=2)
    with pytest.raises(StoreMisconfigured, match="credit-server migrate") as refused:
        await store.verify_schema()
    await store.close()
    differences = str(refused.value).partition("needs: ")[2].partition(". Run:")[0].split("; ")
    assert sorted(differences) == sorted(
        ["the schema has version 2, this server needs 4", *NEW_IN_3, *NEW_IN_4]
    )


async def test_a_database_of_0_3_0_gets_the_indexes_of_apps_and_the_new_collections(
    mongod_uri: str, database: str, client: MongoClient[Document]
) -> None:
    store = MongoStore(mongod_uri, database=database, timeout_seconds=2)
    await store.migrate()
    # Schema 3 has neither these collections nor these indexes, and an older validator.
    validator = {"$jsonSchema": _SCHEMAS["schema_version"]}
    client[database].command("collMod", "schema_version", validator=validator)
    client[database]["schema_version"].update_one({}, {"$set": {"version": Int64(3)}})
    for name in ("credit_transactions", "purchases"):
        client[database][name].drop_index("app_id_created_at_id")
    for name in (
        "alert_events",
        "removed_events",
        "webhooks",
        "webhook_deliveries",
        "directory",
        "counters",
        "checkpoints",
        "checkpoint_tiles",
    ):
        client[database].drop_collection(name)
    with pytest.raises(StoreMisconfigured) as refused:
        await store.verify_schema()
    for difference in ("the schema has version 3, this server needs 4", *NEW_IN_4):
        assert difference in str(refused.value)
    assert await store.migrate() == 4
    await store.verify_schema()
    await store.close()


async def test_a_migration_keeps_every_document_as_it_was(
    earlier: MongoStore, client: MongoClient[Document], database: str
) -> None:
    for _ in range(2):  # safe to repeat
        assert await earlier.migrate() == 4
        await earlier.verify_schema()
        kept = {name: list(client[database][name].find()) for name in DATA}
        assert kept == DATA


async def test_after_a_migration_old_keys_are_replayed_in_their_app_and_free_in_others(
    earlier: MongoStore,
) -> None:
    old = earlier
    await old.migrate()
    async with Committer(old) as committer:
        assert found(await committer.submit(add("order-4711"))) == (True, 1)
        assert found(await committer.submit(add("order-4711", app=2))) == (False, 5)
        assert found(await committer.submit(add("order-4711", app=2))) == (True, 5)
        assert found(await committer.submit(add("order-4711", user=8))) == (True, 1)
        assert found(await committer.submit(add("grant-2", app=1))) == (False, 6)
        assert found(await committer.submit(use("use-1"))) == (True, 4)
        changed = await committer.submit(use("use-1", report="r-2"))
        assert changed == KeyReused(fields=("report_id",))
    async with Committer(old) as fresh:  # its cache is empty
        assert found(await fresh.submit(add("order-4711", app=2))) == (True, 5)
        assert found(await fresh.submit(add("order-4711"))) == (True, 1)
    account = await old.account(7)
    assert account is not None
    assert account.balances == {1: 200, 2: 200}
    assert await old.app_total(1) == 300
    pages = old.list_transactions(7, frozenset({2}))
    assert [entry.sequence async for page in pages for entry in page] == [2, 5]


async def test_servers_of_0_2_0_write_while_the_database_is_migrated(
    mongod_uri: str, database: str, client: MongoClient[Document]
) -> None:
    """The writer makes plain writes only, and so has the documents and commands of 0.2.0."""
    await make_schema(2, mongod_uri, database)
    store = MongoStore(mongod_uri, database=database)
    migrated = asyncio.Event()

    async def write(user: int) -> int:
        for written in itertools.count(1):
            over = migrated.is_set()  # one more write
            found(await committer.submit(add("", user=user, credits_=1)))
            if over:
                return written
        raise AssertionError

    # Each step of the migration is slow, so that writes meet all of them.
    slow = {"failCommands": STEPS, "blockConnection": True, "blockTimeMS": 20}
    async with Committer(store, genesis=None) as committer:
        writers = [asyncio.create_task(write(user)) for user in (7, 8, 9)]
        with failpoint(client, "alwaysOn", **slow):
            assert await store.migrate() == 4
        migrated.set()
        written = sum(await asyncio.gather(*writers))
    await store.verify_schema()
    assert findings(client[database]) == []
    assert await store.app_total(1) == 200 + written
    await store.close()


async def test_a_migration_that_is_interrupted_again_and_again_continues(
    old: MongoStore, client: MongoClient[Document], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The driver does not find the primary again in time to release the lease.
    monkeypatch.setattr(leases, "_SECONDS", 0.5)
    entries = client[database]["credit_transactions"]
    again = {**DATA["credit_transactions"][0], "sequence": Int64(99)}
    for steps in itertools.count():
        broken = {"failCommands": STEPS, "errorCode": 11600}  # InterruptedAtShutdown
        # Each attempt does one step more than the one before, of those that are left.
        with failpoint(client, {"skip": steps}, **broken):
            try:
                await old.migrate()
            except StoreError:
                pass
            else:
                break
        with pytest.raises(StoreMisconfigured, match="the schema has version 1"):
            await old.verify_schema()
        # A key never counts twice: one of the two unique indexes always exists.
        with pytest.raises(DuplicateKeyError, match="idempotency_key"):
            entries.insert_one({**again, "_id": ObjectId()})
    assert steps > 4, "there are more than 15 steps"
    await old.verify_schema()
    assert {name: list(client[database][name].find()) for name in DATA} == DATA


async def test_the_new_unique_index_is_built_before_the_old_one_is_dropped(
    old: MongoStore, client: MongoClient[Document], database: str
) -> None:
    broken = {"failCommands": ["dropIndexes"], "errorCode": 11600}
    with failpoint(client, "alwaysOn", **broken), pytest.raises(StoreError):
        await old.migrate()
    names = client[database]["credit_transactions"].index_information()
    assert {"user_id_app_id_idempotency_key", "user_id_idempotency_key"} <= names.keys()


async def test_an_obsolete_index_that_comes_back_is_drift_that_migrate_drops(
    old: MongoStore, client: MongoClient[Document], database: str
) -> None:
    await old.migrate()
    client[database]["credit_transactions"].create_index(
        {"user_id": 1, "idempotency_key": 1}, name="user_id_idempotency_key"
    )
    with pytest.raises(StoreMisconfigured, match=r"user_id_idempotency_key of .* is obsolete"):
        await old.verify_schema()
    await old.migrate()
    await old.verify_schema()


async def test_building_an_index_may_take_longer_than_the_stores_timeout(
    mongod_uri: str, database: str, client: MongoClient[Document]
) -> None:
    await make_schema_1(mongod_uri, database)
    store = MongoStore(mongod_uri, database=database, timeout_seconds=1)
    slow = {"failCommands": ["createIndexes"], "blockConnection": True, "blockTimeMS": 2500}
    with failpoint(client, {"times": 1}, **slow):
        assert await store.migrate() == schema.SCHEMA_VERSION
    await store.close()
