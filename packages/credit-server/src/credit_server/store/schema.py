"""The collections with validators and indexes: `migration` creates them, `verify` checks them."""

import types
import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from bson.objectid import ObjectId
from pydantic.fields import FieldInfo
from pymongo import ASCENDING, IndexModel
from pymongo.database import Database as BlockingDatabase

from credit_server.store.alert_documents import AlertEventDocument, RemovedEventsDocument
from credit_server.store.app_documents import AppPolicyDocument
from credit_server.store.checkpoint_documents import CheckpointDocument, TileDocument
from credit_server.store.documents import (
    AccountDocument,
    AppTotalDocument,
    CounterDocument,
    DirectoryDocument,
    LeaseDocument,
    PurchaseDocument,
    SchemaVersionDocument,
    TransactionDocument,
)
from credit_server.store.driver import Database
from credit_server.store.fields import Document
from credit_server.store.port import StoreMisconfigured
from credit_server.store.webhook_documents import DeliveryDocument, WebhookDocument

# The version of collections, validators and indexes. 1 (release 0.1.0): an idempotency key belonged
# to a user. 2 (0.2.0): it belongs to a user in an app, and lists of some apps have indexes. 3
# (0.3.0): an account has grants, holds and caps, an entry refers to others, and an app has a
# policy. 4: the entries of all users in an app have an index, an account and a policy have
# alerts, whose events are stored for 30 days and sent to webhooks, users have external ids, and
# entries have hashes, which signed checkpoints cover.
SCHEMA_VERSION = 4

USER_CREDITS = "user_credits"
CREDIT_TRANSACTIONS = "credit_transactions"
PURCHASES = "purchases"
APP_TOTALS = "app_totals"
APP_POLICIES = "app_policies"
ALERT_EVENTS = "alert_events"
REMOVED_EVENTS = "removed_events"
WEBHOOKS = "webhooks"
WEBHOOK_DELIVERIES = "webhook_deliveries"
LEASES = "leases"
DIRECTORY = "directory"
COUNTERS = "counters"
CHECKPOINTS = "checkpoints"
CHECKPOINT_TILES = "checkpoint_tiles"
VERSION = "schema_version"

BY_USER = "user_id"
BY_SEQUENCE = "user_id_sequence"
BY_APP_AND_SEQUENCE = "user_id_app_id_sequence"
BY_APP_AND_TIME = "app_id_created_at_id"
BY_KEY = "user_id_app_id_idempotency_key"
BY_RELATED_ID = "user_id_related_id_sequence"
BY_HOLD = "user_id_app_id_type_sequence"
BY_REPORT = "user_id_app_id_report_id_sequence"
BY_DUE_AT = "due_at_user_id"
BY_UNORDERED = "unordered_created_at_sequence"
BY_POSITION = "position"
BY_APP_AND_POSITION = "app_id_position"
BY_USER_AND_POSITION = "app_id_user_id_position"
BY_DUE_DELIVERY = "app_id_webhook_id_due_at"
BY_PENDING_AGE = "created_at"
BY_DEAD_LETTER = "app_id_id"
BY_APP_AND_CHECKPOINT = "app_id_time"

DOCUMENTS: dict[str, type[Document]] = {
    USER_CREDITS: AccountDocument,
    CREDIT_TRANSACTIONS: TransactionDocument,
    PURCHASES: PurchaseDocument,
    APP_TOTALS: AppTotalDocument,
    APP_POLICIES: AppPolicyDocument,
    ALERT_EVENTS: AlertEventDocument,
    REMOVED_EVENTS: RemovedEventsDocument,
    WEBHOOKS: WebhookDocument,
    WEBHOOK_DELIVERIES: DeliveryDocument,
    LEASES: LeaseDocument,
    DIRECTORY: DirectoryDocument,
    COUNTERS: CounterDocument,
    CHECKPOINTS: CheckpointDocument,
    CHECKPOINT_TILES: TileDocument,
    VERSION: SchemaVersionDocument,
}

