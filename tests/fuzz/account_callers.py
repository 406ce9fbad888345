"""Make calls of both services on several connections at the same time, and record the answers."""

import asyncio
import itertools
from collections.abc import Sequence
from enum import Enum
from typing import Any

import credit_models
from credit_models import (
    BatchWriteRequest,
    BatchWriteResponse,
    CreditRequest,
    Empty,
    OperationOutcome,
    PurchaseRequest,
    Receipt,
    WriteRequest,
    WriteResponse,
)
from credit_models.codec import decode
from credit_models.image import SERVICES, method_path
from credit_models.status import StatusDetailsCodec
from credit_testing.accounts.journal import (
    Answer,
    Call,
    Journal,
    Kind,
    Outcome,
    Read,
    Together,
    Unforeseen,
    Unknown,
    Written,
)
from credit_testing.accounts.reads import READS, request_of
from credit_testing.accounts.refusal import refused
from credit_testing.accounts.rules.decision import Refused
from credit_testing.accounts.rules.requests import Write
from credit_testing.calls import Answer as WireAnswer
from credit_testing.calls import call_headers, framed, message_bytes
from credit_testing.http2_client import Connection
from grpclib.const import Status

from tests.fuzz.callers import take_turns
from tests.server.operations import operation

_METHODS = {
    method.input_type.name: (method_path(method), method.output_type.name)
    for service in SERVICES
    for method in service.methods
}
"""The path and the response of the call with a request, by the request's name."""
_BATCH, _STREAM = (f"/credit.v1.LedgerService/{name}" for name in ("BatchWrite", "Write"))
FENCE = 2**32 - 7
"""An app in which no other user has credits: entries there show the server's time."""


class Way(Enum):
    """How writes are sent."""

    CALL = "the call of each"
    BATCH = "operations of one batch"
    STREAM = "operations of one stream"
    ATOMIC = "operations of an atomic batch"


