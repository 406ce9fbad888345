"""Store histories in a database, as servers do, without the time that servers take."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from credit_server.store.alert_documents import event_bson
from credit_server.store.app_documents import AppPolicyDocument
from credit_server.store.port import AppPolicy
from credit_server.store.writing import account_bson, purchase_bson, transaction_bson
from pymongo.collection import Collection
from pymongo.database import Database

from tests.server.verify.histories import POLICIES, Histories

Document = dict[str, Any]  # values of BSON

AT = datetime(2026, 6, 30, tzinfo=UTC)


def store(database: Database[Document], made: Histories) -> None:
    """Write histories into a database that has its schema."""
    accounts = [account for account in made.accounts.values() if account.revision]
    entries = [entry for entries in made.entries.values() for entry in entries]
    totals: Counter[int] = Counter()
    for entry in entries:
        totals[entry.app_id] += entry.effect
    policies = [
        AppPolicyDocument.from_policy(
            AppPolicy(app_id=app_id, policy=policy, revision=1, updated_at=AT, updated_by=1)
        ).to_bson()
        for app_id, policy in POLICIES.items()
    ]
    users = [
        {
            "_id": Int64(number),
            "app_id": Int64(1),
            "external_id": f"u-{number}",
            "created_at": AT,
        }
        for number in (7, 8, 9)
    ]
    for name, documents in (
        ("user_credits", [account_bson(account) for account in accounts]),
        ("credit_transactions", [transaction_bson(entry) for entry in entries]),
        ("purchases", [purchase_bson(purchase) for purchase in made.purchases.values()]),
        ("alert_events", [event_bson(event) for event in made.events]),
        (
            "app_totals",
            # In two parts, as two shards write them.
            [
                {"app_id": Int64(app_id), "slot": Int64(slot), "total": Int64(part)}
                for app_id, total in totals.items()
                for slot, part in ((3, total + 5), (8, -5))
            ],
        ),
        ("app_policies", policies),
        ("directory", users),
        ("counters", [{"_id": "user_ids", "last": Int64(9)}]),
    ):
        if documents:
            database[name].insert_many(documents)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The contents of a database.

    Attributes:
        documents: The documents of each collection, in the collection's order. They are raw BSON,
            which is compared without decoding.
        indexes: The indexes of each collection.
    """

    documents: Mapping[str, Sequence[RawBSONDocument]]
    indexes: Mapping[str, Mapping[str, Any]]  # Any: the driver's descriptions

    @classmethod
    def of(cls, database: Database[Document]) -> Self:
        """Read a database."""
        names = [name for name in database.list_collection_names() if name != "system.views"]
        return cls(
            documents={name: list(_raw(database, name).find()) for name in names},
            indexes={name: database[name].index_information() for name in names},
        )

    def restore(self, database: Database[Document]) -> None:
        """Restore all documents and indexes after a test has damaged them."""
        for name, before in self.documents.items():
            collection = _raw(database, name)
            if list(collection.find()) != before:
                collection.delete_many({})
                if before:
                    collection.insert_many(before, bypass_document_validation=True)
        for name, indexes in self.indexes.items():
            for index in indexes.keys() - database[name].index_information().keys():
                options = {k: v for k, v in indexes[index].items() if k not in ("v", "ns")}
                database[name].create_index(options.pop("key"), name=index, **options)


# Any: the driver's types do not depend on the options.
def _raw(database: Database[Document], name: str) -> Collection[Any]:
    return database.get_collection(name, CodecOptions(document_class=RawBSONDocument))


def new_id() -> ObjectId:
    """Return an id that no document has."""
    return ObjectId()