_LIST_INDEXES = [
    IndexModel([("user_id", ASCENDING), ("sequence", ASCENDING)], name=BY_SEQUENCE, unique=True),
    IndexModel(
        [("user_id", ASCENDING), ("app_id", ASCENDING), ("sequence", ASCENDING)],
        name=BY_APP_AND_SEQUENCE,
    ),
    IndexModel(
        [("app_id", ASCENDING), ("created_at", ASCENDING), ("_id", ASCENDING)],
        name=BY_APP_AND_TIME,
    ),
]

INDEXES: dict[str, list[IndexModel]] = {
    USER_CREDITS: [
        IndexModel([("user_id", ASCENDING)], name=BY_USER, unique=True),
        IndexModel(
            [("due_at", ASCENDING), ("user_id", ASCENDING)],
            name=BY_DUE_AT,
            partialFilterExpression={"due_at": {"$exists": True}},
        ),
    ],
    CREDIT_TRANSACTIONS: [
        *_LIST_INDEXES,
        IndexModel(
            [("user_id", ASCENDING), ("app_id", ASCENDING), ("idempotency_key", ASCENDING)],
            name=BY_KEY,
            unique=True,
            # Calls without a key need no entry.
            partialFilterExpression={"idempotency_key": {"$exists": True}},
        ),
        IndexModel(
            [("user_id", ASCENDING), ("related_id", ASCENDING), ("sequence", ASCENDING)],
            name=BY_RELATED_ID,
            partialFilterExpression={"related_id": {"$exists": True}},
        ),
        # With `type`: before MongoDB 5.0 two indexes cannot have the same fields, and the order of
        # the holds is the same.
        IndexModel(
            [
                ("user_id", ASCENDING),
                ("app_id", ASCENDING),
                ("type", ASCENDING),
                ("sequence", ASCENDING),
            ],
            name=BY_HOLD,
            partialFilterExpression={"type": "hold"},
        ),
    ],
    PURCHASES: [
        *_LIST_INDEXES,
        IndexModel(
            [
                ("user_id", ASCENDING),
                ("app_id", ASCENDING),
                ("report_id", ASCENDING),
                ("sequence", ASCENDING),
            ],
            name=BY_REPORT,
        ),
    ],
    APP_TOTALS: [
        IndexModel([("app_id", ASCENDING), ("slot", ASCENDING)], name="app_id_slot", unique=True)
    ],
    APP_POLICIES: [IndexModel([("app_id", ASCENDING)], name="app_id", unique=True)],
    ALERT_EVENTS: [
        IndexModel(
            [("unordered", ASCENDING), ("created_at", ASCENDING), ("sequence", ASCENDING)],
            name=BY_UNORDERED,
            partialFilterExpression={"unordered": True},
        ),
        # Unique: see `MongoAlertEvents.order`. Therefore the collection cannot be sharded.
        IndexModel(
            [("position", ASCENDING)],
            name=BY_POSITION,
            unique=True,
            partialFilterExpression={"position": {"$exists": True}},
        ),
        IndexModel([("app_id", ASCENDING), ("position", ASCENDING)], name=BY_APP_AND_POSITION),
        IndexModel(
            [("app_id", ASCENDING), ("user_id", ASCENDING), ("position", ASCENDING)],
            name=BY_USER_AND_POSITION,
        ),
    ],
    REMOVED_EVENTS: [],
    WEBHOOKS: [
        IndexModel([("app_id", ASCENDING), ("url", ASCENDING)], name="app_id_url", unique=True)
    ],
    WEBHOOK_DELIVERIES: [
        IndexModel([("webhook_id", ASCENDING)], name="webhook_id"),
        IndexModel(
            [("app_id", ASCENDING), ("webhook_id", ASCENDING), ("due_at", ASCENDING)],
            name=BY_DUE_DELIVERY,
            partialFilterExpression={"due_at": {"$exists": True}},
        ),
        IndexModel(
            [("created_at", ASCENDING)],
            name=BY_PENDING_AGE,
            partialFilterExpression={"due_at": {"$exists": True}},
        ),
        IndexModel(
            [("app_id", ASCENDING), ("_id", ASCENDING)],
            name=BY_DEAD_LETTER,
            partialFilterExpression={"failed_at": {"$exists": True}},
        ),
    ],
    LEASES: [],
    DIRECTORY: [
        IndexModel(
            [("app_id", ASCENDING), ("external_id", ASCENDING)],
            name="app_id_external_id",
            unique=True,
        )
    ],
    COUNTERS: [],
    CHECKPOINTS: [
        IndexModel(
            [("app_id", ASCENDING), ("time", ASCENDING)], name=BY_APP_AND_CHECKPOINT, unique=True
        )
    ],
    CHECKPOINT_TILES: [
        IndexModel(
            [
                ("app_id", ASCENDING),
                ("time", ASCENDING),
                ("level", ASCENDING),
                ("index", ASCENDING),
            ],
            name="app_id_time_level_index",
            unique=True,
        ),
        IndexModel(
            [("app_id", ASCENDING), ("time", ASCENDING), ("first_user", ASCENDING)],
            name="app_id_time_first_user",
        ),
    ],
    VERSION: [],
}

