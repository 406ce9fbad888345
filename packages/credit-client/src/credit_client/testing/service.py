"""The gRPC service of the fake: the contract's calls, refusals and metadata on a fake ledger."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import betterproto2
from credit_models import (
    AlertEvent,
    BatchWriteRequest,
    BatchWriteResponse,
    Empty,
    ErrorReason,
    GetAppPolicyResponse,
    ListDeadLettersResponse,
    ListHoldsRequest,
    ListHoldsResponse,
    Operation,
    OperationFailure,
    OperationOutcome,
    Receipt,
    RemoveAlertResponse,
    SetAlertResponse,
    SetAppPolicyResponse,
    SetSpendingCapRequest,
    SetSpendingCapResponse,
    UserId,
    WatchRequest,
    WriteRequest,
    WriteResponse,
    ledger,
)
from credit_models import WatchResponse as WatchEvent
from credit_models.codec import encode
from credit_models.constraints import Violation, describe, violations
from credit_models.operations import AnyWrite, request_of
from credit_models.reasons import ACCESS_REASONS, RULES, method_reasons
from credit_models.scopes import METHOD_SCOPES
from credit_models.translation.commands import broken_fields
from credit_models.translation.refusals import bad_request, error_info
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import RetryInfo
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

from credit_client import methods
from credit_client.grpc_transport import RECEIPT, REQUEST_ID, STATUS_DETAILS_CODEC
from credit_client.methods import BATCH_WRITE, WATCH, WRITE
from credit_client.testing.checkpoints import FakeCheckpoints
from credit_client.testing.clock import FakeClock
from credit_client.testing.directory import FakeDirectory
from credit_client.testing.history import (
    balance_at,
    one_of,
    page_of,
    purchase_page_of,
    summaries_of,
)
from credit_client.testing.ledger import FakeLedger, Refused, refused
from credit_client.testing.watching import events_of
from credit_client.testing.webhooks import FakeWebhooks
from credit_client.transport import Method, ReplyT

_RequestT = TypeVar("_RequestT", bound=betterproto2.Message)

_SentT = TypeVar("_SentT")

_RETRY_AFTER = Duration(nanos=1_000_000)

# The number of holds of a page whose request names none: that of the contract.
_PAGE_SIZE = 100

# The call of each write.
_CALLS: Mapping[type[AnyWrite], Method[Any, Any]] = {
    method.request_type: method
    for method in (
        methods.ADD,
        methods.USE,
        methods.GRANT,
        methods.VOID_GRANT,
        methods.PLACE_HOLD,
        methods.CAPTURE_HOLD,
        methods.RELEASE_HOLD,
        methods.EXTEND_HOLD,
        methods.REVERSE,
        methods.TRANSFER,
        methods.ADJUST,
        methods.SET_SPENDING_CAP,
    )
}


class FakeCreditService:
    """A service for `fake_credits`, or for grpclib's `Server` with the codecs of `credit_models`.

    Attributes:
        ledger: The accounts of the service.
        directory: The numbers of users that apps know by text.
    """

    def __init__(self, ledger: FakeLedger | None = None) -> None:
        self.ledger = ledger or FakeLedger()
        self._webhooks = FakeWebhooks(self.ledger)
        self.directory = FakeDirectory(self.ledger)
        self._checkpoints = FakeCheckpoints(self.ledger)
        self._failures: deque[ErrorReason] = deque()

    @property
    def clock(self) -> FakeClock:
        """The clock of the ledger: `service.clock.advance(timedelta(days=30))`."""
        return self.ledger.clock

    @property
    def webhook_messages(self) -> Sequence[tuple[str, AlertEvent]]:
        """The URL and the event of each message that a server would send, oldest first."""
        return self._webhooks.messages()

    def sign_checkpoint(self, *, app_id: int, key_file: str | Path) -> None:
        """Sign a checkpoint of an app, which `credits.checkpoint` then returns.

        Args:
            app_id: The app.
            key_file: The file to which the public key is written. All checkpoints of a service have
                the same key.

        Raises:
            ImportError: The extra `credit-client[verify]` is not installed.
        """
        self._checkpoints.sign(app_id, Path(key_file))

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
                *(self._write(method) for method in _CALLS.values()),
                self._read(methods.USER_CREDITS, ledger.user_credits, "user_id"),
                self._read(methods.BALANCE, ledger.app_balance, "app_id", "user_id"),
                self._list(methods.PURCHASES, ledger.purchases),
                self._list(methods.TRANSACTIONS, ledger.transactions),
                self._read(methods.GRANTS, ledger.grants, "user_id", "app_id"),
                self._read(methods.FORECAST, ledger.forecast, "user_id", "app_id", "until"),
                self._read(methods.SPENDING_CAP, ledger.spending_cap, "user_id", "app_id"),
                self._unary(methods.HOLDS, self._holds),
                self._unary(
                    methods.QUERY_TRANSACTIONS,
                    lambda request: page_of(
                        request,
                        ledger.all_transactions()
                        if request.user_id is None
                        else ledger.transactions(user_id=request.user_id),
                        ledger.clock.now(),
                    ),
                ),
                self._unary(
                    methods.QUERY_PURCHASES,
                    lambda request: purchase_page_of(
                        request,
                        ledger.all_purchases()
                        if request.user_id is None
                        else ledger.purchases(user_id=request.user_id),
                        ledger.clock.now(),
                    ),
                ),
                self._unary(
                    methods.SUMMARIZE,
                    lambda request: summaries_of(
                        request,
                        ledger.all_transactions()
                        if request.user_id is None
                        else ledger.transactions(user_id=request.user_id),
                        ledger.clock.now(),
                    ),
                ),
                self._unary(
                    methods.BALANCE_AT,
                    lambda request: balance_at(
                        request,
                        ledger.transactions(user_id=request.user_id),
                        ledger.clock.now(),
                    ),
                ),
                self._unary(
                    methods.TRANSACTION,
                    lambda request: one_of(
                        request,
                        ledger.all_transactions()
                        if request.user_id is None
                        else ledger.transactions(user_id=request.user_id),
                    ),
                ),
                self._unary(methods.CHECKPOINTS, self._checkpoints.list),
                self._unary(methods.CHECKPOINT, self._checkpoints.get),
                self._unary(
                    methods.APP_POLICY,
                    lambda request: GetAppPolicyResponse(
                        policy=ledger.policy(app_id=request.app_id)
                    ),
                ),
                self._unary(
                    methods.SET_APP_POLICY,
                    lambda request: SetAppPolicyResponse(policy=ledger.set_policy(request)),
                ),
                self._unary(
                    methods.SET_ALERT,
                    lambda request: SetAlertResponse(alerts=ledger.change_alert(request)),
                ),
                self._unary(
                    methods.REMOVE_ALERT,
                    lambda request: RemoveAlertResponse(alerts=ledger.change_alert(request)),
                ),
                self._read(methods.ALERTS, ledger.alerts, "app_id", "user_id"),
                self._unary(methods.ALERT_EVENTS, ledger.alert_events),
                self._unary(methods.SET_WEBHOOK, self._webhooks.set),
                self._read(methods.WEBHOOKS, self._webhooks.of_app, "app_id"),
                self._unary(methods.REMOVE_WEBHOOK, self._webhooks.remove),
                self._unary(methods.DEAD_LETTERS, lambda _: ListDeadLettersResponse()),
                self._unary(methods.RESEND_DEAD_LETTERS, self._webhooks.resend),
                self._unary(methods.RESOLVE_USER, self.directory.resolve),
                self._unary(methods.FIND_USER, self.directory.find),
                self._batch(),
                self._stream(),
                self._watch(),
            ]
        )

    def _holds(self, request: ListHoldsRequest) -> ListHoldsResponse:
        size = request.page_size or _PAGE_SIZE
        holds = [
            hold
            for hold in self.ledger.holds(
                user_id=request.user_id,
                app_id=request.app_id,
                include_settled=request.include_settled,
            )
            if hold.sequence > request.after_sequence
        ]
        more = holds[size - 1].sequence if len(holds) > size else 0
        revision = self.ledger.user_credits(user_id=request.user_id).revision
        return ListHoldsResponse(holds=holds[:size], next_after_sequence=more, revision=revision)

    # Any: each call has messages of its own.
    def _write(self, method: Method[Any, Any]) -> tuple[str, Handler]:
        def work(request: Any) -> tuple[Iterable[Any], dict[str, str | bytes]]:
            if isinstance(request, SetSpendingCapRequest) and request.user_id is None:
                return [SetSpendingCapResponse(policy=self.ledger.set_policy(request))], {}
            receipt = self.ledger.write(request)
            if method.reply_type is Empty:
                return [Empty()], {RECEIPT: encode(receipt)}
            return [method.reply_type(receipt=receipt)], {}

        return self._call(method, Cardinality.UNARY_UNARY, work)

    def _read(
        self, method: Method[_RequestT, ReplyT], read: Callable[..., ReplyT], *names: str
    ) -> tuple[str, Handler]:
        """Serve a call with a method of the ledger, whose arguments are fields of the request."""
        return self._unary(
            method, lambda request: read(**{name: getattr(request, name) for name in names})
        )

    def _unary(
        self, method: Method[_RequestT, ReplyT], work: Callable[[_RequestT], ReplyT]
    ) -> tuple[str, Handler]:
        return self._call(method, Cardinality.UNARY_UNARY, lambda request: ([work(request)], {}))

    def _list(
        self, method: Method[UserId, ReplyT], read: Callable[..., Iterable[ReplyT]]
    ) -> tuple[str, Handler]:
        return self._call(
            method,
            Cardinality.UNARY_STREAM,
            lambda request: (
                read(user_id=request.user_id, after_sequence=request.after_sequence),
                {},
            ),
        )

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
            except Refused as refusal:
                await _refuse(stream, refusal, echo)
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

    def _watch(self) -> tuple[str, Handler]:
        async def handle(stream: Stream[WatchRequest, WatchEvent]) -> None:
            request = await stream.recv_message()
            if request is None:
                return
            echo = _echo(stream)
            try:
                self._admit(WATCH, request)
                events = events_of(request, self.ledger)
                first = await anext(events)
            except Refused as refusal:
                await _refuse(stream, refusal, echo)
                return
            await stream.send_initial_metadata(metadata=echo)
            await stream.send_message(first)
            async for event in events:
                await stream.send_message(event)
            await stream.send_trailing_metadata(metadata=echo)

        types = WATCH.request_type, WATCH.reply_type
        return WATCH.path, Handler(handle, Cardinality.UNARY_STREAM, *types)

    def _each(self, operations: Sequence[Operation]) -> list[Receipt | Refused]:
        results: list[Receipt | Refused] = []
        for operation in operations:
            try:
                results.append(self.ledger.write(self._admitted(operation)))
            except Refused as refusal:
                results.append(refusal)
        return results

    def _all_or_none(self, operations: Sequence[Operation]) -> Sequence[Receipt | Refused]:
        """Settle an atomic batch; what breaks a constraint is found first, as by the server."""
        requests: list[AnyWrite] = []
        refusals: dict[int, Refused] = {}
        for index, operation in enumerate(operations):
            try:
                requests.append(self._admitted(operation))
            except Refused as refusal:
                refusals[index] = refusal
        if not refusals:
            return self.ledger.write_all(requests)
        aborted = refused(ledger.BatchAborted(index=min(refusals)))
        return [refusals.get(index, aborted) for index in range(len(operations))]

    def _admitted(self, operation: Operation) -> AnyWrite:
        request = request_of(operation)
        unset = Violation(field="request", description="must be set")
        if isinstance(request, SetSpendingCapRequest) and request.user_id is None:
            unset = Violation(field="user_id", description="must be set")
        elif request is not None:
            self._admit(_CALLS[type(request)], request)
            return request
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
                with self.ledger.clock.stopped():
                    self._admit(method, request)
                    replies, trailers = work(request)
            except Refused as refusal:
                await _refuse(stream, refusal, echo)
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
        broken = broken_fields(request)
        if broken:
            raise Refused(ErrorReason.INVALID_FIELD, describe(broken), violations=broken)
        if failure in method_reasons()[method.path]:
            raise self._next_failure(method, request)
        required = getattr(request, "min_revision", None)
        if required is not None:
            self.ledger.check_revision(user_id=getattr(request, "user_id", 0), required=required)

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
        return Refused(reason, "the fake service was set to fail", metadata)


def _echo(stream: Stream[_SentT, ReplyT]) -> dict[str, str | bytes]:
    sent = None if stream.metadata is None else stream.metadata.get(REQUEST_ID)
    return {} if sent is None else {REQUEST_ID: sent}


async def _refuse(
    stream: Stream[_SentT, ReplyT], refusal: Refused, metadata: Mapping[str, str | bytes]
) -> None:
    await stream.send_trailing_metadata(
        status=RULES[refusal.reason].status,
        status_message=refusal.message,
        status_details=_details(refusal),
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


def _details(refusal: Refused) -> list[Message]:
    accompanying = {
        "BadRequest": bad_request(refusal.violations),
        "RetryInfo": RetryInfo(retry_delay=_RETRY_AFTER),
    }
    info = error_info(refusal.reason, refusal.metadata)
    return [info, *(accompanying[name] for name in RULES[refusal.reason].details)]
