"""A reader of the lists detects each change of a history in the database."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_client import CreditTransaction, Finding, HistoryAltered, HistoryVerifier
from credit_models.codec import decode
from credit_models.ledger import Account
from credit_server.api.convert import transactions_to_wire
from credit_server.store.documents import TransactionDocument
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Changes
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection

from tests.models.ledger.every_kind import every_kind

# Stored fields that the contract does not show, so that no reader can check them.
PRIVATE = {
    "related_total",
    "released",
    "held_after",
    "request",
    "final_revision",
    "final_balance",
}
NOW = datetime(2026, 11, 30, tzinfo=UTC)
# Any, here and below: documents hold values of many types.
CHANGED: dict[str, Any] = {
    "app_id": Int64(5),
    "credits": Int64(4321),
    "created_at": NOW,
    "created_by": Int64(99),
    "type": "adjust",
    "balance_after": Int64(4321),
    "sequence": Int64(4321),
    "purchase_id": ObjectId("5" * 24),
    "idempotency_key": "other",
    "fingerprint": {"report_id": "other", "report_name": "Other"},
    "related_id": ObjectId("5" * 24),
    "allocations": [{"credits": Int64(4321)}],
    "delta": Int64(4321),
    "effective_at": NOW,
    "ends_at": NOW,
    "metadata": [{"name": "added", "value": "later"}],
    "note": "Added later",
    "previous_hash": b"\x01" * 33,
    "hash": b"\x01" * 33,
}

# These are removed too.
OPTIONAL = ("metadata", "note", "related_id", "allocations", "idempotency_key")

Documents = AsyncCollection[dict[str, Any]]


@pytest.fixture
async def store(mongod_uri: str, migrated_database: str) -> AsyncIterator[MongoStore]:
    mongo = MongoStore(mongod_uri, database=migrated_database)
    ledger = every_kind()
    written = [user_id for user_id, entries in ledger.entries.items() if entries]
    async with mongo.writer().begin() as transaction:
        await transaction.write(
            Changes(
                accounts=[(Account.empty(each), ledger.accounts[each]) for each in written],
                transactions=[each for user_id in written for each in ledger.entries[user_id]],
                purchases=list(ledger.purchases.values()),
                totals={},
                counter_shard=0,
            )
        )
        await transaction.commit()
    yield mongo
    await mongo.close()


@pytest.fixture
async def documents(mongod_uri: str, migrated_database: str) -> AsyncIterator[Documents]:
    client: AsyncMongoClient[dict[str, Any]]
    async with AsyncMongoClient(mongod_uri) as client:
        yield client[migrated_database]["credit_transactions"]


async def _rows(store: MongoStore) -> list[CreditTransaction]:
    return [
        decode(CreditTransaction, data)
        async for page in store.list_transactions(7)
        for data in transactions_to_wire(page)
    ]


def _finding(rows: Sequence[CreditTransaction]) -> tuple[Finding, int] | None:
    verifier = HistoryVerifier()
    try:
        for row in rows:
            verifier.add(row)
        verifier.end()
    except HistoryAltered as error:
        return error.finding, error.sequence
    return None


async def test_a_change_of_each_stored_field_of_each_kind_is_found(
    store: MongoStore, documents: Documents
) -> None:
    fields = {field.alias or name for name, field in TransactionDocument.model_fields.items()}
    assert fields - CHANGED.keys() - PRIVATE == {"_id", "user_id"}
    shown = await _rows(store)
    assert _finding(shown) is None
    seen: Counter[str] = Counter()
    for original in await documents.find({"user_id": 7}).to_list(None):
        without = ({key: original[key] for key in original if key != name} for name in OPTIONAL)
        changes = [(name, {**original, name: value}) for name, value in CHANGED.items()]
        for name, changed in [*changes, *zip(OPTIONAL, without, strict=True)]:
            await documents.replace_one(
                {"_id": original["_id"]}, changed, bypass_document_validation=True
            )
            rows = await _rows(store)
            # Some fields of some types are not shown, such as the end of a refund.
            assert (_finding(rows) is None) is (rows == shown), (original["type"], name)
            seen[name] += rows != shown
            await documents.replace_one({"_id": original["_id"]}, original)
    assert seen.keys() == CHANGED.keys()
    assert min(seen.values()) > 4
    assert _finding(await _rows(store)) is None


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda entries: entries.pop(2), (Finding.CHAIN_BROKEN, 4)),
        (
            lambda entries: entries.insert(3, _inserted(entries[3])),
            (Finding.CHANGED, 4),
        ),
        (lambda entries: _swap(entries, 3, 4), (Finding.CHANGED, 4)),
        (lambda entries: entries[0].pop("hash"), (Finding.CHAIN_BROKEN, 2)),
        (lambda entries: entries[5].pop("hash"), (Finding.HASH_MISSING, 6)),
    ],
    ids=["removed", "inserted", "swapped", "hash of the first", "hash of another"],
)
async def test_rows_that_are_removed_inserted_or_swapped_are_found(
    store: MongoStore,
    documents: Documents,
    change: Callable[[list[dict[str, Any]]], object],
    finding: tuple[Finding, int],
) -> None:
    entries = await documents.find({"user_id": 7}).sort("sequence").to_list(None)
    change(entries)
    await documents.delete_many({"user_id": 7})
    await documents.insert_many(entries, bypass_document_validation=True)
    assert _finding(await _rows(store)) == finding


def _inserted(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the number of this one, which gets another number."""
    made = {**entry, "_id": ObjectId("5" * 24), "idempotency_key": "mine"}
    entry["sequence"] = Int64(2**40)
    return made


def _swap(entries: list[dict[str, Any]], first: int, second: int) -> None:
    one, other = entries[first], entries[second]
    one["sequence"], other["sequence"] = other["sequence"], one["sequence"]
