"""Record calls: the client, the request, the begin and the end, and the answer."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from credit_client import CreditTransaction, Purchase, UserCredits
from credit_testing.accounts.journal import Unforeseen, Unknown

from tests.fuzz.ledger_model import Done, Refused, Write


class Kind(Enum):
    """The calls that change nothing."""

    USER_CREDITS = auto()
    BALANCE = auto()
    APP_TOTAL = auto()
    TRANSACTIONS = auto()
    PURCHASES = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """A request that changes nothing; of user and app, each kind looks at what it needs."""

    kind: Kind
    user_id: int
    app_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Acknowledged:
    """A write's receipt."""

    done: Done
    transaction_id: str
    purchase_id: str


Shown = UserCredits | int | Sequence[CreditTransaction] | Sequence[Purchase]
Answer = Acknowledged | Refused | Unknown | Unforeseen | Shown


@dataclass(kw_only=True, slots=True)
class Call:
    """One call from its beginning to its end.

    Attributes:
        client: Which client made it.
        began: The moment before anything was sent.
        ended: The moment after the answer had come; None while it runs.
        answer: The answer.
    """

    client: int
    question: Write | Read
    began: int
    ended: int | None = None
    answer: Answer = field(default_factory=Unknown)


class Journal:
    """All calls in the order in which they began, on one clock that ticks with every event."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._clock: Iterator[int] = itertools.count(1)

    def begin(self, client: int, question: Write | Read) -> Call:
        """Record that a call begins."""
        call = Call(client=client, question=question, began=next(self._clock))
        self.calls.append(call)
        return call

    def end(self, call: Call, answer: Answer) -> None:
        """Record the answer to a call."""
        call.ended = next(self._clock)
        call.answer = answer

    def writes_by_key(self, user: int) -> Mapping[tuple[int, str], list[tuple[Call, Write]]]:
        """Return a user's writes with their calls, by app and key; empty for an unsent key."""
        writes: defaultdict[tuple[int, str], list[tuple[Call, Write]]] = defaultdict(list)
        for call in self.calls:
            if isinstance(call.question, Write) and call.question.user_id == user:
                writes[call.question.app_id, call.question.key].append((call, call.question))
        return writes

    def unsettled(self) -> list[tuple[int, Write]]:
        """Return the writes with an unknown outcome, each with its client."""
        return [
            (call.client, call.question)
            for call in self.calls
            if isinstance(call.question, Write) and isinstance(call.answer, Unknown)
        ]
