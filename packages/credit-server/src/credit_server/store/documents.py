"""The documents of the collections, and their translation from and to the ledger's values.

The models define the collections: `schema.py` makes the `$jsonSchema` validators from them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

from bson.objectid import ObjectId
from credit_models.ledger import (
    NO_DETAILS,
    UINT32_MAX,
    Account,
    Details,
    Kind,
    Purchase,
    Transaction,
)
from pydantic import Field

from credit_server.store.alert_events import EventGap
from credit_server.store.app_documents import (
    AllocationDocument,
    AppDocument,
    from_allocations,
    to_allocations,
)
from credit_server.store.fields import (
    Credits,
    Document,
    Key,
    Long,
    Number,
    PairDocument,
    ReportId,
    ReportName,
    Sequence,
    Signed,
    from_pairs,
    to_pairs,
)
from credit_server.store.port import DirectoryUser


class BalanceDocument(Document):
    """A user's balance in one app."""

    app_id: Number
    balance: Signed
    # The hash of the latest entry in the app. Absent if no entry has one.
    head: bytes | None = None


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
    # Absent in an account that keeps nothing for any app.
    apps: list[AppDocument] | None = None
    # The earliest of those of `apps`.
    due_at: datetime | None = None

    @classmethod
    def from_account(cls, account: Account) -> "AccountDocument":
        """Translate from the ledger. The store sets the id."""
        assert account.created_at is not None  # noqa: S101 - for the type checker; the model checks it
        assert account.updated_at is not None  # noqa: S101
        return cls(
            user_id=account.user_id,
            balances=[
                BalanceDocument(app_id=app_id, balance=balance, head=account.heads.get(app_id))
                for app_id, balance in sorted(account.balances.items())
            ],
            created_at=account.created_at,
            updated_at=account.updated_at,
            created_by=account.created_by,
            updated_by=account.updated_by,
            revision=account.revision,
            apps=[AppDocument.from_app(app_id, app) for app_id, app in sorted(account.apps.items())]
            or None,
            due_at=due_at(account),
        )

    def to_account(self) -> Account:
        """Translate to the ledger."""
        return Account(
            id=str(self.id),
            user_id=self.user_id,
            balances={entry.app_id: entry.balance for entry in self.balances},
            apps={app.app_id: app.to_app() for app in self.apps or ()},
            heads={entry.app_id: entry.head for entry in self.balances if entry.head is not None},
            revision=self.revision,
            created_at=self.created_at,
            updated_at=self.updated_at,
            created_by=self.created_by,
            updated_by=self.updated_by,
        )


def due_at(account: Account) -> datetime | None:
    """Return the earliest time at which something is due in an account; None: never."""
    times = (app.due_at for app in account.apps.values())
    return min((time for time in times if time is not None), default=None)


class FingerprintDocument(Document):
    """The report of a USE. It is stored here too, to compare a retry with the first request."""

    report_id: ReportId
    report_name: ReportName


_Type = Literal[
    "add",
    "use",
    "grant",
    "schedule",
    "activate",
    "expire",
    "void",
    "hold",
    "release",
    "extend",
    "refund",
    "revoke",
    "transfer_out",
    "transfer_in",
    "adjust",
    "cap",
    "alert",
]
_TYPES: dict[str, _Type] = {name: name for name in get_args(_Type)}


# Any: the values of fields of several types, which the model checks.
def _details_fields(details: Details) -> dict[str, Any]:
    if details == NO_DETAILS:
        return {}
    return {
        "related_id": ObjectId(details.related_id) if details.related_id else None,
        "related_total": details.related_total or None,
        "allocations": from_allocations(details.allocations),
        "delta": details.delta,
        "effective_at": details.effective_at,
        "ends_at": details.ends_at,
        "released": details.released or None,
        "held_after": details.held_after or None,
        "metadata": from_pairs(details.metadata),
        "note": details.note or None,
        "request": from_pairs(details.request),
        "final_revision": details.final_revision or None,
        "final_balance": details.final_balance if details.final_revision else None,
    }


