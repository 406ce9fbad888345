"""Make writes and reads with an SDK caller, and return the answers as the journal records them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import betterproto2
from credit_client import methods
from credit_client.batch import BatchOperation, send_writes, write_alone
from credit_client.call import Caller
from credit_client.errors import CreditError, Outcome
from credit_client.operation import PendingWrite, receipt_of
from credit_client.transport import AttemptFailed, Method
from credit_models import CreditRequest, PurchaseRequest, Receipt, TransactionType
from credit_models.operations import WRITE_TYPES

from credit_testing.accounts.journal import Answer, Kind, NoEffect, Read, Unforeseen, Unknown
from credit_testing.accounts.journal import Outcome as Outcomes
from credit_testing.accounts.reads import READS, request_of
from credit_testing.accounts.refusal import refused
from credit_testing.accounts.rules.decision import Refused
from credit_testing.accounts.rules.requests import Write

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


class Single:
    """Make one write, with the call for its kind."""

    def __init__(self, request: Write) -> None:
        self._request = request

    async def __call__(self, caller: Caller) -> Sequence[Answer]:
        request = self._request
        try:
            if isinstance(request, CreditRequest | PurchaseRequest) and _has_conditions(request):
                receipt = await write_alone(caller, PendingWrite(request), timeout_seconds=None)
                return [plain(receipt, request)]
            answer, request_id = await caller.unary(_METHODS[type(request)], _values(request))
            return [receipt_of(answer, request_id)]
        except CreditError as error:
            cause = error.__cause__
            return [_outcome(error, cause if isinstance(cause, AttemptFailed) else None)]


class Several:
    """Make several writes in one message."""

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


class Reading:
    """Make a read."""

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
        return plain(write.receipt, write.request)
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


def plain(receipt: Receipt, request: Write) -> Receipt:
    """Return a receipt as the server sends it, without the fields that the SDK adds."""
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
    # Any: messages are dataclasses, but their base class does not declare this.
    message: Any = request
    for entry in fields(message):
        value = getattr(request, entry.name)
        if isinstance(value, betterproto2.Message):
            value = _values(value)
        if value is not None:
            values[entry.name] = value
    return values
