"""The documents of what an account keeps for an app: grants, holds, caps, alerts, what was spent.

The document of an app's policy, which has caps and alerts too, is also here.
"""

from collections.abc import Sequence as Values
from datetime import datetime
from typing import Annotated, Literal

from bson.objectid import ObjectId
from credit_models.ledger import (
    NO_CAPS,
    PRIORITY_DEFAULT,
    Allocation,
    AppAccount,
    Caps,
    Category,
    Grant,
    Hold,
    Period,
    PeriodSpending,
    Policy,
)
from pydantic import Field

from credit_server.store.alert_documents import AlertDocument
from credit_server.store.fields import Credits, Document, Long, Number, Sequence
from credit_server.store.port import AppPolicy

_Priority = Annotated[Long, Field(ge=0, le=1000)]
# Absent: unspecified.
_Category = Literal["paid", "promotional", "own"]
_CATEGORIES: dict[Category, _Category] = {
    Category.PAID: "paid",
    Category.PROMOTIONAL: "promotional",
    Category.OWN: "own",
}


def _to_category(stored: _Category | None) -> Category:
    return Category.UNSPECIFIED if stored is None else Category(stored)


class AllocationDocument(Document):
    """The part of an entry or of a hold that concerns one grant.

    For base credits all fields but `credits` are absent.
    """

    credits: Number
    grant_id: ObjectId | None = None
    sequence: Sequence | None = None
    priority: _Priority | None = None
    category: _Category | None = None
    ends_at: datetime | None = None

    @classmethod
    def from_allocation(cls, part: Allocation) -> "AllocationDocument":
        """Translate from the ledger."""
        if not part.grant_id:
            return cls(credits=part.credits)
        return cls(
            credits=part.credits,
            grant_id=ObjectId(part.grant_id),
            sequence=part.sequence,
            priority=part.priority,
            category=_CATEGORIES.get(part.category),
            ends_at=part.ends_at,
        )

    def to_allocation(self) -> Allocation:
        """Translate to the ledger."""
        return Allocation(
            credits=self.credits,
            grant_id="" if self.grant_id is None else str(self.grant_id),
            sequence=self.sequence or 0,
            priority=PRIORITY_DEFAULT if self.priority is None else self.priority,
            category=_to_category(self.category),
            ends_at=self.ends_at,
        )


def from_allocations(parts: Values[Allocation]) -> list[AllocationDocument] | None:
    """Translate allocations from the ledger."""
    return [AllocationDocument.from_allocation(part) for part in parts] or None


def to_allocations(documents: list[AllocationDocument] | None) -> tuple[Allocation, ...]:
    """Translate allocations to the ledger."""
    return tuple(document.to_allocation() for document in documents or ())


class GrantDocument(Document):
    """A grant of an account."""

    # mongod validates the whole account at each write of it: 0.5 ms for the values of 256 grants
    # (2-core machine). The model checks a grant before it is written, and whenever it is read.
    values_are_validated = False

    id: ObjectId
    sequence: Sequence
    credits: Number
    left: Credits
    priority: _Priority
    category: _Category | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    created_by: Number

    @classmethod
    def from_grant(cls, grant: Grant) -> "GrantDocument":
        """Translate from the ledger."""
        return cls(
            id=ObjectId(grant.id),
            sequence=grant.sequence,
            credits=grant.credits,
            left=grant.left,
            priority=grant.priority,
            category=_CATEGORIES.get(grant.category),
            starts_at=grant.starts_at,
            ends_at=grant.ends_at,
            created_by=grant.created_by,
        )

    def to_grant(self) -> Grant:
        """Translate to the ledger."""
        return Grant(
            id=str(self.id),
            sequence=self.sequence,
            credits=self.credits,
            left=self.left,
            priority=self.priority,
            category=_to_category(self.category),
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            created_by=self.created_by,
        )


class HoldDocument(Document):
    """An open hold of an account."""

    values_are_validated = False  # as for a grant

    id: ObjectId
    sequence: Sequence
    credits: Number
    allocations: list[AllocationDocument] | None = None
    placed_at: datetime
    ends_at: datetime
    captured: Credits | None = None
    purpose: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    created_by: Number

    @classmethod
    def from_hold(cls, hold: Hold) -> "HoldDocument":
        """Translate from the ledger."""
        return cls(
            id=ObjectId(hold.id),
            sequence=hold.sequence,
            credits=hold.credits,
            allocations=from_allocations(hold.allocations),
            placed_at=hold.placed_at,
            ends_at=hold.ends_at,
            captured=hold.captured or None,
            purpose=hold.purpose or None,
            created_by=hold.created_by,
        )

    def to_hold(self) -> Hold:
        """Translate to the ledger."""
        return Hold(
            id=str(self.id),
            sequence=self.sequence,
            credits=self.credits,
            allocations=to_allocations(self.allocations),
            placed_at=self.placed_at,
            ends_at=self.ends_at,
            captured=self.captured or 0,
            purpose=self.purpose or "",
            created_by=self.created_by,
        )


