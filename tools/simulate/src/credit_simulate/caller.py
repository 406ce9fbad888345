"""Make the calls of apps with the SDK, and record them in the journal."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import betterproto2
from credit_client import methods
from credit_client.batch import BatchOperation, send_writes, write_alone
from credit_client.call import Caller
from credit_client.errors import CreditError, Outcome
from credit_client.operation import PendingWrite, receipt_of
from credit_client.settings import ClientSettings
from credit_client.target import Target
from credit_client.tracing import Tracing
from credit_client.transport import AttemptFailed, Method
from credit_models import CreditRequest, PurchaseRequest, Receipt, TransactionType
from credit_models.operations import WRITE_TYPES
from credit_testing.accounts.journal import (
    Answer,
    Call,
    Journal,
    Kind,
    NoEffect,
    Read,
    Together,
    Unforeseen,
    Unknown,
    Written,
)
from credit_testing.accounts.journal import Outcome as Outcomes
from credit_testing.accounts.reads import READS, request_of
from credit_testing.accounts.refusal import refused
from credit_testing.accounts.rules.decision import Refused
from credit_testing.accounts.rules.requests import Write

from credit_simulate.network import Network
from credit_simulate.server import Server, World
from credit_simulate.streams import Streams

TIMEOUT_SECONDS = 8.0
_STREAMED = 0.3
"""The share of callers whose writes share streams."""

# Any: the calls have many types.
_METHODS: Mapping[type[Write], Method[Any, Any]] = {
    method.request_type: method
    for method in vars(methods).values()
    if isinstance(method, Method) and method.request_type in WRITE_TYPES
}
_LISTS: Mapping[Kind, Method[Any, Any]] = {
    Kind.PURCHASES: methods.PURCHASES,
    Kind.TRANSACTIONS: methods.TRANSACTIONS,
}
_SETTINGS = tuple(
    ClientSettings(
        target="localhost:50051",
        timeout_seconds=TIMEOUT_SECONDS,
        retry_attempts_max=attempts,
        retry_backoff_initial_seconds=0.1,
        retry_backoff_max_seconds=5.0,
        retry_budget_tokens=10,
        wait_for_ready=True,
    )
    for attempts in (5, 5, 2, 1)
)
"""The settings of clients. Each call takes one of them; without faults, the first."""
# To make it takes 3 ms.
_TRACING = Tracing(Target.parse(_SETTINGS[0].target))


class Callers:
    """Makes calls, each over its own simulated network.

    Attributes:
        journal: The calls.
        receipts: The writes that took effect, with the ids of their transactions.
        requests: All writes that were sent.
        behind: Reads whose answers are older than the revision that they require.
    """

    def __init__(self, world: World, servers: Sequence[Server]) -> None:
        """Prepare to make calls."""
        self.journal = Journal()
        self.receipts: list[tuple[Write, str]] = []
        self.requests: list[Write] = []
        self.behind: list[str] = []
        self._world = world
        self._servers = servers
        self._streams = Streams(world.faults)

    def connect(self) -> tuple[Network, Caller]:
        """Return a client of the SDK, and its network."""
        world, loop = self._world, asyncio.get_running_loop()
        streams = self._streams if world.random.random() < _STREAMED else None
        network = Network(self._servers, world.random, world.faults, streams)
        caller = Caller(
            network,
            world.random.choice(_SETTINGS) if world.faults.active else _SETTINGS[0],
            tracing=_TRACING,
            clock=loop.time,
            sleep=asyncio.sleep,
            draw=world.random.random,
        )
        return network, caller

    async def write(self, client: int, request: Write) -> Call:
        """Make a write with the call for its kind."""
        (call,) = await self._recorded([Written(request=request)], client, _Single(request))
        return call

    async def batch(self, client: int, requests: Sequence[Write]) -> None:
        """Send several writes in one call. Each takes effect independently."""
        questions = [Written(request=request) for request in requests]
        await self._recorded(questions, client, _Several(requests, atomic=False))

    async def atomic(self, client: int, requests: Sequence[Write]) -> None:
        """Send an atomic batch of writes."""
        question = Together(requests=tuple(requests))
        await self._recorded([question], client, _Several(requests, atomic=True))

    async def read(self, client: int, read: Read, *, min_revision: int | None = None) -> Call:
        """Make a read."""
        (call,) = await self._recorded([read], client, _Reading(read, min_revision))
        if min_revision and isinstance(call.answer, list):
            found = [getattr(each, "revision", min_revision) for each in call.answer]
            if any(revision < min_revision for revision in found):
                self.behind.append(f"{read} requires revision {min_revision}: {call.answer}")
        return call

    async def _recorded(
        self,
        questions: Sequence[Written | Together | Read],
        client: int,
        ask: Callable[[Caller], Any],
    ) -> list[Call]:
        """Make a call, which answers all questions. Any: asyncio's type of a coroutine."""
        loop, trace = asyncio.get_running_loop(), self._world.trace
        began = loop.time()
        calls = [self.journal.begin(client, question) for question in questions]
        for call in calls:
            self.requests += [request for request, _ in call.writes()]
            trace(f"caller {client}", f"#{call.began}", call.question)
        network, caller = self.connect()
        answers: Sequence[Answer] = [Unknown()] * len(calls)
        try:
            answers = await ask(caller)
        finally:
            stale = self._world.cluster.stale_until >= began
            skewed = any(server.skewed_until >= began for server in network.used)
            for call, answer in zip(calls, answers, strict=True):
                call.repeated, call.doubled = network.sent > 1, network.doubled
                call.loose = isinstance(call.question, Read) and (stale or skewed)
                self.journal.end(call, answer)
                trace(f"caller {client}", f"#{call.began} ->", answer)
                self._remember(call)
        return calls

    def _remember(self, call: Call) -> None:
        for request, answer in call.writes():
            if isinstance(answer, Receipt) and not answer.validated:
                self.receipts.append((request, answer.transaction_id))