class TransactionDocument(Document):
    """`credit_transactions`: one entry of a history. A plain ADD or USE has no details."""

    id: ObjectId = Field(alias="_id")
    user_id: Number
    app_id: Number
    credits: Credits
    created_at: datetime
    created_by: Number
    type: _Type
    balance_after: Signed
    sequence: Sequence
    purchase_id: ObjectId | None = None
    idempotency_key: Key | None = None
    fingerprint: FingerprintDocument | None = None
    # The details.
    related_id: ObjectId | None = None
    related_total: Number | None = None
    allocations: list[AllocationDocument] | None = None
    delta: Signed | None = None
    effective_at: datetime | None = None
    ends_at: datetime | None = None
    released: Number | None = None
    held_after: Number | None = None
    metadata: list[PairDocument] | None = None
    note: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    request: list[PairDocument] | None = None
    final_revision: Sequence | None = None
    final_balance: Signed | None = None
    # Absent in an entry that was written before its chain began. The first one of a chain has no
    # previous hash.
    previous_hash: bytes | None = None
    hash: bytes | None = None

    @classmethod
    def from_transaction(cls, entry: Transaction) -> "TransactionDocument":
        """Translate from the ledger."""
        used = entry.kind is Kind.USE
        return cls(
            _id=ObjectId(entry.id),
            user_id=entry.user_id,
            app_id=entry.app_id,
            credits=entry.credits,
            created_at=entry.created_at,
            created_by=entry.created_by,
            type=_TYPES[entry.kind.value],
            balance_after=entry.balance_after,
            sequence=entry.sequence,
            purchase_id=ObjectId(entry.purchase_id) if used else None,
            idempotency_key=entry.key or None,
            fingerprint=(
                FingerprintDocument(report_id=entry.report_id, report_name=entry.report_name)
                if used
                else None
            ),
            previous_hash=entry.previous_hash or None,
            hash=entry.hash or None,
            **_details_fields(entry.details),
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
            details=self._details(),
            previous_hash=self.previous_hash or b"",
            hash=self.hash or b"",
        )

    def _details(self) -> Details:
        return Details(
            related_id="" if self.related_id is None else str(self.related_id),
            related_total=self.related_total or 0,
            allocations=to_allocations(self.allocations),
            delta=self.delta,
            effective_at=self.effective_at,
            ends_at=self.ends_at,
            released=self.released or 0,
            held_after=self.held_after or 0,
            metadata=to_pairs(self.metadata),
            note=self.note or "",
            request=to_pairs(self.request),
            final_revision=self.final_revision or 0,
            final_balance=self.final_balance or 0,
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
    # Absent before the first refund.
    refunded_credits: Number | None = None

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
            refunded_credits=purchase.refunded_credits or None,
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
            refunded_credits=self.refunded_credits or 0,
        )


class AppTotalDocument(Document):
    """`app_totals`: one counter shard of an app's total; all counter shards add up to it."""

    id: ObjectId | None = Field(default=None, alias="_id")
    app_id: Number
    slot: Annotated[Long, Field(ge=0)]
    total: Long


class LeaseDocument(Document):
    """`leases`: which process does a kind of work for all servers."""

    id: Annotated[str, Field(min_length=1)] = Field(alias="_id")
    owner: Annotated[str, Field(min_length=1)]
    until: datetime


class DirectoryDocument(Document):
    """`directory`: a user that an app knows by text."""

    id: Number = Field(alias="_id")
    app_id: Number
    external_id: Key
    created_at: datetime

    @classmethod
    def from_user(cls, user: DirectoryUser) -> "DirectoryDocument":
        """Translate from the port."""
        return cls(
            _id=user.user_id,
            app_id=user.app_id,
            external_id=user.external_id,
            created_at=user.created_at,
        )

    def to_user(self) -> DirectoryUser:
        """Translate to the port."""
        return DirectoryUser(
            user_id=self.id,
            app_id=self.app_id,
            external_id=self.external_id,
            created_at=self.created_at,
        )


class CounterDocument(Document):
    """`counters`: the last number that was given; one more than the greatest if none is left."""

    id: Literal["user_ids"] = Field(default="user_ids", alias="_id")
    last: Annotated[Long, Field(ge=1, le=UINT32_MAX + 1)]


class EventGapDocument(Document):
    """A gap in the positions of the events of alerts."""

    last: Annotated[Long, Field(ge=0)]
    next: Annotated[Long, Field(ge=1)]


class SchemaVersionDocument(Document):
    """`schema_version`: the version of the database's schema; a single document.

    Each import adds one of the `event_gaps`: see `alert_events`.
    """

    id: Literal["credit"] = Field(default="credit", alias="_id")
    version: Annotated[Long, Field(ge=1)]
    migrated_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    event_gaps: list[EventGapDocument] | None = None


# Any: the driver's documents.
def event_gaps(stored: Mapping[str, Any] | None) -> list[EventGap]:
    """Return the gaps of a document of `schema_version`, to which later releases may add fields."""
    gaps = (stored or {}).get("event_gaps", [])
    return [EventGap(gap["last"], gap["next"]) for gap in gaps]
