"""What can come of a command. Refusals are expected: values, not exceptions."""

from dataclasses import dataclass

from credit_server.ledger.account import Account
from credit_server.ledger.history import Purchase, Transaction


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The command takes effect: these are all its effects.

    Attributes:
        account: The account as it is afterwards.
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
        transaction: The entry that it made then.
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
        """How many credits are missing, at least 1."""
        return self.required - self.available


@dataclass(frozen=True, kw_only=True, slots=True)
class BalanceOverflow:
    """The balance would pass 2**32 - 1.

    Attributes:
        balance: What it is.
        credits: What was to be added.
    """

    balance: int
    credits: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CreditsLimitExceeded:
    """The call adds more credits than its caller may add at once.

    Attributes:
        credits: How many it adds.
        limit: How many it may add.
    """

    credits: int
    limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TooManyApps:
    """The user has, or had, credits in as many apps as one user may.

    Attributes:
        limit: How many that is.
    """

    limit: int


Refusal = KeyReused | CreditsLimitExceeded | InsufficientCredits | BalanceOverflow | TooManyApps
Outcome = Accepted | Replayed | Refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What the client is told of a command that took effect, now or earlier.

    Attributes:
        transaction: The entry that the command made.
        replayed: Whether it was made for an earlier call with the same key.
    """

    transaction: Transaction
    replayed: bool
