"""The documents of the collections, and their translation from and to the ledger's values.

The models define the collections: `schema.py` makes the `$jsonSchema` validators from them.
Integers are stored as int64 (`long`), because uint32 does not fit MongoDB's int32.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from bson.int64 import Int64
from bson.objectid import ObjectId
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from credit_server.ledger import UINT32_MAX, Account, Kind, Purchase, Transaction, invariant
from credit_server.store.port import PurchaseRow, TransactionRow

# A document as the driver returns it. The model that parses it checks its values.
Raw = Mapping[str, Any]

_Long = Annotated[int, PlainSerializer(Int64)]
# An id or a number of credits.
Number = Annotated[_Long, Field(ge=1, le=UINT32_MAX)]
# A balance.
Credits = Annotated[_Long, Field(ge=0, le=UINT32_MAX)]
Sequence = Annotated[_Long, Field(ge=1)]
Key = Annotated[str, Field(min_length=1, max_length=128)]
ReportId = Annotated[str, Field(min_length=1, max_length=128)]
ReportName = Annotated[str, Field(min_length=1, max_length=256)]

_KINDS = {kind.value: kind for kind in Kind}


class Document(BaseModel):
    """A document or a part of one. Fields that are None are absent in the store."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True
    )

    def to_bson(self) -> dict[str, Any]:
        """Return the document that the driver stores."""
        return self.model_dump(by_alias=True, exclude_none=True)


class BalanceDocument(Document):
    """A user's balance in one app."""

    app_id: Number
    balance: Credits


class AccountDocument(Document):
    """`user_credits`: one user's balances."""

    id: ObjectId | None = Field(default=None, alias="_id")
    user_id: Number
    balances: list[BalanceDocument]
    created_at: datetime
    updated_at: datetime
    created_by: Number
    updated_by: Number
    revision: Sequence

    @classmethod
    def from_account(cls, account: Account) -> "AccountDocument":
        """Translate from the ledger. The store sets the id."""
        assert account.created_at is not None  # noqa: S101 - for the type checker; the model checks it
        assert account.updated_at is not None  # noqa: S101
        return cls(
            user_id=account.user_id,
            balances=[
                BalanceDocument(app_id=app_id, balance=balance)
                for app_id, balance in sorted(account.balances.items())
            ],
            created_at=account.created_at,
            updated_at=account.updated_at,
            created_by=account.created_by,
            updated_by=account.updated_by,
            revision=account.revision,
        )

    def to_account(self) -> Account:
        """Translate to the ledger."""
        return Account(
            id=str(self.id),
            user_id=self.user_id,
            balances={entry.app_id: entry.balance for entry in self.balances},
            revision=self.revision,
            created_at=self.created_at,
            updated_at=self.updated_at,
            created_by=self.created_by,
            updated_by=self.updated_by,
        )


class FingerprintDocument(Document):
    """The fields of a USE request that the transaction does not hold, to compare retries."""

    report_id: ReportId
    report_name: ReportName


class TransactionDocument(Document):
    """`credit_transactions`: one change of a balance."""

    id: ObjectId = Field(alias="_id")
    user_id: Number
    app_id: Number
    credits: Number
    created_at: datetime
    created_by: Number
    type: Literal["add", "use"]
    balance_after: Credits
    sequence: Sequence
    purchase_id: ObjectId | None = None
    idempotency_key: Key | None = None
    fingerprint: FingerprintDocument | None = None

    @classmethod
    def from_transaction(cls, entry: Transaction) -> "TransactionDocument":
        """Translate from the ledger."""
        kind = entry.kind
        invariant(kind in (Kind.ADD, Kind.USE), f"no document of the kind {kind.value} exists")
        used = kind is Kind.USE
        return cls(
            _id=ObjectId(entry.id),
            user_id=entry.user_id,
            app_id=entry.app_id,
            credits=entry.credits,
            created_at=entry.created_at,
            created_by=entry.created_by,
            type="use" if used else "add",
            balance_after=entry.balance_after,
            sequence=entry.sequence,
            purchase_id=ObjectId(entry.purchase_id) if used else None,
            idempotency_key=entry.key or None,
            fingerprint=(
                FingerprintDocument(report_id=entry.report_id, report_name=entry.report_name)
                if used
                else None
            ),
        )

    def to_transaction(self) -> Transaction:
        """Translate to the ledger."""
        return Transaction(
            id=str(self.id),
            user_id=self.user_id,
            app_id=self.app_id,
            kind=Kind(self.type),
            credits=self.credits,
            balance_after=self.balance_after,
            sequence=self.sequence,
            created_at=self.created_at,
            created_by=self.created_by,
            key=self.idempotency_key or "",
            purchase_id="" if self.purchase_id is None else str(self.purchase_id),
            report_id="" if self.fingerprint is None else self.fingerprint.report_id,
            report_name="" if self.fingerprint is None else self.fingerprint.report_name,
        )


class PurchaseDocument(Document):
    """`purchases`: one report bought with credits."""

    id: ObjectId = Field(alias="_id")
    user_id: Number
    app_id: Number
    report_id: ReportId
    report_name: ReportName
    credits: Number
    created_at: datetime
    created_by: Number
    transaction_id: ObjectId
    sequence: Sequence

    @classmethod
    def from_purchase(cls, purchase: Purchase) -> "PurchaseDocument":
        """Translate from the ledger."""
        return cls(
            _id=ObjectId(purchase.id),
            user_id=purchase.user_id,
            app_id=purchase.app_id,
            report_id=purchase.report_id,
            report_name=purchase.report_name,
            credits=purchase.credits,
            created_at=purchase.created_at,
            created_by=purchase.created_by,
            transaction_id=ObjectId(purchase.transaction_id),
            sequence=purchase.sequence,
        )

    def to_purchase(self) -> Purchase:
        """Translate to the ledger."""
        return Purchase(
            id=str(self.id),
            user_id=self.user_id,
            app_id=self.app_id,
            report_id=self.report_id,
            report_name=self.report_name,
            credits=self.credits,
            created_at=self.created_at,
            created_by=self.created_by,
            transaction_id=str(self.transaction_id),
            sequence=self.sequence,
        )


def transaction_row(document: Raw) -> TransactionRow:
    """Return the row of a transaction's document, whose times were decoded as `DatetimeMS`."""
    purchase_id = document.get("purchase_id")
    return TransactionRow(
        document["_id"].binary.hex(),
        document["user_id"],
        document["app_id"],
        document["credits"],
        int(document["created_at"]),
        document["created_by"],
        _KINDS[document["type"]],
        document["balance_after"],
        document["sequence"],
        "" if purchase_id is None else purchase_id.binary.hex(),
        document.get("idempotency_key", ""),
    )


def purchase_row(document: Raw) -> PurchaseRow:
    """Return the row of a purchase's document; see `transaction_row`."""
    return PurchaseRow(
        document["_id"].binary.hex(),
        document["user_id"],
        document["app_id"],
        document["report_id"],
        document["report_name"],
        document["credits"],
        int(document["created_at"]),
        document["created_by"],
        document["transaction_id"].binary.hex(),
        document["sequence"],
    )


class AppTotalDocument(Document):
    """`app_totals`: one counter shard of an app's total; all counter shards add up to it."""

    id: ObjectId | None = Field(default=None, alias="_id")
    app_id: Number
    slot: Annotated[_Long, Field(ge=0)]
    total: _Long


class SchemaVersionDocument(Document):
    """`schema_version`: the version of the database's schema; a single document."""

    id: Literal["credit"] = Field(default="credit", alias="_id")
    version: Annotated[_Long, Field(ge=1)]
    migrated_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
