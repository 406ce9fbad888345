"""A write as an operation: its request and key, what comes of it, and messages of operations."""

import copy
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from credit_models import (
    BatchWriteRequest,
    BatchWriteResponse,
    CreditRequest,
    Empty,
    OperationFailure,
    OperationOutcome,
    PurchaseRequest,
    Receipt,
    TransactionType,
    TransferCreditsRequest,
)
from credit_models.codec import WireError, decode
from credit_models.constraints import Violation, describe
from credit_models.operations import AnyWrite, operation_of
from credit_models.status import StatusDetailsCodec
from grpclib.const import Status

from credit_client.directory import Name
from credit_client.effect import ReadEffect, WriteEffect
from credit_client.errors import BatchAborted, CreditError, InvalidField, Outcome, ProtocolMismatch
from credit_client.methods import WriteReplyT
from credit_client.refusal import error_of
from credit_client.request import given_request_id
from credit_client.retry import is_retryable
from credit_client.transport import Answer, AnswerBroken, AttemptFailed

# What one message of `BatchWrite` holds at most (ledger.proto).
OPERATIONS_MAX = 1000

_DETAILS = StatusDetailsCodec()


def new_key() -> str:
    """Return a new idempotency key: a random UUID of 32 hexadecimal digits."""
    return uuid.uuid4().hex


def checked_key(given: str | None) -> str:
    """Return the key of a write: the given one, or a new one for None.

    Raises:
        InvalidField: The given key is empty.
    """
    if given is None:
        return new_key()
    if given == "":
        # The contract allows an empty key, for a write that cannot be retried; here all can.
        violation = Violation(field="idempotency_key", description="must be 1 to 128 characters")
        raise InvalidField(
            describe([violation]), violations=[violation], request_id=given_request_id()
        )
    return given


def name_key(error: BaseException, key: str) -> None:
    """Add the write's key to its exception: to a cancellation too."""
    if isinstance(error, CreditError):
        if error.idempotency_key == key:
            return  # The error has a key already.
        error.idempotency_key = key
        if error.outcome is Outcome.NO_CHANGE:
            return
    error.add_note(
        f"idempotency_key={key!r} identifies this write: sent again unchanged with this key, it"
        " counts once, whether or not it has taken effect"
    )


def receipt_of(answer: Answer[WriteReplyT], request_id: str) -> Receipt:
    """Return the receipt of a write that took effect, or was only validated.

    Raises:
        ProtocolMismatch: There is none that can be read.
    """
    if isinstance(answer.receipt, Receipt):
        return answer.receipt
    if not isinstance(answer.reply, Empty) and answer.reply.receipt is not None:
        return answer.reply.receipt
    try:
        if answer.receipt is not None:
            return decode(Receipt, answer.receipt)
        problem = "there is no receipt"
    except WireError as error:
        problem = f"the receipt cannot be read: {error}"
    mismatch = ProtocolMismatch(
        f"the write took effect, but {problem}", status=Status.OK, request_id=request_id
    )
    mismatch.outcome = Outcome.APPLIED
    raise mismatch


def complete_receipt(receipt: Receipt, effect: int) -> None:
    """Set the fields of the receipt of an addition or a purchase that follow from its request.

    The server sends these receipts with the fields that they had in 0.2.0, and `owed`. This takes
    a third of the time that all fields would take.

    Args:
        receipt: The receipt.
        effect: The `credits` of the request, negative for a purchase.
    """
    receipt.type = TransactionType.ADD if effect > 0 else TransactionType.USE
    receipt.credits, receipt.effect = abs(effect), effect
    receipt.balance_before = max(0, receipt.balance - receipt.owed - effect)
    receipt.revision = receipt.sequence


def validates_only(request: AnyWrite) -> bool:
    """Return whether a write is a dry run: it is decided, and nothing is written."""
    return not isinstance(request, CreditRequest | PurchaseRequest) and request.validate_only


def users_of(request: AnyWrite) -> set[int]:
    """Return the users whose balances a write may change."""
    if isinstance(request, TransferCreditsRequest):
        return {request.user_id, request.to_user_id or request.user_id}
    return set() if request.user_id is None else {request.user_id}


def settled(outcome: OperationOutcome | None, *, request_id: str | None) -> Receipt | AttemptFailed:
    """Return the receipt of an operation, or its failure as that of the call it stands for.

    Args:
        outcome: What the server answered.
        request_id: The id of the message or stream, which the server's logs have.
    """
    if outcome is not None and outcome.receipt is not None:
        return outcome.receipt
    failure = _failure(None if outcome is None else outcome.failure)
    failure.request_id = request_id
    return failure


def _failure(sent: OperationFailure | None) -> AttemptFailed:
    try:
        status = Status.OK if sent is None else Status(sent.code)
    except ValueError:
        status = Status.UNKNOWN
    if sent is None or status is Status.OK:
        return AnswerBroken(Status.INTERNAL, "the answer has neither a receipt nor a failure")
    return AttemptFailed(
        status,
        sent.message or f"the server answered {status.name} without a message",
        details=_DETAILS.decode(status, sent.message, sent.status_details),
    )


