"""Create a database of an earlier release, with the history of two users.

Release 0.1.0 has schema 1, and release 0.2.0 has schema 2. The schemas are copies, because the code
has changed since those releases.
"""

from datetime import UTC, datetime
from typing import Any

from bson.int64 import Int64
from bson.objectid import ObjectId
from pymongo import AsyncMongoClient, IndexModel
from pymongo.asynchronous.database import AsyncDatabase

Document = dict[str, Any]  # values of BSON

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)

_NUMBER = {"bsonType": "long", "minimum": 1, "maximum": 4294967295}
_CREDITS = {"bsonType": "long", "minimum": 0, "maximum": 4294967295}
_SEQUENCE = {"bsonType": "long", "minimum": 1}
_ID = {"bsonType": "objectId"}
_DATE = {"bsonType": "date"}


def _text(length: int) -> Document:
    return {"bsonType": "string", "minLength": 1, "maxLength": length}


def _object(optional: set[str] | None = None, **properties: Document) -> Document:
    return {
        "bsonType": "object",
        "additionalProperties": False,
        "required": sorted(properties.keys() - (optional or set())),
        "properties": properties,
    }


_SCHEMAS = {
    "user_credits": _object(
        _id=_ID,
        user_id=_NUMBER,
        balances={"bsonType": "array", "items": _object(app_id=_NUMBER, balance=_CREDITS)},
        created_at=_DATE,
        updated_at=_DATE,
        created_by=_NUMBER,
        updated_by=_NUMBER,
        revision=_SEQUENCE,
    ),
    "credit_transactions": _object(
        {"purchase_id", "idempotency_key", "fingerprint"},
        _id=_ID,
        user_id=_NUMBER,
        app_id=_NUMBER,
        credits=_NUMBER,
        created_at=_DATE,
        created_by=_NUMBER,
        type={"enum": ["add", "use"]},
        balance_after=_CREDITS,
        sequence=_SEQUENCE,
        purchase_id=_ID,
        idempotency_key=_text(128),
        fingerprint=_object(report_id=_text(128), report_name=_text(256)),
    ),
    "purchases": _object(
        _id=_ID,
        user_id=_NUMBER,
        app_id=_NUMBER,
        report_id=_text(128),
        report_name=_text(256),
        credits=_NUMBER,
        created_at=_DATE,
        created_by=_NUMBER,
        transaction_id=_ID,
        sequence=_SEQUENCE,
    ),
    "app_totals": _object(
        _id=_ID,
        app_id=_NUMBER,
        slot={"bsonType": "long", "minimum": 0},
        total={"bsonType": "long"},
    ),
    "schema_version": _object(
        _id={"enum": ["credit"]},
        version={"bsonType": "long", "minimum": 1},
        migrated_at=_DATE,
    ),
}

_BY_SEQUENCE = IndexModel({"user_id": 1, "sequence": 1}, name="user_id_sequence", unique=True)

_BY_APP_AND_SEQUENCE = IndexModel(
    {"user_id": 1, "app_id": 1, "sequence": 1}, name="user_id_app_id_sequence"
)


def _keys(name: str, *fields: str) -> IndexModel:
    return IndexModel(
        dict.fromkeys(fields, 1),
        name=name,
        unique=True,
        partialFilterExpression={"idempotency_key": {"$exists": True}},
    )


_INDEXES = {
    1: {
        "user_credits": [IndexModel({"user_id": 1}, name="user_id", unique=True)],
        "credit_transactions": [
            _BY_SEQUENCE,
            _keys("user_id_idempotency_key", "user_id", "idempotency_key"),
        ],
        "purchases": [_BY_SEQUENCE],
        "app_totals": [IndexModel({"app_id": 1, "slot": 1}, name="app_id_slot", unique=True)],
    }
}
_INDEXES[2] = {
    **_INDEXES[1],
    "credit_transactions": [
        _BY_SEQUENCE,
        _BY_APP_AND_SEQUENCE,
        _keys("user_id_app_id_idempotency_key", "user_id", "app_id", "idempotency_key"),
    ],
    "purchases": [_BY_SEQUENCE, _BY_APP_AND_SEQUENCE],
}


def _entry(number: int, user: int, app: int, sequence: int, balance: int, **more: Any) -> Document:
    return {
        "_id": ObjectId(f"{number:024x}"),
        "user_id": Int64(user),
        "app_id": Int64(app),
        "credits": Int64(100),
        "created_at": NOW,
        "created_by": Int64(9),
        "type": "add",
        "balance_after": Int64(balance),
        "sequence": Int64(sequence),
        **more,
    }


_PURCHASE = ObjectId(f"{50:024x}")
_REPORT = {"report_id": "r-1", "report_name": "Traffic"}

DATA: dict[str, list[Document]] = {
    "credit_transactions": [
        _entry(1, 7, 1, 1, 100, idempotency_key="order-4711"),
        _entry(2, 7, 2, 2, 100, idempotency_key="grant-2"),
        _entry(3, 7, 1, 3, 200),
        _entry(
            4, 7, 1, 4, 100,
            type="use", purchase_id=_PURCHASE, idempotency_key="use-1", fingerprint=_REPORT,
        ),
        _entry(5, 8, 1, 1, 100, idempotency_key="order-4711"),
    ],
    "purchases": [
        {
            "_id": _PURCHASE,
            "user_id": Int64(7),
            "app_id": Int64(1),
            **_REPORT,
            "credits": Int64(100),
            "created_at": NOW,
            "created_by": Int64(9),
            "transaction_id": ObjectId(f"{4:024x}"),
            "sequence": Int64(4),
        }
    ],
    "user_credits": [
        {
            "_id": ObjectId(f"{60 + user:024x}"),
            "user_id": Int64(user),
            "balances": [
                {"app_id": Int64(app), "balance": Int64(balance)}
                for app, balance in balances.items()
            ],
            "created_at": NOW,
            "updated_at": NOW,
            "created_by": Int64(9),
            "updated_by": Int64(9),
            "revision": Int64(revision),
        }
        for user, balances, revision in ((7, {1: 100, 2: 100}, 4), (8, {1: 100}, 1))
    ],
    "app_totals": [
        {"_id": ObjectId(f"{70 + app:024x}"), "app_id": Int64(app), "slot": Int64(3), "total": sum_}
        for app, sum_ in ((1, Int64(200)), (2, Int64(100)))
    ],
}  # fmt: skip


async def make_schema_1(uri: str, database: str) -> None:
    """Create and fill a database as `migrate` of release 0.1.0 did."""
    await make_schema(1, uri, database)


async def make_schema(version: int, uri: str, database: str) -> None:
    """Create and fill a database as `migrate` of an earlier release did.

    Args:
        version: The version of the schema.
        uri: The connection string.
        database: The name of the database.
    """
    client: AsyncMongoClient[Document]
    async with AsyncMongoClient(uri) as client:
        created: AsyncDatabase[Document] = client[database]
        for name, schema in _SCHEMAS.items():
            await created.create_collection(
                name,
                validator={"$jsonSchema": schema},
                validationLevel="strict",
                validationAction="error",
            )
            if name in _INDEXES[version]:
                await created[name].create_indexes(_INDEXES[version][name])
            if name in DATA:
                await created[name].insert_many(DATA[name])
        stored = {"_id": "credit", "version": Int64(version), "migrated_at": NOW}
        await created["schema_version"].insert_one(stored)
