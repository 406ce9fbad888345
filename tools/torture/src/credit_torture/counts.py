"""Count the calls of a process by their kind and answer."""

from collections import Counter

from credit_models import Receipt
from credit_testing.accounts.journal import Call, NoEffect, Read, Together, Unforeseen, Unknown
from credit_testing.accounts.rules.decision import Refused


class Counts:
    """The calls of a process so far.

    Attributes:
        acknowledged: The writes with a receipt.
    """

    def __init__(self) -> None:
        self.acknowledged = 0
        self.calls: Counter[tuple[str, str]] = Counter()

    def note(self, call: Call) -> None:
        """Count a call that has ended."""
        outcome = outcome_of(call)
        self.calls[kind_of(call), outcome] += 1
        if not isinstance(call.question, Read):
            self.acknowledged += outcome in ("acknowledged", "replayed")


def kind_of(call: Call) -> str:
    """Return the kind of a call: the name of its request or read."""
    question = call.question
    if isinstance(question, Read):
        return question.kind.value
    if isinstance(question, Together):
        return "atomic BatchWrite"
    return type(question.request).__name__.removesuffix("Request")


def outcome_of(call: Call) -> str:
    """Return the kind of an answer."""
    match call.answer:
        case Receipt(validated=True):
            return "validated"
        case Receipt(replayed=True):
            return "replayed"
        case Receipt():
            return "acknowledged"
        case Refused():
            return "refused"
        case NoEffect():
            return "no effect"
        case Unknown():
            return "failed" if isinstance(call.question, Read) else "unknown"
        case Unforeseen():
            return "unforeseen"
        case tuple() as parts:
            return "refused" if any(isinstance(one, Refused) for one in parts) else "acknowledged"
        case _:
            return "shown"
