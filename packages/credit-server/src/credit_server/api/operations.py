"""The operations of a call that has several: each is treated as the call that it stands for."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import structlog
from credit_models import Operation
from credit_models.codec import encode
from credit_models.constraints import Violation
from credit_models.image import POOL, SERVICES, method_path
from credit_models.ledger import Receipt
from credit_models.operations import kind_of, request_of
from credit_models.translation import messages
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from credit_server.access import authorize
from credit_server.access.audit import AuditedWrite, AuditLog
from credit_server.api import errors
from credit_server.api.commands import Commands, as_raised
from credit_server.commit import Submission, WriteResult
from credit_server.grpc.call import Call
from credit_server.grpc.handler import UNCERTAIN_WRITE

log = structlog.get_logger("credit_server.calls")

UNKNOWN = "unknown"
"""The kind of an operation without a request, or of a kind that this server does not support."""

_CALLS = {
    method.input_type.full_name: method_path(method)
    for service in SERVICES
    for method in service.methods
}
_PATHS = {
    field.name: _CALLS[field.message_type.full_name]
    for field in POOL.FindMessageTypeByName("credit.v1.Operation").fields
    if field.message_type is not None
}
"""The path of the call that each kind of operation stands for: the call with the same request."""

KINDS = (*_PATHS, UNKNOWN)
"""The kinds of operations: the names of the requests in the contract's `Operation`."""

# In this file, Any stands for a call of any messages, and for a message of protobuf, whose classes
# are made at run time.


class PendingOperation:
    """One operation until it has its outcome.

    Attributes:
        submission: What is submitted to the ledger; None: the operation was rejected before.
        rejection: Why it was rejected; None: it was not.
    """

    __slots__ = ("_audited", "_call", "_kind", "rejection", "submission")

    def __init__(
        self,
        call: Call[Any, Any],
        kind: str,
        *,
        audited: AuditedWrite | None,
        submission: Submission | None = None,
        rejection: Exception | None = None,
    ) -> None:
        self._call = call
        self._kind = kind
        self._audited = audited
        self.submission = submission
        self.rejection = rejection

    def end(self, ending: WriteResult, outcome: Any) -> None:
        """Write the outcome of the operation and its audit line, and count it.

        Args:
            ending: The result of the write.
            outcome: Protobuf's empty `OperationOutcome`.
        """
        result = as_raised(ending)
        if self._audited is not None:
            self._audited.ended(result)
        if isinstance(result, Receipt):
            if self._call.observation is not None:
                self._call.observation.operation_ended(self._kind, Status.OK)
            messages.set_receipt(outcome.receipt, result)
        else:
            self._fail(self._status(result), outcome)

    def expire(self, outcome: Any) -> None:
        """Write the outcome of an operation whose deadline has passed.

        Its audit line is written when the result of the write is certain.

        Args:
            outcome: As for `end`.
        """
        sentence = f"the deadline has passed; {UNCERTAIN_WRITE}"
        self._fail(GRPCError(Status.DEADLINE_EXCEEDED, sentence), outcome)

    def outlived(self, ending: WriteResult) -> None:
        """Write the audit line of an operation whose caller has left."""
        if self._audited is not None:
            self._audited.outlived(as_raised(ending))

    def _fail(self, error: GRPCError, outcome: Any) -> None:
        if self._call.observation is not None:
            self._call.observation.operation_ended(self._kind, error.status)
        outcome.failure.MergeFromString(encode(errors.to_failure(error)))

    def _status(self, error: BaseException | None) -> GRPCError:
        status = None if error is None else errors.translate(error, write=True)
        if status is None:  # a bug, which must not fail the other operations
            log.error("an operation failed", kind=self._kind, exc_info=error)
            return GRPCError(Status.INTERNAL, "internal error")
        return status


class Operations:
    """Begins operations: checks the caller's permissions, validates and converts the requests."""

    def __init__(self, commands: Commands, audit: AuditLog) -> None:
        """Prepare to begin operations.

        Args:
            commands: Makes their commands.
            audit: Writes a line for each operation.
        """
        self._commands = commands
        self._audit = audit

    def begin(
        self,
        call: Call[Any, Any],
        operation: Operation | None,
        misfits: Sequence[Violation],
        denial: Exception | None = None,
    ) -> PendingOperation:
        """Begin an operation.

        Args:
            call: Its call.
            operation: The operation.
            misfits: The fields of its request whose integers do not fit.
            denial: Why it is not admitted; its line of the audit log has been written.
        """
        request = request_of(operation)
        kind = UNKNOWN if request is None else kind_of(request)
        if denial is not None:
            return PendingOperation(call, kind, audited=None, rejection=denial)
        identity = authorize.identity_of(call)
        audited = None
        if self._audit.enabled:
            audited = self._audit.write(call, identity, request, operation=kind)
        begun = partial(PendingOperation, call, kind, audited=audited)
        try:
            if request is None:
                raise errors.invalid([Violation(field="request", description="must be set")])
            authorize.check_scope(identity, _PATHS[kind])
            if misfits:
                raise errors.invalid(misfits)
            command = self._commands.of(request, identity)
        except Exception as rejection:  # noqa: BLE001 - a bug must not fail the other operations
            return begun(rejection=rejection)
        pending = begun()
        pending.submission = Submission(command, pending.outlived)
        return pending