class _Single:
    """The call of one write."""

    def __init__(self, request: Write) -> None:
        self._request = request

    async def __call__(self, caller: Caller) -> Sequence[Answer]:
        request = self._request
        try:
            if isinstance(request, CreditRequest | PurchaseRequest) and _has_conditions(request):
                receipt = await write_alone(caller, PendingWrite(request), timeout_seconds=None)
                return [_plain(receipt, request)]
            answer, request_id = await caller.unary(_METHODS[type(request)], _values(request))
            return [receipt_of(answer, request_id)]
        except CreditError as error:
            cause = error.__cause__
            return [_outcome(error, cause if isinstance(cause, AttemptFailed) else None)]


class _Several:
    """One message with several writes."""

    def __init__(self, requests: Sequence[Write], *, atomic: bool) -> None:
        self._requests = requests
        self._atomic = atomic

    async def __call__(self, caller: Caller) -> Sequence[Answer]:
        writes = [PendingWrite(request) for request in self._requests]
        await send_writes(caller, writes, atomic=self._atomic, timeout_seconds=None)
        answers = [_of_operation(write) for write in writes]
        if not self._atomic:
            return answers
        odd = [one for one in answers if not isinstance(one, Receipt | Refused)]
        unknown = [one for one in odd if not isinstance(one, NoEffect)]
        if odd:
            return [(unknown or odd)[0]]
        together: tuple[Outcomes, ...] = tuple(
            one for one in answers if isinstance(one, Receipt | Refused)
        )
        return [together]


class _Reading:
    """The call of a read."""

    def __init__(self, read: Read, min_revision: int | None) -> None:
        self._read = read
        self._min_revision = min_revision

    async def __call__(self, caller: Caller) -> Sequence[Answer]:
        path, reply = READS[self._read.kind]
        request = request_of(self._read)
        values = _values(request)
        if self._min_revision is not None:
            values["min_revision"] = self._min_revision
        try:
            if self._read.kind in _LISTS:
                rows = caller.stream(_LISTS[self._read.kind], values)
                return [[row async for row in rows]]
            answer, _ = await caller.unary(
                Method(path=path, request_type=type(request), reply_type=reply), values
            )
            return [[answer.reply]]
        except CreditError as error:
            cause = error.__cause__
            if not isinstance(cause, AttemptFailed):
                return [Unknown()]
            outcome = refused(cause.status, cause.details, cause.message)
            behind = isinstance(outcome, Refused) and outcome.reason == "REVISION_NOT_REACHED"
            return [Unknown() if behind else outcome]


def _of_operation(write: PendingWrite) -> Answer:
    if write.receipt is not None:
        return _plain(write.receipt, write.request)
    if write.error is None:
        return Unforeseen(error=f"an operation has no outcome: {write.request}")
    if BatchOperation(write).outcome is not write.error.outcome:
        return Unforeseen(error=f"an operation has two outcomes: {write.request}")
    return _outcome(write.error, write.failure)


def _outcome(error: CreditError, failure: AttemptFailed | None) -> Answer:
    match error.outcome:
        case Outcome.UNKNOWN:
            return Unknown()
        case Outcome.APPLIED:
            return Unforeseen(error=f"the receipt cannot be read: {error}")
        case _ if failure is None:
            return NoEffect()
        case _:
            outcome = refused(failure.status, failure.details, failure.message)
            return NoEffect() if isinstance(outcome, Unknown) else outcome


def _plain(receipt: Receipt, request: Write) -> Receipt:
    """Return a receipt as the server sends it, without what the SDK adds from the request."""
    if not isinstance(request, CreditRequest | PurchaseRequest):
        return receipt
    unspecified = TransactionType.UNSPECIFIED
    return replace(receipt, type=unspecified, credits=0, effect=0, balance_before=0, revision=0)


def _has_conditions(request: CreditRequest | PurchaseRequest) -> bool:
    conditions = request.expected_revision, request.min_available_after
    return bool(getattr(request, "once", False)) or conditions != (None, None)


# Any: the SDK checks the types of the values.
def _values(request: betterproto2.Message) -> dict[str, Any]:
    """Return the fields of a request as an app passes them."""
    values = {}
    # Any: messages are dataclasses, which their base class does not declare.
    message: Any = request
    for entry in fields(message):
        value = getattr(request, entry.name)
        if isinstance(value, betterproto2.Message):
            value = _values(value)
        if value is not None:
            values[entry.name] = value
    return values
