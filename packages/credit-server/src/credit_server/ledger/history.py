"""What has happened: transactions and purchases, written once and never changed."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Kind(Enum):
    """What a transaction did to the balance; the values are the store's."""

    ADD = "add"
    USE = "use"


@dataclass(frozen=True, kw_only=True, slots=True)
class Transaction:
    """One change of a balance.

    Attributes:
        id: Identifies it among all transactions.
        user_id: Whose balance changed.
        app_id: In which app.
        kind: What it did.
        credits: How many credits it added or used, 1 to 2**32 - 1.
        balance_after: The balance in the app after it, 0 to 2**32 - 1.
        sequence: Counts the user's transactions over all apps: 1, 2, 3 and so on without a gap.
        created_at: When it was decided, UTC, in whole milliseconds; never before the user's
            previous transaction, unless no sound clock can have given that one its time.
        created_by: Who asked for it.
        key: The client's idempotency key; empty when it sent none.
        purchase_id: The purchase that it paid for; empty for an ADD.
        report_id: What was bought; empty for an ADD. Kept here too, with the name, so that a
            request that comes again with the same key can be compared with the first.
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
