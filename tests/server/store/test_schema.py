"""Test that `migrate` creates the schema, validators enforce it, and `verify` names its drift."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import Grant, Kind
from credit_server.store import migration, schema
from credit_server.store.app_documents import GrantDocument
from credit_server.store.documents import AccountDocument, BalanceDocument, TransactionDocument
from credit_server.store.driver import Database
from credit_server.store.port import StoreError
from pydantic import ValidationError
from pymongo import AsyncMongoClient
from pymongo.errors import WriteError


@pytest.fixture
async def db(mongod_uri: str, database: str) -> AsyncIterator[Database]:
    async with AsyncMongoClient[dict[str, Any]](mongod_uri, tz_aware=True) as client:
        yield client[database]


@pytest.fixture
async def migrated(mongod_uri: str, migrated_database: str) -> AsyncIterator[Database]:
    async with AsyncMongoClient[dict[str, Any]](mongod_uri, tz_aware=True) as client:
        yield client[migrated_database]


async def test_a_new_database_has_no_schema(db: Database) -> None:
    assert await schema.verify(db) == ["the database has no schema yet"]


async def test_a_migrated_database_has_no_drift(migrated: Database) -> None:
    assert await schema.verify(migrated) == []


async def test_migrating_again_changes_nothing(migrated: Database) -> None:
    assert await migration.migrate(migrated) == schema.SCHEMA_VERSION
    assert await schema.verify(migrated) == []


async def test_a_later_schema_is_not_changed(migrated: Database) -> None:
    await migrated[schema.VERSION].update_one({}, {"$set": {"version": Int64(99)}})
    assert await schema.verify(migrated) == ["the schema has version 99, this server needs 4"]
    # `credit-server` reports a StoreError in one sentence.
    with pytest.raises(StoreError, match="run a later release"):
        await migration.migrate(migrated)


async def test_a_missing_collection_is_drift(migrated: Database) -> None:
    await migrated.drop_collection(schema.PURCHASES)
    assert await schema.verify(migrated) == ["the collection purchases is missing"]


async def test_a_missing_index_is_drift_that_migrate_fixes(migrated: Database) -> None:
    await migrated[schema.USER_CREDITS].drop_index("user_id")
    assert await schema.verify(migrated) == ["the index user_id of user_credits is missing"]
    await migration.migrate(migrated)
    assert await schema.verify(migrated) == []


async def test_an_index_that_is_not_unique_is_drift(db: Database) -> None:
    await migration.migrate(db)  # a lent database must keep the properties of its indexes
    await db[schema.USER_CREDITS].drop_index("user_id")
    await db[schema.USER_CREDITS].create_index("user_id", name="user_id")
    assert await schema.verify(db) == ["the index user_id of user_credits differs"]


async def test_a_loosened_validator_is_drift_that_migrate_fixes(migrated: Database) -> None:
    await migrated.command("collMod", schema.PURCHASES, validator={})
    await migrated.command("collMod", schema.APP_TOTALS, validationAction="warn")
    assert await schema.verify(migrated) == [
        "the validator of purchases differs",
        "the validator of app_totals does not reject bad documents",
    ]
    await migration.migrate(migrated)
    assert await schema.verify(migrated) == []


GOOD: dict[str, Any] = {
    "user_id": Int64(1),
    "balances": [{"app_id": Int64(1), "balance": Int64(0)}],
    "created_by": Int64(1),
    "updated_by": Int64(1),
    "revision": Int64(1),
}


@pytest.mark.parametrize(
    "bad",
    [
        {"user_id": Int64(0)},
        {"user_id": Int64(2**32)},
        {"user_id": 1},  # an int32
        {"user_id": 1.5},
        {"balances": [{"app_id": Int64(1), "balance": Int64(-(2**32))}]},
        {"balances": [{"app_id": Int64(1), "balance": Int64(2**32)}]},
        {"balances": [{"app_id": Int64(1)}]},
        {"revision": Int64(0)},
        {"created_at": "yesterday"},
        {"surprise": 1},
    ],
    ids=str,
)
async def test_the_database_rejects_documents_that_break_the_schema(
    migrated: Database, bad: dict[str, Any]
) -> None:
    at = ObjectId().generation_time
    good = {**GOOD, "created_at": at, "updated_at": at}
    with pytest.raises(WriteError, match="Document failed validation"):
        await migrated[schema.USER_CREDITS].insert_one({**good, **bad})
    await migrated[schema.USER_CREDITS].insert_one(good)


def app_of(**grant: Any) -> dict[str, Any]:
    """Return what an account keeps for an app: one grant with changed fields; None removes one."""
    document = GrantDocument.from_grant(
        Grant(id=f"{1:024x}", sequence=1, credits=5, left=5, created_by=1)
    ).to_bson()
    changed = {name: value for name, value in {**document, **grant}.items() if value is not None}
    return {"app_id": Int64(1), "grants": [changed]}


@pytest.mark.parametrize(
    "bad",
    [
        {"grants": [None]},  # what a position beyond the end of an array would leave
        {"grants": {"0": app_of()["grants"][0]}},
        {"holds": [app_of()["grants"][0]]},
        {"due_at": 1},
        {"caps": {"day": Int64(0)}},
        {"alerts": [{"credits": Int64(0), "direction": "falls_below"}]},
        {"alerts": [{"credits": Int64(1), "direction": "sideways"}]},
        {"surprise": 1},
        app_of(left=None),
        app_of(id=None),
    ],
    ids=str,
)
async def test_the_database_rejects_grants_and_holds_that_lack_a_field(
    migrated: Database, bad: dict[str, Any]
) -> None:
    at = ObjectId().generation_time
    good = {**GOOD, "created_at": at, "updated_at": at, "apps": [app_of()]}
    with pytest.raises(WriteError, match="Document failed validation"):
        await migrated[schema.USER_CREDITS].insert_one({**good, "apps": [{**app_of(), **bad}]})
    await migrated[schema.USER_CREDITS].insert_one(good)


@pytest.mark.parametrize(
    "bad",
    [
        {"left": Int64(-1)},
        {"left": 1.5},
        {"credits": Int64(0)},
        {"credits": Int64(2**32)},
        {"priority": Int64(1001)},
        {"id": "1"},
        {"ends_at": "tomorrow"},
        {"category": "free"},
        {"surprise": 1},
    ],
    ids=str,
)
def test_the_model_rejects_values_of_grants_which_the_database_does_not_check(
    bad: dict[str, Any],
) -> None:
    at = ObjectId().generation_time
    good = {**GOOD, "_id": ObjectId(), "created_at": at, "updated_at": at}
    AccountDocument.model_validate({**good, "apps": [app_of()]})
    with pytest.raises(ValidationError):
        AccountDocument.model_validate({**good, "apps": [app_of(**bad)]})


def test_the_validator_agrees_with_the_model() -> None:
    assert schema.validator_of(BalanceDocument)["$jsonSchema"] == {
        "bsonType": "object",
        "additionalProperties": False,
        "required": ["app_id", "balance"],
        "properties": {
            "app_id": {"bsonType": "long", "minimum": 1, "maximum": 2**32 - 1},
            "balance": {"bsonType": "long", "minimum": 1 - 2**32, "maximum": 2**32 - 1},
            "head": {"bsonType": "binData"},
        },
    }
    properties = schema.validator_of(TransactionDocument)["$jsonSchema"]["properties"]
    assert properties["type"] == {"enum": [kind.value for kind in Kind]}
    assert properties["idempotency_key"] == {
        "bsonType": "string",
        "minLength": 1,
        "maxLength": 128,
    }
