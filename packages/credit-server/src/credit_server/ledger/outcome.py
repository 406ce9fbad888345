"""The outcomes of a command. Refusals are expected, so they are values, not exceptions."""

from dataclasses import dataclass

from credit_server.ledger.account import Account
from credit_server.ledger.history import Purchase, Transaction


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


Refusal = KeyReused | CreditsLimitExceeded | InsufficientCredits | BalanceOverflow | TooManyApps
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