class PendingWrite:
    """One operation of a batch, from its making to its receipt or error.

    Attributes:
        request: The request, which has a key.
        names: The users whose numbers the request does not have yet.
        receipt: The receipt, once there is one.
        error: Why the operation failed, once that is certain.
        failure: Why the latest attempt failed.
        effect: What the attempts did to the ledger.
    """

    __slots__ = ("effect", "error", "failure", "names", "receipt", "request")

    effect: WriteEffect | ReadEffect

    def __init__(self, request: AnyWrite, names: Sequence[Name] = ()) -> None:
        self.request = request
        self.names = names
        self.receipt: Receipt | None = None
        self.error: CreditError | None = None
        self.failure: AttemptFailed | None = None
        self.effect = ReadEffect() if validates_only(request) else WriteEffect()

    def settle(self, outcome: OperationOutcome, request_id: str) -> None:
        """Take what came of the latest attempt."""
        result = settled(outcome, request_id=request_id)
        if isinstance(result, Receipt):
            self.receipt = result
            if isinstance(self.request, CreditRequest):
                complete_receipt(result, self.request.credits)
            elif isinstance(self.request, PurchaseRequest):
                complete_receipt(result, -self.request.credits)
        else:
            self.failure = result
            self.effect.failed(result)

    def fail(self, error: CreditError) -> None:
        """Take the error that ends the operation; it is completed here."""
        self.effect.complete(error)
        name_key(error, self.request.idempotency_key)
        self.error = error


class Progress(NamedTuple):
    """What one answer means for a batch.

    Attributes:
        settled: The number of operations that have their final outcome by it.
        failure: The first failure that may pass; None: every operation has its final outcome.
    """

    settled: int
    failure: AttemptFailed | None


class Messages:
    """The messages of `BatchWrite` with which up to 1,000 operations get their outcomes.

    An operation whose failure may pass is sent again, and so are the operations of its user after
    it that were rejected: they may have failed because it was missing.

    It is the `Effect` of a call that sends these messages.
    """

    def __init__(self, writes: Sequence[PendingWrite], *, atomic: bool) -> None:
        self._pending = list(writes)
        self._atomic = atomic

    def next_message(self) -> BatchWriteRequest:
        """Begin an attempt for all operations without a final outcome, and return its message.

        This records the first attempt of a call too, because an earlier `Batch.send` may have sent
        the same operations.
        """
        self.begin_attempt()
        return BatchWriteRequest(
            operations=[operation_of(write.request) for write in self._pending],
            atomic=self._atomic,
        )

    def settle(self, reply: BatchWriteResponse, request_id: str) -> Progress:
        """Take the answer to the latest message."""
        if len(reply.outcomes) != len(self._pending):
            self._break(len(reply.outcomes), request_id)
            return Progress(settled=0, failure=None)
        for write, outcome in zip(self._pending, reply.outcomes, strict=True):
            write.settle(outcome, request_id)
        again = self._to_repeat()
        for write in self._pending:
            if write.failure is not None and write not in again:
                write.fail(error_of(write.failure, request_id=request_id))
        progress = Progress(
            settled=len(self._pending) - len(again),
            failure=next(iter(again.values()), None),
        )
        self._pending = list(again)
        return progress

    def abandon(self, error: CreditError) -> Sequence[PendingWrite]:
        """Give each operation without a final outcome its error, and return these operations.

        Args:
            error: What ended the call. An operation that has failed for a reason of its own since
                then has the error of that reason.
        """
        for write in self._pending:
            if write.failure is None:
                write.fail(_copy(error))
            else:
                write.fail(error_of(write.failure, request_id=error.request_id or ""))
        return self._pending

    def begin_attempt(self) -> None:
        """See `Effect`."""
        for write in self._pending:
            write.failure = None
            write.effect.begin_attempt()

    def sending(self) -> None:
        """See `Effect`."""
        for write in self._pending:
            write.effect.sending()

    def failed(self, failure: AttemptFailed) -> None:
        """See `Effect`."""
        for write in self._pending:
            write.effect.failed(failure)

    def complete(self, error: CreditError) -> None:
        """See `Effect`. Each operation completes an error of its own."""

    def _to_repeat(self) -> dict[PendingWrite, AttemptFailed]:
        """Return the operations to send again, each with its failure."""
        failed = {each: each.failure for each in self._pending if each.failure is not None}
        if self._atomic:
            causes = [each for each in failed.values() if not _is_aborted(each)]
            return failed if causes and all(map(is_retryable, causes)) else {}
        again: dict[PendingWrite, AttemptFailed] = {}
        users: set[int] = set()
        for write, failure in failed.items():
            concerned = users_of(write.request)
            if is_retryable(failure) or concerned & users:
                users |= concerned
                again[write] = failure
        return again

    def _break(self, count: int, request_id: str) -> None:
        for write in self._pending:
            sentence = f"{len(self._pending)} operations were sent, and {count} outcomes came back"
            write.fail(ProtocolMismatch(sentence, status=Status.INTERNAL, request_id=request_id))
        self._pending = []


def _is_aborted(failure: AttemptFailed) -> bool:
    return isinstance(error_of(failure, request_id=""), BatchAborted)


def _copy(error: CreditError) -> CreditError:
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    # The copy must not share its notes with the others.
    copied.__dict__.pop("__notes__", None)
    return copied
