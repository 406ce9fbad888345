"""The history: transactions and purchases, written once and never changed."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Kind(Enum):
    """How a transaction changed the balance; the values are the store's."""

    ADD = "add"
    USE = "use"


@dataclass(frozen=True, kw_only=True, slots=True)
class Transaction:
    """One change of a balance.

    Attributes:
        id: Its id, unique among all transactions.
        user_id: The user whose balance changed.
        app_id: The app.
        kind: How it changed the balance.
        credits: The number of credits that it added or used, 1 to 2**32 - 1.
        balance_after: The balance in the app after it, 0 to 2**32 - 1.
        sequence: Counts the user's transactions over all apps: 1, 2, 3 and so on without a gap.
        created_at: The time of the decision, UTC, in whole milliseconds. Never before the user's
            previous transaction, unless no correct clock can have given that one its time.
        created_by: The number of the requester.
        key: The client's idempotency key; empty if it sent none.
        purchase_id: The purchase that it paid for; empty for an ADD.
        report_id: The report that was bought; empty for an ADD. It is stored here too, with the
            name, to compare a retry with the first request.
        report_name: Its name for people; empty for an ADD.
    """

    id: str
    user_id: int
    app_id: int
    kind: Kind
    credits: int
    balance_after: int
    sequence: int
    created_at: datetime
    created_by: int
    key: str
    purchase_id: str = ""
    report_id: str = ""
    report_name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Purchase:
    """One report bought with credits.

    Attributes are those of the contract's `Purchase`, and:
        sequence: The `sequence` of the transaction that paid for it; lists are ordered by it.
    """

    id: str
    user_id: int
    app_id: int
    report_id: str
    report_name: str
    credits: int
    created_at: datetime
    created_by: int
    transaction_id: str
    sequence: int
