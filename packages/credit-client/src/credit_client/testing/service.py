"""The gRPC service of the fake: the contract's calls, refusals and metadata on a fake ledger."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from credit_models import (
    AppId,
    Balance,
    BatchWriteRequest,
    BatchWriteResponse,
    CreditRequest,
    Empty,
    ErrorReason,
    Operation,
    OperationFailure,
    OperationOutcome,
    PurchaseRequest,
    Receipt,
    UserId,
    WriteRequest,
    WriteResponse,
)
from credit_models.codec import encode
from credit_models.constraints import Violation, violations
from credit_models.reasons import (
    ACCESS_REASONS,
    DOMAIN,
    RULES,
    method_reasons,
    reason_name,
)
from credit_models.scopes import METHOD_SCOPES
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

from credit_client.grpc_transport import RECEIPT, REQUEST_ID, STATUS_DETAILS_CODEC
from credit_client.methods import (
    ADD,
    BALANCE,
    BATCH_WRITE,
    PURCHASES,
    TRANSACTIONS,
    USE,
    USER_CREDITS,
    WRITE,
)
from credit_client.request import describe
from credit_client.testing.ledger import FakeLedger, Refused
from credit_client.transport import Method, ReplyT

_RequestT = TypeVar("_RequestT", CreditRequest, PurchaseRequest, UserId, AppId)

_SentT = TypeVar("_SentT")

_RETRY_AFTER = Duration(nanos=1_000_000)


class FakeCreditService:
    """A service for `fake_credits`, or for grpclib's `Server` with the codecs of `credit_models`.

    Attributes:
        ledger: The accounts of the service.
    """

    def __init__(self, ledger: FakeLedger | None = None) -> None:
        self.ledger = ledger or FakeLedger()
        self._failures: deque[ErrorReason] = deque()

    def fail_next(self, reason: ErrorReason, *, times: int = 1) -> None:
        """Make the next attempts fail before anything happens; the SDK retries them by itself.

        Only attempts of calls that the contract lists the reason for fail: no read is CLOCK_SKEWED.
        Each operation of a batch counts as an attempt.

        Args:
            reason: A temporary failure (OVERLOADED, CLOCK_SKEWED, STORE_UNAVAILABLE, RATE_LIMITED),
                or a rejected identity (UNAUTHENTICATED, SCOPE_MISSING, APP_NOT_ALLOWED,
                ACTOR_NOT_ALLOWED): the fake has no identities.
            times: The number of attempts, in addition to those of earlier calls of this method.

        Raises:
            ValueError: The reason is one that follows from a request and the ledger.
        """
        passing = reason in RULES and RULES[reason].retryable
        if not passing and reason not in ACCESS_REASONS:
            raise ValueError(f"{reason!r} depends on the request and cannot be made to happen")
        self._failures.extend([reason] * times)

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the handlers of the calls, for grpclib."""
        ledger = self.ledger
        return dict(
            [
                self._write(ADD, ledger.add),
                self._write(USE, ledger.use),
                self._read(
                    USER_CREDITS, lambda request: ledger.user_credits(user_id=request.user_id)
                ),
                self._read(BALANCE, self._balance),
                self._list(
                    PURCHASES,
                    lambda request: ledger.purchases(
                        user_id=request.user_id, after_sequence=request.after_sequence
                    ),
                ),
                self._list(
                    TRANSACTIONS,
                    lambda request: ledger.transactions(
                        user_id=request.user_id, after_sequence=request.after_sequence
                    ),
                ),
                self._batch(),
                self._stream(),
            ]
        )

    def _balance(self, request: AppId) -> Balance:
        return Balance(
            app_id=request.app_id,
            balance=self.ledger.balance(app_id=request.app_id, user_id=request.user_id),
        )

    def _write(
        self, method: Method[_RequestT, Empty], work: Callable[[_RequestT], Receipt]
    ) -> tuple[str, Handler]:
        return self._call(
            method,
            Cardinality.UNARY_UNARY,
            lambda request: ([Empty()], {RECEIPT: encode(work(request))}),
        )

    def _read(
        self, method: Method[_RequestT, ReplyT], work: Callable[[_RequestT], ReplyT]
    ) -> tuple[str, Handler]:
        return self._call(method, Cardinality.UNARY_UNARY, lambda request: ([work(request)], {}))

    def _list(
        self, method: Method[_RequestT, ReplyT], work: Callable[[_RequestT], Iterable[ReplyT]]
    ) -> tuple[str, Handler]:
        return self._call(method, Cardinality.UNARY_STREAM, lambda request: (work(request), {}))

    def _batch(self) -> tuple[str, Handler]:
        def work(request: BatchWriteRequest) -> BatchWriteResponse:
            # A fault of one operation is its own outcome.
            broken = [each for each in violations(request) if each.field == "operations"]
            if broken:
                raise Refused(ErrorReason.INVALID_FIELD, describe(broken), violations=broken)
            settle = self._all_or_none if request.atomic else self._each
            return BatchWriteResponse(outcomes=list(map(_outcome, settle(request.operations))))

        async def handle(stream: Stream[BatchWriteRequest, BatchWriteResponse]) -> None:
            request = await stream.recv_message()
            if request is None:
                return
            echo = _echo(stream)
            try:
                reply = work(request)
            except Refused as refused:
                await _refuse(stream, refused, echo)
                return
            await stream.send_initial_metadata(metadata=echo)
            await stream.send_message(reply)
            await stream.send_trailing_metadata(metadata=echo)

        types = BATCH_WRITE.request_type, BATCH_WRITE.reply_type
        return BATCH_WRITE.path, Handler(handle, Cardinality.UNARY_UNARY, *types)

    def _stream(self) -> tuple[str, Handler]:
        async def handle(stream: Stream[WriteRequest, WriteResponse]) -> None:
            echo = _echo(stream)
            await stream.send_initial_metadata(metadata=echo)
            async for request in stream:
                (result,) = self._each([request.operation or Operation()])
                await stream.send_message(
                    WriteResponse(correlation_id=request.correlation_id, outcome=_outcome(result))
                )
            await stream.send_trailing_metadata(metadata=echo)

        types = WRITE.request_type, WRITE.reply_type
        return WRITE.path, Handler(handle, Cardinality.STREAM_STREAM, *types)

    def _each(self, operations: Sequence[Operation]) -> list[Receipt | Refused]:
        results: list[Receipt | Refused] = []
        for operation in operations:
            try:
                results.append(self.ledger.write(self._admitted(operation)))
            except Refused as refused:
                results.append(refused)
        return results

    def _all_or_none(self, operations: Sequence[Operation]) -> Sequence[Receipt | Refused]:
        """Settle an atomic batch; what breaks a constraint is found first, as by the server."""
        requests: list[CreditRequest | PurchaseRequest] = []
        refusals: dict[int, Refused] = {}
        for index, operation in enumerate(operations):
            try:
                requests.append(self._admitted(operation))
            except Refused as refused:
                refusals[index] = refused
        if not refusals:
            return self.ledger.write_all(requests)
        first = min(refusals)
        aborted = Refused(
            ErrorReason.BATCH_ABORTED,
            f"operation {first} of the batch was rejected",
            metadata={"index": first},
        )
        return [refusals.get(index, aborted) for index in range(len(operations))]

    def _admitted(self, operation: Operation) -> CreditRequest | PurchaseRequest:
        if operation.add_credits is not None:
            self._admit(ADD, operation.add_credits)
            return operation.add_credits
        if operation.use_credits is not None:
            self._admit(USE, operation.use_credits)
            return operation.use_credits
        unset = Violation(field="request", description="must be set")
        raise Refused(ErrorReason.INVALID_FIELD, describe([unset]), violations=[unset])

    def _call(
        self,
        method: Method[_RequestT, ReplyT],
        cardinality: Cardinality,
        work: Callable[[_RequestT], tuple[Iterable[ReplyT], dict[str, str | bytes]]],
    ) -> tuple[str, Handler]:
        async def handle(stream: Stream[_RequestT, ReplyT]) -> None:
            request = await stream.recv_message()
            if request is None:
                return
            echo = _echo(stream)
            try:
                self._admit(method, request)
                replies, trailers = work(request)
            except Refused as refused:
                await _refuse(stream, refused, echo)
                return
            await stream.send_initial_metadata(metadata=echo)
            for reply in replies:
                await stream.send_message(reply)
            await stream.send_trailing_metadata(metadata=echo | trailers)

        return method.path, Handler(handle, cardinality, method.request_type, method.reply_type)

    def _admit(self, method: Method[_RequestT, ReplyT], request: _RequestT) -> None:
        failure = self._failures[0] if self._failures else None
        if failure in ACCESS_REASONS:
            raise self._next_failure(method, request)
        broken = violations(request)
        if broken:
            raise Refused(ErrorReason.INVALID_FIELD, describe(broken), violations=broken)
        if failure in method_reasons()[method.path]:
            raise self._next_failure(method, request)

    def _next_failure(self, method: Method[_RequestT, ReplyT], request: _RequestT) -> Refused:
        reason = self._failures.popleft()
        known = {
            "scope": METHOD_SCOPES[method.path],
            # 1 for a request that names none.
            "app_id": getattr(request, "app_id", 1),
            "created_by": getattr(request, "created_by", 1),
            "skew_milliseconds": 2500,
            "limit_milliseconds": 2000,
        }
        metadata = {key: known[key] for key in RULES[reason].metadata}
        return Refused(reason, "the fake service was set to fail", metadata=metadata)


