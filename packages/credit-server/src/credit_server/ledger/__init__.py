"""The ledger's rules as pure functions, without I/O, clock, random numbers or floats."""

from credit_server.ledger.account import APPS_MAX, UINT32_MAX, Account
from credit_server.ledger.command import Add, Command, Use
from credit_server.ledger.decide import decide
from credit_server.ledger.history import Kind, Purchase, Transaction
from credit_server.ledger.invariant import InvariantViolated, invariant
from credit_server.ledger.outcome import (
    Accepted,
    BalanceOverflow,
    CreditsLimitExceeded,
    InsufficientCredits,
    KeyReused,
    Outcome,
    Receipt,
    Refusal,
    Replayed,
    TooManyApps,
)

__all__ = [
    "APPS_MAX",
    "UINT32_MAX",
    "Accepted",
    "Account",
    "Add",
    "BalanceOverflow",
    "Command",
    "CreditsLimitExceeded",
    "InsufficientCredits",
    "InvariantViolated",
    "KeyReused",
    "Kind",
    "Outcome",
    "Purchase",
    "Receipt",
    "Refusal",
    "Replayed",
    "TooManyApps",
    "Transaction",
    "Use",
    "decide",
    "invariant",
]