OBSOLETE_INDEXES = {
    # Until 0.1.0. It would reject a key that the user has used in another app.
    CREDIT_TRANSACTIONS: ["user_id_idempotency_key"],
}

VALIDATION = {"validationLevel": "strict", "validationAction": "error"}

_BSON_TYPES = {
    bool: "bool",
    int: "long",
    str: "string",
    bytes: "binData",
    datetime: "date",
    ObjectId: "objectId",
}


IMPORT_PROGRESS = "import_progress"
"""The collection of an import that is not complete."""

IMPORT_INCOMPLETE = (
    "An import into the database is not complete. Repeat credit-server import to continue it, or"
    " drop the database."
)


# Any: the driver's descriptions of collections.
async def collection_options(database: Database) -> dict[str, Mapping[str, Any]]:
    """Return the collections with their options."""
    cursor = await database.list_collections()
    return {entry["name"]: entry.get("options", {}) async for entry in cursor}


async def verify(database: Database) -> list[str]:
    """Compare the database with what the server relies on.

    Returns:
        One sentence for each difference; empty if there is none.
    """
    if await database[IMPORT_PROGRESS].find_one() is not None:
        return ["an import into it is not complete"]
    version = await stored_version(database)
    if version == 0:
        return ["the database has no schema yet"]
    drift = []
    if version != SCHEMA_VERSION:
        drift.append(f"the schema has version {version}, this server needs {SCHEMA_VERSION}")
    found = await collection_options(database)
    for name, document in DOCUMENTS.items():
        if name not in found:
            drift.append(f"the collection {name} is missing")
            continue
        if found[name].get("validator") != validator_of(document):
            drift.append(f"the validator of {name} differs")
        if any(found[name].get(option, value) != value for option, value in VALIDATION.items()):
            drift.append(f"the validator of {name} does not reject bad documents")
        drift.extend(await _index_drift(database, name))
    return drift


# Any: the driver's descriptions of indexes.
def differs(present: Mapping[str, Any], index: IndexModel) -> bool:
    """Return whether an index is missing or has another definition."""
    wanted = index.document
    have = present.get(wanted["name"])
    return (
        have is None
        or dict(have["key"]) != dict(wanted["key"])
        or have.get("unique", False) != wanted.get("unique", False)
        or have.get("partialFilterExpression") != wanted.get("partialFilterExpression")
    )


