"""Predict the answer to a write from the writes before it alone.

Written from the contract alone and unlike the server, so that the two do not share a mistake.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

UINT32_MAX = 2**32 - 1
APPS_MAX = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """A request that changes a balance.

    Attributes:
        report: Id and name of the report that is bought; None where credits are added.
    """

    user_id: int
    app_id: int
    credits: int
    created_by: int
    key: str
    report: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """The write has happened, now or before (`replayed`), as the entry with this sequence."""

    sequence: int
    balance: int
    replayed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """The request was refused: the contract's reason and its metadata, in the contract's order."""

    reason: str
    metadata: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """A user's ledger after some writes; immutable, each write makes a new one.

    Attributes:
        sequence: How many writes those were.
        balances: By app; an app stays when its balance falls to 0.
        answers: The write and the first answer of every key in every app.
    """

    sequence: int = 0
    balances: Mapping[int, int] = field(default_factory=dict)
    answers: Mapping[tuple[int, str], tuple[Write, Done]] = field(default_factory=dict)

    def after(self, write: Write, done: Done) -> "State":
        """Return the state after a write."""
        return State(
            sequence=done.sequence,
            balances={**self.balances, write.app_id: done.balance},
            answers={**self.answers, (write.app_id, write.key): (write, done)},
        )


def predict(state: State, write: Write) -> Done | Refused:
    """Return the answer of a ledger in this state, by the contract's rules and their precedence."""
    if (write.app_id, write.key) in state.answers:
        earlier, done = state.answers[write.app_id, write.key]
        if earlier != write:
            fields = ",".join(_differing_fields(earlier, write))
            return Refused(reason="IDEMPOTENCY_KEY_REUSED", metadata=(fields,))
        return replace(done, replayed=True)
    balance = state.balances.get(write.app_id, 0)
    change = write.credits if write.report is None else -write.credits
    if balance + change < 0:
        numbers = (balance, write.credits, write.credits - balance)
        return Refused(reason="INSUFFICIENT_CREDITS", metadata=numbers)
    if balance + change > UINT32_MAX:
        return Refused(reason="BALANCE_OVERFLOW", metadata=(balance, write.credits))
    if write.app_id not in state.balances and len(state.balances) >= APPS_MAX:
        return Refused(reason="TOO_MANY_APPS", metadata=(APPS_MAX,))
    return Done(sequence=state.sequence + 1, balance=balance + change, replayed=False)


def _differing_fields(earlier: Write, later: Write) -> list[str]:
    """Return the names of the request's fields that differ, in the contract's order."""
    if (earlier.report is None) != (later.report is None):
        return ["call"]
    compared: dict[str, tuple[object, object]] = {}
    if earlier.report is not None and later.report is not None:
        compared["report_id"] = (earlier.report[0], later.report[0])
        compared["report_name"] = (earlier.report[1], later.report[1])
    compared["credits"] = (earlier.credits, later.credits)
    compared["created_by"] = (earlier.created_by, later.created_by)
    return [name for name, (one, other) in compared.items() if one != other]
