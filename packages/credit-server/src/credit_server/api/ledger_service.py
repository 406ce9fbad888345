"""The calls with several operations: a batch in one message, and a stream of operations."""

import asyncio
from collections.abc import Sequence

from credit_models import (
    BatchWriteRequest,
    BatchWriteResponse,
    LedgerServiceBase,
    OperationOutcome,
    WriteRequest,
    WriteResponse,
)
from grpclib import const

from credit_server.access.audit import AuditLog
from credit_server.access.authorize import Access
from credit_server.api import errors
from credit_server.api.commands import Commands
from credit_server.api.contract import WithMisfits
from credit_server.api.operations import Operations, PendingOperation
from credit_server.api.write_stream import WriteStream
from credit_server.commit import Committer, WriteResult
from credit_server.grpc.call import Call
from credit_server.ledger import BatchAborted

# After this many operations, which take about 10 ms, the event loop runs other calls.
_SLICE = 250

_BatchCall = Call[WithMisfits[BatchWriteRequest], BatchWriteResponse]
_StreamCall = Call[WithMisfits[WriteRequest], WriteResponse]


class LedgerService(LedgerServiceBase):
    """Serves the calls of the contract that have several operations."""

    def __init__(
        self,
        committer: Committer,
        commands: Commands,
        audit: AuditLog,
        access: Access,
        *,
        operation_seconds: float,
    ) -> None:
        """Prepare to serve.

        Args:
            committer: Settles the operations.
            commands: Makes their commands.
            audit: Writes a line for each operation.
            access: Limits the rate of operations.
            operation_seconds: The deadline of each operation of a stream.
        """
        self._committer = committer
        self._operations = Operations(commands, audit)
        self._access = access
        self._operation_seconds = operation_seconds

    def __mapping__(self) -> dict[str, const.Handler]:
        """Map the contract's paths to handlers that take the call, not only its message.

        A call of the contract without a handler here is answered with UNIMPLEMENTED, as any path
        that no service has.
        """
        handlers = {"BatchWrite": self._batch_write, "Write": self._write}
        return {
            path: handler._replace(func=handlers[name])
            for path, handler in super().__mapping__().items()
            if (name := path.rpartition("/")[2]) in handlers
        }

    async def _batch_write(self, call: _BatchCall) -> None:
        received = await call.recv_request()
        pending = await self._begin(call, received)
        if received.message.atomic and any(each.rejection for each in pending):
            endings = _aborted(pending)
        else:
            endings = await self._settle(call, pending, atomic=received.message.atomic)
        # The writes have taken effect, whether or not the caller gets the answer.
        await call.send_answer(BatchWriteResponse(outcomes=await _end(pending, endings)))

    async def _begin(
        self, call: _BatchCall, received: WithMisfits[BatchWriteRequest]
    ) -> list[PendingOperation]:
        request = received.message
        admitted, denial = self._access.admit_batch(
            call, len(request.operations), together=request.atomic
        )
        pending: list[PendingOperation] = []
        try:
            for index, operation in enumerate(request.operations):
                if index and index % _SLICE == 0:
                    await asyncio.sleep(0)
                misfits = received.misfits.get(index, ())
                denied = denial if index >= admitted else None
                pending.append(self._operations.begin(call, operation, misfits, denied))
        except asyncio.CancelledError:
            for each in pending:
                each.outlived(each.rejection)
            raise
        return pending

    async def _settle(
        self, call: _BatchCall, pending: Sequence[PendingOperation], *, atomic: bool
    ) -> Sequence[WriteResult]:
        """Submit at once all operations that were not rejected; return the result of each."""
        submitted = [each for each in pending if each.submission is not None]
        answers = self._committer.submit_all(
            [each.submission for each in submitted if each.submission is not None],
            call.observation.context,
            request_id=call.request.request_id,
            seconds_left=None if call.deadline is None else call.deadline.time_remaining(),
            atomic=atomic,
        )
        try:
            results = iter(await asyncio.gather(*answers, return_exceptions=True))
        except asyncio.CancelledError:  # `gather` has cancelled all open answers
            for each, answer in zip(submitted, answers, strict=True):
                if answer.done() and not answer.cancelled():
                    each.outlived(answer.exception() or answer.result())
            for each in pending:
                if each.rejection is not None:
                    each.outlived(each.rejection)
            raise
        return [each.rejection or next(results) for each in pending]

    async def _write(self, call: _StreamCall) -> None:
        stream = WriteStream(
            call,
            self._committer,
            self._operations,
            self._access,
            operation_seconds=self._operation_seconds,
        )
        await stream.run()


async def _end(
    pending: Sequence[PendingOperation], endings: Sequence[WriteResult]
) -> list[OperationOutcome]:
    outcomes: list[OperationOutcome] = []
    try:
        for each, ending in zip(pending, endings, strict=True):
            if outcomes and len(outcomes) % _SLICE == 0:
                await asyncio.sleep(0)
            outcomes.append(each.end(ending))
    except asyncio.CancelledError:  # the caller has left, and the audit log needs all lines
        for each, ending in zip(pending[len(outcomes) :], endings[len(outcomes) :], strict=True):
            each.outlived(ending)
        raise
    return outcomes


def _aborted(pending: Sequence[PendingOperation]) -> Sequence[WriteResult]:
    """Return the results of an atomic batch, at least one operation of which was rejected."""
    first = next(index for index, each in enumerate(pending) if each.rejection is not None)
    return [each.rejection or errors.refused(BatchAborted(index=first)) for each in pending]
