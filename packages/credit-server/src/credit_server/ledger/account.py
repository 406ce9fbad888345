"""What a user holds, as the ledger sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

UINT32_MAX = 2**32 - 1
"""The greatest balance, number of credits and id: the contract's integers are uint32."""

APPS_MAX = 1000
"""In how many apps one user may ever have credits. An account is one document, which each of its
transactions reads and writes: with 20,000 apps one took 0.8 s (2-core machine)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One user's balances in all apps. Never changed: each transaction makes a new one.

    Attributes:
        user_id: Whose account it is.
        id: The record's id in the store; empty until it has been read from there.
        balances: The balance of every app in which the user ever had credits, 0 to 2**32 - 1.
        revision: How many transactions the user has: the `sequence` of the latest one.
        created_at: When the first transaction was decided; None before it.
        updated_at: When the latest transaction was decided; None before the first.
        created_by: Who asked for the first transaction; 0 before it.
        updated_by: Who asked for the latest transaction; 0 before the first.
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
        """Make the account of a user that never had credits."""
        return cls(user_id=user_id, balances={})

    def balance(self, app_id: int) -> int:
        """Return the number of credits held in an app; 0 where there never were any."""
        return self.balances.get(app_id, 0)
