"""The values of the ledger.

They are the records (Account, Transaction, Purchase), the commands (Add, Use) and the outcomes of a
command: Accepted, Replayed, or a refusal. A refusal is a value and not an exception, because it is
expected.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

# The greatest balance, number of credits and id: the contract's integers are uint32.
UINT32_MAX = 2**32 - 1

# In how many apps one user may ever have credits. An account is one document, which each of its
# transactions reads and writes: with 20,000 apps a transaction took 0.8 s (2-core machine).
APPS_MAX = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One user's balances in all apps. Immutable: each transaction makes a new account.

    Attributes:
        user_id: The user.
        id: The record's id in the store; empty until it was read from there.
        balances: The balance of every app in which the user ever had credits, 0 to 2**32 - 1.
        revision: The number of the user's transactions: the `sequence` of the latest one.
        created_at: The time of the first transaction; None before it.
        updated_at: The time of the latest transaction; None before the first.
        created_by: The number of the requester of the first transaction; 0 before it.
        updated_by: The number of the requester of the latest transaction; 0 before the first.
    """

    user_id: int
    id: str = ""
    balances: Mapping[int, int]
    revision: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: int = 0
    updated_by: int = 0

    @classmethod
    def empty(cls, user_id: int) -> "Account":
        """Return the account of a user that never had credits."""
        return cls(user_id=user_id, balances={})

    def balance(self, app_id: int) -> int:
        """Return the balance in an app; 0 if the user never had credits there."""
        return self.balances.get(app_id, 0)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Add:
    """Add credits to a user's balance in an app.

    Attributes:
        user_id: The user, 1 to 2**32 - 1, like the other ids.
        app_id: The app.
        credits: The number of credits, 1 to 2**32 - 1.
        created_by: The number of the requester.
        key: The client's idempotency key; empty if it sent none.
        transaction_id: The id of the transaction if the command is accepted. It is set on arrival
            and the same in every attempt, so it shows whether an attempt with an unknown result
            took effect.
        credits_max: The most credits that this caller may add in one call, 1 to 2**32 - 1. It is
            not part of the request: a retry succeeds although the limit was lowered meanwhile.
    """

    user_id: int
    app_id: int
    credits: int
    created_by: int
    key: str
    transaction_id: str
    credits_max: int = UINT32_MAX


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """Buy a report with a user's credits in an app.

    Attributes are those of `Add` except `credits_max`, and:
        report_id: The report, as the app names it.
        report_name: Its name for people.
        purchase_id: The id of the purchase if the command is accepted.
    """

    user_id: int
    app_id: int
    report_id: str
    report_name: str
    credits: int
    created_by: int
    key: str
    transaction_id: str
    purchase_id: str


Command = Add | Use


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The command takes effect. These are all its effects.

    Attributes:
        account: The changed account.
        transaction: The new entry in the history.
        purchase: The new purchase; None for an ADD.
    """

    account: Account
    transaction: Transaction
    purchase: Purchase | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """The command took effect earlier; it has no effect now.

    Attributes:
        transaction: The entry of the earlier effect.
    """

    transaction: Transaction


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyReused:
    """The idempotency key was used before, for another request of this user in this app.

    Attributes:
        fields: The names of the request's fields that differ, in the contract's order; `call`
            stands for another call.
    """

    fields: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class InsufficientCredits:
    """The user holds less than the purchase costs.

    Attributes:
        available: The balance.
        required: The price, greater than the balance.
    """

    available: int
    required: int

    @property
    def shortfall(self) -> int:
        """The number of missing credits, at least 1."""
        return self.required - self.available


@dataclass(frozen=True, kw_only=True, slots=True)
class BalanceOverflow:
    """The balance would exceed 2**32 - 1.

    Attributes:
        balance: The balance before.
        credits: The credits of the request.
    """

    balance: int
    credits: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CreditsLimitExceeded:
    """The call adds more credits than its caller may add at once.

    Attributes:
        credits: The credits of the request.
        limit: The most that the caller may add.
    """

    credits: int
    limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TooManyApps:
    """The user has, or had, credits in the largest number of apps that is allowed.

    Attributes:
        limit: That number.
    """

    limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchAborted:
    """Another command of the same atomic batch was rejected.

    Attributes:
        index: The position of the first rejected command in the batch, from 0.
    """

    index: int


Refusal = (
    KeyReused
    | CreditsLimitExceeded
    | InsufficientCredits
    | BalanceOverflow
    | TooManyApps
    | BatchAborted
)
Outcome = Accepted | Replayed | Refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """The answer to a command that took effect, now or earlier.

    Attributes:
        transaction: The entry that the command made.
        replayed: Whether an earlier call with the same key made it.
    """

    transaction: Transaction
    replayed: bool
