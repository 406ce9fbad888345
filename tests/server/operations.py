"""Make a call as the only operation of a call of `LedgerService`."""

import base64

import betterproto2
from credit_models import (
    BatchWriteRequest,
    BatchWriteResponse,
    Operation,
    OperationOutcome,
    WriteRequest,
    WriteResponse,
)
from credit_models.image import POOL
from credit_testing.calls import Answer, call_headers, framed, message_bytes
from credit_testing.http2_client import Connection
from grpclib.const import Status
from grpclib.metadata import encode_grpc_message

LEDGER = "/credit.v1.LedgerService/"
BATCH_WRITE = LEDGER + "BatchWrite"
WRITE = LEDGER + "Write"


def operation(request: betterproto2.Message) -> Operation:
    """Return the operation of a request."""
    found = Operation()
    for field in POOL.FindMessageTypeByName("credit.v1.Operation").fields:
        assert field.message_type is not None
        if field.message_type.name == type(request).__name__:
            setattr(found, field.name, request)
    return found


async def call_as_operation(
    wire: Connection,
    path: str,
    request: betterproto2.Message,
    *more: tuple[str | bytes, str | bytes],
) -> Answer:
    """Make a call with one operation.

    Return its answer, or the failure of the operation as the answer of the operation's call.

    Args:
        wire: The connection.
        path: The path of the call of `LedgerService`.
        request: The request of the operation.
        more: More headers.
    """
    if path == BATCH_WRITE:
        batch = BatchWriteRequest(operations=[operation(request)])
        answer = await wire.call(path, batch, *more)
        outcomes = [
            outcome
            for response in answer.messages(BatchWriteResponse)
            for outcome in response.outcomes
        ]
    else:
        message = WriteRequest(correlation_id=2**64 - 1, operation=operation(request))
        answer = await wire.call(path, message, *more)
        responses = answer.messages(WriteResponse)
        assert all(each.correlation_id == 2**64 - 1 for each in responses)
        outcomes = [each.outcome or OperationOutcome() for each in responses]
    if answer.status is not Status.OK:
        assert not outcomes
        return answer
    (outcome,) = outcomes
    return answer if outcome.receipt is not None else as_answer(outcome)


def as_answer(outcome: OperationOutcome) -> Answer:
    """Return the outcome of an operation as the answer of the call that it stands for."""
    failure = outcome.failure
    assert failure is not None, "the operation succeeded"
    assert outcome.receipt is None
    details = base64.b64encode(failure.status_details).decode()
    answer = Answer(
        trailers={
            "grpc-status": str(failure.code),
            "grpc-message": encode_grpc_message(failure.message),
            **({"grpc-status-details-bin": details} if details else {}),
        }
    )
    info = [detail.reason for detail in answer.details if hasattr(detail, "reason")]
    assert info == ([failure.reason.name] if failure.reason else [])
    return answer


async def batch_write(
    wire: Connection, batch: BatchWriteRequest, *more: tuple[str | bytes, str | bytes]
) -> Answer:
    """Make a call of BatchWrite of any size, and wait for its end."""
    stream_id, answer = wire.begin(call_headers(BATCH_WRITE, *more), end=False)
    await wire.send_all(stream_id, framed(message_bytes(batch)), end=True)
    return await wire.ended(answer)