class CapsDocument(Document):
    """Spending caps; an absent period has none."""

    hour: Number | None = None
    day: Number | None = None
    month: Number | None = None

    @classmethod
    def from_caps(cls, caps: Caps) -> "CapsDocument | None":
        """Translate from the ledger; None: there is no cap."""
        if caps == NO_CAPS:
            return None
        return cls(hour=caps.hour, day=caps.day, month=caps.month)

    @staticmethod
    def to_caps(stored: "CapsDocument | None") -> Caps:
        """Translate to the ledger."""
        if stored is None:
            return NO_CAPS
        return Caps(hour=stored.hour, day=stored.day, month=stored.month)


class SpentDocument(Document):
    """The credits used in one period."""

    period: Literal["hour", "day", "month"]
    starts_at: datetime
    # The number can exceed a cap if the cap was lowered.
    credits: Annotated[Long, Field(ge=0)]
    since: Sequence


_PERIODS: dict[Period, Literal["hour", "day", "month"]] = {
    Period.HOUR: "hour",
    Period.DAY: "day",
    Period.MONTH: "month",
}


class AppDocument(Document):
    """What an account keeps for one app beyond the balance."""

    app_id: Number
    caps: CapsDocument | None = None
    spent: list[SpentDocument] | None = None
    alerts: list[AlertDocument] | None = None
    # It follows from the grants and holds. It is stored because the sweeper's query reads it.
    due_at: datetime | None = None
    grants: list[GrantDocument] | None = None
    scheduled: list[GrantDocument] | None = None
    holds: list[HoldDocument] | None = None

    @classmethod
    def from_app(cls, app_id: int, app: AppAccount) -> "AppDocument":
        """Translate from the ledger."""
        return cls(
            app_id=app_id,
            grants=[GrantDocument.from_grant(grant) for grant in app.grants] or None,
            scheduled=[GrantDocument.from_grant(grant) for grant in app.scheduled] or None,
            holds=[HoldDocument.from_hold(hold) for hold in app.holds] or None,
            caps=CapsDocument.from_caps(app.caps),
            spent=[
                SpentDocument(
                    period=_PERIODS[each.period],
                    starts_at=each.starts_at,
                    credits=each.credits,
                    since=each.since,
                )
                for each in app.spent
            ]
            or None,
            alerts=AlertDocument.from_alerts(app.alerts),
            due_at=app.due_at,
        )

    def to_app(self) -> AppAccount:
        """Translate to the ledger."""
        return AppAccount.of(
            grants=tuple(grant.to_grant() for grant in self.grants or ()),
            scheduled=tuple(grant.to_grant() for grant in self.scheduled or ()),
            holds=tuple(hold.to_hold() for hold in self.holds or ()),
            caps=CapsDocument.to_caps(self.caps),
            spent=tuple(
                PeriodSpending(
                    period=Period(each.period),
                    starts_at=each.starts_at,
                    credits=each.credits,
                    since=each.since,
                )
                for each in self.spent or ()
            ),
            alerts=AlertDocument.to_alerts(self.alerts),
        )


class AppPolicyDocument(Document):
    """`app_policies`: the rules of an app for all its users."""

    id: ObjectId | None = Field(default=None, alias="_id")
    app_id: Number
    caps: CapsDocument | None = None
    alerts: list[AlertDocument] | None = None
    allow_negative: bool
    revision: Sequence
    updated_at: datetime
    updated_by: Number

    @classmethod
    def from_policy(cls, stored: AppPolicy) -> "AppPolicyDocument":
        """Translate from the port. The store sets the id."""
        assert stored.updated_at is not None  # noqa: S101 - for the type checker; the model checks it
        return cls(
            app_id=stored.app_id,
            caps=CapsDocument.from_caps(stored.policy.caps),
            alerts=AlertDocument.from_alerts(stored.policy.alerts),
            allow_negative=stored.policy.allow_negative,
            revision=stored.revision,
            updated_at=stored.updated_at,
            updated_by=stored.updated_by,
        )

    def to_policy(self) -> AppPolicy:
        """Translate to the port."""
        return AppPolicy(
            app_id=self.app_id,
            policy=Policy(
                caps=CapsDocument.to_caps(self.caps),
                allow_negative=self.allow_negative,
                alerts=AlertDocument.to_alerts(self.alerts),
            ),
            revision=self.revision,
            updated_at=self.updated_at,
            updated_by=self.updated_by,
        )