def _echo(stream: Stream[_SentT, ReplyT]) -> dict[str, str | bytes]:
    sent = None if stream.metadata is None else stream.metadata.get(REQUEST_ID)
    return {} if sent is None else {REQUEST_ID: sent}


async def _refuse(
    stream: Stream[_SentT, ReplyT], refused: Refused, metadata: Mapping[str, str | bytes]
) -> None:
    await stream.send_trailing_metadata(
        status=RULES[refused.reason].status,
        status_message=refused.message,
        status_details=_details(refused),
        metadata=metadata,
    )


def _outcome(result: Receipt | Refused) -> OperationOutcome:
    if isinstance(result, Receipt):
        return OperationOutcome(receipt=result)
    status, message = RULES[result.reason].status, result.message
    return OperationOutcome(
        failure=OperationFailure(
            code=status.value,
            message=message,
            reason=result.reason,
            status_details=STATUS_DETAILS_CODEC.encode(status, message, _details(result)),
        )
    )


def _details(refused: Refused) -> list[Message]:
    accompanying = {
        "BadRequest": BadRequest(
            field_violations=[
                BadRequest.FieldViolation(field=one.field, description=one.description)
                for one in refused.violations
            ]
        ),
        "RetryInfo": RetryInfo(retry_delay=_RETRY_AFTER),
    }
    info = ErrorInfo(reason=reason_name(refused.reason), domain=DOMAIN, metadata=refused.metadata)
    return [info, *(accompanying[name] for name in RULES[refused.reason].details)]
