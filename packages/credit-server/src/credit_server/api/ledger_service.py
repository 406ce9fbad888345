"""The calls of `LedgerService`: single writes, policies, reads, and calls with many operations."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from credit_models import (
    BatchWriteRequest,
    BatchWriteResponse,
    LedgerServiceBase,
    SetAppPolicyRequest,
    SetAppPolicyResponse,
    SetSpendingCapRequest,
    SetSpendingCapResponse,
    WriteRequest,
    WriteResponse,
)
from credit_models.image import SERVICES, message_class, method_path
from credit_models.ledger import BatchAborted, Receipt
from credit_models.translation import messages
from grpclib import const

from credit_server.access.audit import AuditLog
from credit_server.access.authorize import Access
from credit_server.admission.list_slots import ListSlots
from credit_server.api import convert, errors
from credit_server.api.commands import Commands, Writes
from credit_server.api.contract import WithMisfits
from credit_server.api.ledger_reads import LedgerReads
from credit_server.api.operations import Operations, PendingOperation
from credit_server.api.policies import PolicyChanges
from credit_server.api.reads import Reads
from credit_server.api.write_stream import WriteStream
from credit_server.commit import Committer, WriteResult
from credit_server.grpc.call import Call
from credit_server.store.port import Store

# After this many operations, which take about 10 ms, the event loop runs other calls.
_SLICE = 250

# Protobuf's classes of the answers, by path. Any: they exist only at run time.
_ANSWERS: Mapping[str, Any] = MappingProxyType(
    {
        method_path(method): message_class(method.output_type.full_name)
        for service in SERVICES
        for method in service.methods
    }
)

_BatchCall = Call[WithMisfits[BatchWriteRequest], BatchWriteResponse]
_StreamCall = Call[WithMisfits[WriteRequest], WriteResponse]


class LedgerService(LedgerServiceBase):
    """Serves the contract on a committer for writes and a store for reads."""

    def __init__(
        self,
        committer: Committer,
        store: Store,
        commands: Commands,
        audit: AuditLog,
        access: Access,
        list_slots: ListSlots | None = None,
        *,
        operation_seconds: float,
    ) -> None:
        """Prepare to serve.

        Args:
            committer: Settles the writes.
            store: Answers the reads, and keeps the policies of apps.
            commands: Makes the commands of writes.
            audit: Writes a line for each write and each denial.
            access: Limits the rate of operations.
            list_slots: Bounds the pages of lists; None: with the defaults of the settings.
            operation_seconds: The deadline of each operation of a stream.
        """
        self._committer = committer
        self._operations = Operations(commands, audit)
        self._writes = Writes(committer, commands, audit)
        self._policies = PolicyChanges(store, committer.clock, audit)
        reads = Reads(store, committer.clock, audit)
        self._reads = LedgerReads(store, reads, list_slots or ListSlots())
        self._access = access
        self._operation_seconds = operation_seconds

    def __mapping__(self) -> dict[str, const.Handler]:
        """Map the contract's paths to handlers that take the call, not only its message.

        If a call of the contract has no handler here, it is answered as a single write.
        """
        # Any: each handler takes a call of its own types, which grpclib's Handler does not have.
        handlers: dict[str, Callable[[Call[Any, Any]], Coroutine[Any, Any, None]]] = {
            "SetSpendingCap": self._set_spending_cap,
            "SetAppPolicy": self._set_app_policy,
            "GetAppPolicy": self._reads.get_app_policy,
            "GetSpendingCap": self._reads.get_spending_cap,
            "ListGrants": self._reads.list_grants,
            "ListHolds": self._reads.list_holds,
            "GetForecast": self._reads.get_forecast,
            "BatchWrite": self._batch_write,
            "Write": self._write,
        }
        return {
            path: handler._replace(func=handlers.get(path.rpartition("/")[2], self._write_one))
            for path, handler in super().__mapping__().items()
        }

    # Any: the calls of single writes differ in their types alone.
    async def _write_one(self, call: Call[Any, Any]) -> None:
        receipt = await self._writes.make(call, await call.recv_request())
        await _send_receipt(call, receipt)

    async def _set_spending_cap(
        self, call: Call[SetSpendingCapRequest, SetSpendingCapResponse]
    ) -> None:
        request = await call.recv_request()
        if request.user_id is None:
            policy = await self._policies.set_caps(call, request)
            await call.send_answer(SetSpendingCapResponse(policy=convert.policy_to_message(policy)))
        else:
            await _send_receipt(call, await self._writes.make(call, request))

    async def _set_app_policy(self, call: Call[SetAppPolicyRequest, SetAppPolicyResponse]) -> None:
        policy = await self._policies.set_policy(call, await call.recv_request())
        await call.send_answer(SetAppPolicyResponse(policy=convert.policy_to_message(policy)))

    async def _batch_write(self, call: _BatchCall) -> None:
        received = await call.recv_request()
        pending = await self._begin(call, received)
        if received.message.atomic and any(each.rejection for each in pending):
            endings = _aborted(pending)
        else:
            endings = await self._settle(call, pending, atomic=received.message.atomic)
        # The writes have taken effect, whether or not the caller gets the answer.
        answer = _ANSWERS[call.request.path]()
        await _end(pending, endings, answer.outcomes)
        await call.send_answer(answer)

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
            call.batch_context,
            request_id=call.request.request_id,
            seconds_left=None if call.deadline is None else call.deadline.time_remaining(),
            atomic=atomic,
        )
        try:
            for answer in answers:
                # `gather` would run a callback for each answer, although the answers of a batch
                # come together.
                if not answer.done():
                    with suppress(Exception):  # read below
                        await answer
        except asyncio.CancelledError:
            for each, answer in zip(submitted, answers, strict=True):
                if not answer.cancel() and not answer.cancelled():
                    each.outlived(answer.exception() or answer.result())
            for each in pending:
                if each.rejection is not None:
                    each.outlived(each.rejection)
            raise
        results = (answer.exception() or answer.result() for answer in answers)
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


# Any: the answers of the calls have many types.
async def _send_receipt(call: Call[Any, Any], receipt: Receipt) -> None:
    answer = _ANSWERS[call.request.path]()
    messages.set_receipt(answer.receipt, receipt)
    await call.send_answer(answer)


# Any: protobuf makes its classes at run time.
async def _end(
    pending: Sequence[PendingOperation], endings: Sequence[WriteResult], outcomes: Any
) -> None:
    """End all operations, and add the outcome of each to the outcomes of a batch."""
    try:
        for each, ending in zip(pending, endings, strict=True):
            if outcomes and len(outcomes) % _SLICE == 0:
                await asyncio.sleep(0)
            each.end(ending, outcomes.add())
    except asyncio.CancelledError:  # the caller has left, and the audit log needs all lines
        for each, ending in zip(pending[len(outcomes) :], endings[len(outcomes) :], strict=True):
            each.outlived(ending)
        raise


def _aborted(pending: Sequence[PendingOperation]) -> Sequence[WriteResult]:
    """Return the results of an atomic batch, at least one operation of which was rejected."""
    first = next(index for index, each in enumerate(pending) if each.rejection is not None)
    return [each.rejection or errors.refused(BatchAborted(index=first)) for each in pending]
