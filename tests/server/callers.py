"""Make any call of the contract on the wire, by its name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import betterproto2
import credit_models
from credit_models import BatchWriteRequest, BatchWriteResponse, Empty, Receipt, WriteResponse
from credit_models.codec import decode
from credit_server.store.port import Store
from credit_testing.calls import Answer
from credit_testing.frames import Header
from credit_testing.http2_client import Connection
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status

from tests.server.operations import BATCH_WRITE, as_answer, call_as_operation
from tests.server.requests import PATHS, request_of
from tests.server.serving import serving

RECEIPT = "credit-receipt-bin"


class WireCaller:
    """Makes calls on one connection, with one token: a server without identities ignores it."""

    def __init__(self, wire: Connection, token: str = "secret") -> None:
        self.wire = wire
        self.token = ("authorization", f"Bearer {token}")

    async def call(self, call: str, request: betterproto2.Message, *more: Header) -> Answer:
        """Make a call, and return its answer.

        Args:
            call: The name of the call. `A/B` is the call A with one operation, which stands for B:
                its failure is returned as the answer of B.
            request: The request of the call, or of the operation.
            more: More headers.
        """
        outer, _, inner = call.rpartition("/")
        if outer:
            return await call_as_operation(self.wire, PATHS[outer], request, self.token, *more)
        return await self.wire.call(PATHS[inner], request, self.token, *more)

    async def attempt(self, call: str, request: betterproto2.Message) -> None:
        """Make a call that may be rejected."""
        await self.call(call, request)

    async def aborted(self, request: BatchWriteRequest, index: int = 0) -> Answer:
        """Make an atomic batch, and return the failure of one of its operations as an answer."""
        answer = await self.wire.call(BATCH_WRITE, request, self.token)
        return as_answer(answer.message(BatchWriteResponse).outcomes[index])

    # Any, here and below: the fields and the answers of the calls have many types.
    async def write(self, call: str, **changed: Any) -> Receipt:
        """Make a write that succeeds, and return its receipt; see `requests.Caller`."""
        return receipt_of(call, await self.call(call, request_of(call, **changed)))

    async def read(self, call: str, **changed: Any) -> Any:
        """Make a call that succeeds, and return its answer."""
        answer = await self.call(call, request_of(call, **changed))
        return answer.message(getattr(credit_models, f"{call}Response"))


# Any: the options of `serving`.
@asynccontextmanager
async def open_wire(*store: Store, **options: Any) -> AsyncIterator[WireCaller]:
    """Start a server with these options, and connect to it."""
    async with serving(*store, **options) as served, Connection.connect(served.port) as wire:
        yield WireCaller(wire)


def receipt_of(call: str, answer: Answer) -> Receipt:
    """Return the receipt of a write that has succeeded."""
    match call.split("/", maxsplit=1)[0]:
        case "AddCredits" | "UseCredits":
            assert answer.message(Empty) == Empty()
            return decode(Receipt, answer.binary(RECEIPT))
        case "BatchWrite":
            found = answer.message(BatchWriteResponse).outcomes[0].receipt
        case "Write":
            outcome = answer.message(WriteResponse).outcome
            found = None if outcome is None else outcome.receipt
        case name:
            found = answer.message(getattr(credit_models, f"{name}Response")).receipt
    assert isinstance(found, Receipt)
    return found


def reason_of(answer: Answer) -> str:
    """Return the reason of a rejection; empty for a call that has succeeded."""
    if answer.status is Status.OK:
        assert not [detail for detail in answer.details if isinstance(detail, ErrorInfo)]
        return ""
    return str(info_of(answer).reason)


def info_of(answer: Answer) -> ErrorInfo:
    """Return what a rejection says about its reason: the first of its details."""
    info = answer.details[0]
    assert isinstance(info, ErrorInfo)
    return info