class Callers:
    """Make calls on several connections and keep the journal."""

    def __init__(self, wires: Sequence[Connection]) -> None:
        self._wires = wires
        self._running: dict[asyncio.Task[None], None] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._fences = itertools.count(1)
        self.journal = Journal()

    def start(self, client: int, way: Way, *requests: Write) -> list[Call]:
        """Begin to send writes; they continue when the event loop runs.

        Args:
            client: Which connection sends them; any number.
            way: How they are sent.
            requests: The writes.
        """
        client %= len(self._wires)
        if way is Way.ATOMIC:
            calls = [self.journal.begin(client, Together(requests=requests))]
            self._run(calls, self._batch(calls, requests, atomic=True))
            return calls
        calls = [self.journal.begin(client, Written(request=request)) for request in requests]
        match way:
            case Way.BATCH:
                self._run(calls, self._batch(calls, requests, atomic=False))
            case Way.STREAM:
                self._run(calls, self._stream(calls, requests))
            case _:
                for call, request in zip(calls, requests, strict=True):
                    self._run([call], self._single(call, request))
        return calls

    def read(self, client: int, question: Read) -> Call:
        """Begin a read."""
        call = self.journal.begin(client % len(self._wires), question)
        self._run([call], self._read(call, question))
        return call

    async def give_up(self, client: int, request: Write, *, turns: int) -> None:
        """Begin a write, and reset its stream after a number of turns of the event loop."""
        wire = self._wires[client % len(self._wires)]
        call = self.journal.begin(client % len(self._wires), Written(request=request))
        path, _ = _METHODS[type(request).__name__]
        stream, _ = wire.begin(call_headers(path), framed(message_bytes(request)))
        await take_turns(turns)
        wire.reset(stream)
        self.journal.end(call, Unknown())

    async def wait(self) -> None:
        """Wait until all calls have ended."""
        while self._running:
            task = next(iter(self._running))
            await task
            self._running.pop(task, None)

    async def ended(self, calls: Sequence[Call]) -> None:
        """Wait until calls have ended."""
        for call in calls:
            await self._tasks[call.began]

    async def fence(self, user: int) -> None:
        """Learn the server's time from an entry of its own."""
        key = f"fence-{next(self._fences)}"
        add = CreditRequest(
            user_id=user, app_id=FENCE, credits=1, created_by=1, idempotency_key=key
        )
        self.start(0, Way.CALL, add)
        await self.wait()

    async def finish(self, users: Sequence[int], apps: Sequence[int]) -> None:
        """Wait for all calls, settle every uncertain write, and read everything.

        Args:
            users: All users; the last one has the entries that show the time.
            apps: All apps.
        """
        await self.wait()
        for client, question in self.journal.unsettled():
            match question:
                case Written(request=request):
                    self.start(client, Way.CALL, request)
                case Together(requests=requests):
                    self.start(client, Way.ATOMIC, *requests)
            await self.wait()
        for kind in (Kind.GRANTS, Kind.OPEN_HOLDS, Kind.HOLDS, Kind.FORECAST):
            for user, app in itertools.product(users[:-1], apps):
                self.read(0, Read(kind=kind, user_id=user, app_id=app))
        for app in apps:
            self.read(0, Read(kind=Kind.APP_TOTAL, user_id=users[0], app_id=app))
        await self.wait()
        await self.fence(users[-1])
        # What a sweeper writes later is in none of the answers before.
        for kind in (Kind.USER_CREDITS, Kind.PURCHASES, Kind.TRANSACTIONS):
            for user in users:
                self.read(0, Read(kind=kind, user_id=user, app_id=apps[0]))
            await self.wait()

    # Any: asyncio's type of a coroutine.
    def _run(self, calls: Sequence[Call], work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._running[task] = None
        self._tasks |= {call.began: task for call in calls}

    async def _single(self, call: Call, request: Write) -> None:
        path, response = _METHODS[type(request).__name__]
        answer = await self._wires[call.client].call(path, request)
        self.journal.end(call, _outcome(answer, request, response))

    async def _batch(
        self, calls: Sequence[Call], requests: Sequence[Write], *, atomic: bool
    ) -> None:
        batch = BatchWriteRequest(operations=[operation(one) for one in requests], atomic=atomic)
        answer = await self._wires[calls[0].client].call(_BATCH, batch)
        if answer.status is not Status.OK:
            for call in calls:
                self.journal.end(call, _failed(answer))
            return
        outcomes = [_of_operation(one) for one in answer.message(BatchWriteResponse).outcomes]
        if atomic:
            together = tuple(one for one in outcomes if isinstance(one, Receipt | Refused))
            others = (one for one in outcomes if not isinstance(one, Receipt | Refused))
            self.journal.end(calls[0], next(others, together))
            return
        for call, outcome in zip(calls, outcomes, strict=True):
            self.journal.end(call, outcome)

    async def _stream(self, calls: Sequence[Call], requests: Sequence[Write]) -> None:
        messages = [
            WriteRequest(correlation_id=number, operation=operation(request))
            for number, request in enumerate(requests)
        ]
        data = b"".join(framed(message_bytes(message)) for message in messages)
        answer = await self._wires[calls[0].client].request(call_headers(_STREAM), data)
        ended = {
            response.correlation_id: _of_operation(response.outcome or OperationOutcome())
            for response in answer.messages(WriteResponse)
        }
        for number, call in enumerate(calls):
            self.journal.end(call, ended.get(number) or _failed(answer))

    async def _read(self, call: Call, read: Read) -> None:
        path, response = READS[read.kind]
        answer = await self._wires[call.client].call(path, request_of(read))
        if answer.status is Status.OK:
            self.journal.end(call, answer.messages(response))
        else:
            self.journal.end(call, _failed(answer))


def _outcome(answer: WireAnswer, request: Write, response: str) -> Answer:
    if answer.status is not Status.OK:
        return _failed(answer)
    if isinstance(request, CreditRequest | PurchaseRequest):
        assert answer.message(Empty) == Empty()
        return decode(Receipt, answer.binary("credit-receipt-bin"))
    # Any: the response of any write.
    message: Any = answer.message(getattr(credit_models, response))
    assert isinstance(message.receipt, Receipt)
    return message.receipt


def _failed(answer: WireAnswer) -> Refused | Unknown | Unforeseen:
    status = answer.status or Status.CANCELLED
    return _refused(status, answer.binary("grpc-status-details-bin"), answer.sentence)


def _of_operation(outcome: OperationOutcome) -> Outcome | Unknown | Unforeseen:
    if outcome.receipt is not None:
        return outcome.receipt
    failure = outcome.failure
    assert failure is not None
    return _refused(Status(failure.code), failure.status_details, failure.message)


def _refused(status: Status, details: bytes, sentence: str) -> Refused | Unknown | Unforeseen:
    return refused(status, StatusDetailsCodec().decode(status, None, details) or (), sentence)
