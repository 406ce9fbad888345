"""A user's balances."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

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
