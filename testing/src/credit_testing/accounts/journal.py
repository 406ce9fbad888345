"""Record calls of both services: the request, when it began and ended, and the answer."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

import betterproto2
from credit_models import CreditTransaction, Purchase, Receipt

from credit_testing.accounts.rules.decision import Refused
from credit_testing.accounts.rules.requests import Write, is_dry_run, users_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Unknown:
    """The call was cancelled or timed out: a write may have happened, or may still happen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unforeseen:
    """An error that no state of a ledger can explain."""

    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NoEffect:
    """The call failed, and the caller was told that a write of it had no effect."""


class Kind(Enum):
    """The calls that change nothing; the values are their names."""

    USER_CREDITS = "GetUserCredits"
    BALANCE = "GetAppBalance"
    APP_TOTAL = "GetAppBalance of all"
    GRANTS = "ListGrants"
    OPEN_HOLDS = "ListHolds of open ones"
    HOLDS = "ListHolds"
    FORECAST = "GetForecast"
    PURCHASES = "ListUserPurchases"
    TRANSACTIONS = "ListUserTransactions"


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """A request that changes nothing; each kind uses the fields that it needs."""

    kind: Kind
    user_id: int
    app_id: int
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """One write, by itself or as an operation of a call that is not atomic."""

    request: Write


@dataclass(frozen=True, kw_only=True, slots=True)
class Together:
    """The operations of an atomic batch."""

    requests: tuple[Write, ...]


Question = Written | Together | Read
Outcome = Receipt | Refused
Shown = Sequence[betterproto2.Message]
Answer = Outcome | tuple[Outcome, ...] | Shown | Unknown | NoEffect | Unforeseen


@dataclass(kw_only=True, slots=True)
class Call:
    """One call from its beginning to its end, on the journal's clock.

    Attributes:
        client: The client that made it.
        question: The request.
        began: When it began.
        ended: When it ended; None if it has not ended.
        answer: The answer.
        repeated: Whether the request was sent more than once, so that a receipt can be the replay
            of the call's own effect.
        doubled: Whether a copy of the request has reached a server, and may have an effect after
            the answer, whatever that was.
        stale: Whether the answer to a read may lack the latest entries, as it may right after a
            change of primary. It must still show a state that existed before the call ended.
        loose: Like `stale`, but the answer may also show another time, for example if a clock is
            wrong. A loose rejection is not checked.
        min_revision: The revision that a read requires. A stale answer must not be older.
    """

    client: int
    question: Question
    began: int
    ended: int | None = None
    answer: Answer = field(default_factory=Unknown)
    repeated: bool = False
    doubled: bool = False
    stale: bool = False
    loose: bool = False
    min_revision: int = 0

    def writes(self) -> Iterator[tuple[Write, Outcome | Unknown | NoEffect | Unforeseen]]:
        """Yield each write with its own answer."""
        question, answer = self.question, self.answer
        if isinstance(question, Written):
            assert isinstance(answer, Receipt | Refused | Unknown | NoEffect | Unforeseen)
            yield question.request, answer
        elif isinstance(question, Together):
            if isinstance(answer, Unknown | NoEffect | Unforeseen):
                yield from ((request, answer) for request in question.requests)
            else:
                assert isinstance(answer, tuple)
                yield from zip(question.requests, answer, strict=True)


def shown(call: Call) -> Iterator[tuple[int, int]]:
    """Yield the user and the sequence of the latest entries that an answer must include."""
    question = call.question
    if not isinstance(question, Read):
        for request, answer in call.writes():
            if isinstance(answer, Receipt) and not answer.validated:
                yield users_of(request)[0], answer.sequence
        return
    match call.answer:
        case [*_, CreditTransaction(sequence=sequence) | Purchase(sequence=sequence)]:
            yield question.user_id, sequence
        case [message] if revision := getattr(message, "revision", 0):
            yield question.user_id, revision


class Journal:
    """All calls in the order in which they began, on one clock that ticks with every event."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._clock = itertools.count(1)

    def now(self) -> int:
        """Return a time after all earlier events and before all later ones."""
        return next(self._clock)

    def begin(self, client: int, question: Question) -> Call:
        """Record that a call begins."""
        call = Call(client=client, question=question, began=self.now())
        self.calls.append(call)
        return call

    def end(self, call: Call, answer: Answer) -> None:
        """Record the answer to a call."""
        call.ended = self.now()
        call.answer = answer

    def sent(self) -> Mapping[tuple[int, int, str], list[tuple[Call, Write]]]:
        """Return the writes that can have an effect, by user, app and key."""
        found: defaultdict[tuple[int, int, str], list[tuple[Call, Write]]] = defaultdict(list)
        for call in self.calls:
            for request, _ in call.writes():
                if not is_dry_run(request):
                    assert request.user_id is not None
                    key = (request.user_id, request.app_id, request.idempotency_key)
                    found[key].append((call, request))
        return found

    def unsettled(self) -> list[tuple[int, Question]]:
        """Return the writes with an unknown outcome, each with its client."""
        return [
            (call.client, call.question)
            for call in self.calls
            if not isinstance(call.question, Read) and isinstance(call.answer, Unknown)
        ]