async def _index_drift(database: Database, name: str) -> list[str]:
    present = await database[name].index_information()
    drift = []
    for index in INDEXES[name]:
        index_name = index.document["name"]
        if index_name not in present:
            drift.append(f"the index {index_name} of {name} is missing")
        elif differs(present, index):
            drift.append(f"the index {index_name} of {name} differs")
    drift.extend(
        f"the index {obsolete} of {name} is obsolete"
        for obsolete in OBSOLETE_INDEXES.get(name, [])
        if obsolete in present
    )
    return drift


async def stored_version(database: Database) -> int:
    """Return the version that the database was migrated to; 0 if it never was."""
    stored = await database[VERSION].find_one({"_id": "credit"})
    return 0 if stored is None else SchemaVersionDocument.model_validate(stored).version


# Any: the driver's documents.
def ledger_version(database: BlockingDatabase[dict[str, Any]]) -> int:
    """Return the version of a ledger that is complete and that this release can read.

    Raises:
        StoreMisconfigured: There is no ledger, an import is incomplete, or the schema is that of a
            later release.
    """
    if database[IMPORT_PROGRESS].find_one() is not None:
        raise StoreMisconfigured(IMPORT_INCOMPLETE)
    found = database[VERSION].find_one({"_id": "credit"})
    version = 0 if found is None else int(found["version"])
    if version == 0:
        raise StoreMisconfigured(f"The database '{database.name}' has no ledger.")
    if version > SCHEMA_VERSION:
        raise SchemaTooNew(database.name, version)
    return version


class SchemaTooNew(StoreMisconfigured):
    """A later release has migrated the database."""

    def __init__(self, database: str, version: int) -> None:
        super().__init__(
            f"The database '{database}' has schema version {version}, and this server knows"
            f" {SCHEMA_VERSION} at most: run a later release of credit-server."
        )


def validator_of(document: type[Document]) -> dict[str, Any]:
    """Return the validator of a collection, made from the model of its documents.

    See https://www.mongodb.com/docs/manual/core/schema-validation/.
    """
    return {"$jsonSchema": _object(document)}


def _object(document: type[Document]) -> dict[str, Any]:
    # The store gives every document an _id, so it may be None in a model but is always required.
    fields = {field.alias or name: field for name, field in document.model_fields.items()}
    required = sorted(
        name for name, field in fields.items() if name == "_id" or not _is_optional(field)
    )
    if not document.values_are_validated:
        return {"bsonType": "object", "required": required}
    return {
        "bsonType": "object",
        "additionalProperties": False,
        **({"required": required} if required else {}),  # an empty list is an error
        "properties": {
            name: _value(field.annotation, field.metadata) for name, field in fields.items()
        },
    }


def _is_optional(field: FieldInfo) -> bool:
    return type(None) in get_args(field.annotation)


def _value(
    annotation: Any, metadata: list[Any]
) -> dict[str, Any]:  # Any: what pydantic keeps there
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        (annotation,) = (arm for arm in get_args(annotation) if arm is not type(None))
        return _value(annotation, metadata)
    if origin is typing.Annotated:
        annotation, *more = get_args(annotation)
        inner = [item for entry in more for item in getattr(entry, "metadata", [entry])]
        return _value(annotation, metadata + inner)
    if origin is Literal:
        return {"enum": list(get_args(annotation))}
    if origin is list:
        return {"bsonType": "array", "items": _value(get_args(annotation)[0], [])}
    if isinstance(annotation, type) and issubclass(annotation, Document):
        return _object(annotation)
    schema: dict[str, Any] = {"bsonType": _BSON_TYPES[annotation]}
    for bound in metadata:
        match bound:
            case Ge(ge):
                schema["minimum"] = ge
            case Le(le):
                schema["maximum"] = le
            case MinLen(min_length):
                schema["minLength"] = min_length
            case MaxLen(max_length):
                schema["maxLength"] = max_length
            case _:  # a serializer, which does not restrict what may be stored
                pass
    return schema
