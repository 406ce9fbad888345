"""One entry to be made in the peer's ledger, and what comes of it."""

from dataclasses import dataclass
from enum import StrEnum

UINT32_MAX = 2**32 - 1


class Kind(StrEnum):
    """What an entry does to the balance."""

    ADD = "add"
    USE = "use"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A valid request to change a balance. `report_id` and `report_name` are empty for an ADD."""

    kind: Kind
    user_id: int
    app_id: int
    credits: int
    created_by: int
    idempotency_key: str
    report_id: str = ""
    report_name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Posted:
    """What an entry did, now or, `replayed`, at an earlier call with the same key."""

    transaction_id: str
    purchase_id: str
    balance: int
    sequence: int
    replayed: bool


class Refused(Exception):
    """The ledger's rules forbid the entry. Nothing was written."""


class KeyReused(Refused):
    """The idempotency key came before in this app, with another request."""


class InsufficientCredits(Refused):
    """The user holds less than the purchase costs."""


class BalanceOverflow(Refused):
    """The balance would pass 2**32 - 1."""
