"""What the operator of `credit-server repair` asked for, and what became of each correction."""

from dataclasses import dataclass, field
from enum import Enum

from credit_server.verify.findings import Code


class State(Enum):
    """What became of a correction."""

    PLANNED = "would"
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What the operator asked for.

    Attributes:
        created_by: The operator's number, which the entries show.
        reason: Why; the note of the entries.
        keeps_account: Whether the stored balance is right where it differs from the history; an
            ADJUST then adds the difference to the history.
        apply: Whether to write; otherwise only what would be written is reported.
    """

    created_by: int
    reason: str
    keeps_account: bool
    apply: bool


@dataclass(kw_only=True, slots=True)
class Correction:
    """What was corrected for a user or an app, or why nothing was.

    Attributes:
        user_id: The user; 0: none.
        app_id: The app; 0: none.
        state: What became of it.
        findings: The kinds of findings that it concerns.
        actions: What was or would be written, or why nothing is.
        transaction_ids: The entries that were written.
    """

    user_id: int = 0
    app_id: int = 0
    state: State
    findings: tuple[str, ...]
    actions: list[str] = field(default_factory=list)
    transaction_ids: list[str] = field(default_factory=list)


def state_of(order: Order) -> State:
    """Return what becomes of a correction that nothing prevents."""
    return State.DONE if order.apply else State.PLANNED


def advice(codes: set[Code]) -> str:
    """Return what an operator must do about findings that cannot be corrected."""
    remedies = dict.fromkeys(code.remedy.value for code in Code if code in codes)
    return "; ".join(remedies)


def names(codes: set[Code]) -> tuple[str, ...]:
    """Return the names of findings, in order."""
    return tuple(sorted(code.value for code in codes))
