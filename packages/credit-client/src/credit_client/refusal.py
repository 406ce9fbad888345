"""Translates a failed attempt into the error that the caller gets: by reason first, then status."""

from collections.abc import Sequence
from typing import TypeVar, assert_never

from credit_models import ErrorReason
from credit_models.constraints import Violation
from credit_models.reasons import DOMAIN, RULES, reason_name
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpclib.const import Status

from credit_client.errors import (
    AccessDenied,
    ActorNotAllowed,
    AppNotAllowed,
    AppTotalOverflow,
    BalanceOverflow,
    BatchAborted,
    ClockSkewed,
    CreditError,
    CreditsLimitExceeded,
    DeadlineExceeded,
    IdempotencyKeyReused,
    InsufficientCredits,
    InternalError,
    InvalidField,
    Overloaded,
    ProtocolMismatch,
    RateLimited,
    ScopeMissing,
    StoreUnavailable,
    TlsFailed,
    TooManyApps,
    Unauthenticated,
    Unavailable,
    UnknownRefusal,
)
from credit_client.transport import AnswerBroken, AttemptFailed, HandshakeFailed

_DetailT = TypeVar("_DetailT", ErrorInfo, BadRequest, RetryInfo)

_REASONS = {reason_name(reason): reason for reason in RULES}


def error_of(failure: AttemptFailed, *, request_id: str) -> CreditError:
    """Return the error for a failed attempt.

    Args:
        failure: What the transport raised.
        request_id: The id that the SDK sent. If the server answered, the error has the server's id.
    """
    request_id = failure.request_id or request_id
    if isinstance(failure, AnswerBroken):
        return ProtocolMismatch(failure.message, status=failure.status, request_id=request_id)
    if isinstance(failure, HandshakeFailed):
        return TlsFailed(failure.message, request_id=request_id)
    info = _error_info(failure.details)
    reason = None if info is None else _REASONS.get(info.reason)
    if info is None or reason is None:
        name = None if info is None else info.reason
        return _by_status(failure, reason_name=name, request_id=request_id)
    try:
        return _by_reason(reason, failure, info, request_id=request_id)
    except (KeyError, ValueError):
        return ProtocolMismatch(
            f"{info.reason} came without its metadata: {failure.message}",
            status=failure.status,
            request_id=request_id,
        )


def reason_of(failure: AttemptFailed) -> ErrorReason | None:
    """Return the contract's reason for a failure; None without a reason that this SDK knows."""
    info = _error_info(failure.details)
    return None if info is None else _REASONS.get(info.reason)


def retry_after_seconds(failure: AttemptFailed) -> float:
    """Return the shortest wait that the server allows in a `RetryInfo`; 0 without one."""
    info = _detail(failure.details, RetryInfo)
    if info is None:
        return 0.0
    seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return max(0.0, seconds)


def _by_reason(
    reason: ErrorReason, failure: AttemptFailed, info: ErrorInfo, *, request_id: str
) -> CreditError:
    # A plain dict, because protobuf's own maps return "" for a missing key.
    message, metadata = failure.message, dict(info.metadata)
    match reason:
        case ErrorReason.INVALID_FIELD:
            return InvalidField(
                message, violations=_violations(failure.details), request_id=request_id
            )
        case ErrorReason.IDEMPOTENCY_KEY_REUSED:
            fields = [field for field in metadata["fields"].split(",") if field]
            return IdempotencyKeyReused(message, fields=fields, request_id=request_id)
        case ErrorReason.INSUFFICIENT_CREDITS:
            return InsufficientCredits(
                message,
                available=int(metadata["available"]),
                required=int(metadata["required"]),
                shortfall=int(metadata["shortfall"]),
                request_id=request_id,
            )
        case ErrorReason.CREDITS_LIMIT_EXCEEDED:
            return CreditsLimitExceeded(
                message,
                credits=int(metadata["credits"]),
                limit=int(metadata["limit"]),
                request_id=request_id,
            )
        case ErrorReason.BALANCE_OVERFLOW:
            return BalanceOverflow(
                message,
                balance=int(metadata["balance"]),
                credits=int(metadata["credits"]),
                request_id=request_id,
            )
        case ErrorReason.TOO_MANY_APPS:
            return TooManyApps(message, limit=int(metadata["limit"]), request_id=request_id)
        case ErrorReason.BATCH_ABORTED:
            return BatchAborted(message, index=int(metadata["index"]), request_id=request_id)
        case ErrorReason.APP_TOTAL_OVERFLOW:
            return AppTotalOverflow(message, total=int(metadata["total"]), request_id=request_id)
        case ErrorReason.OVERLOADED:
            return Overloaded(message, request_id=request_id)
        case ErrorReason.CLOCK_SKEWED:
            return ClockSkewed(
                message,
                skew_milliseconds=int(metadata["skew_milliseconds"]),
                limit_milliseconds=int(metadata["limit_milliseconds"]),
                request_id=request_id,
            )
        case ErrorReason.STORE_UNAVAILABLE:
            return StoreUnavailable(_without_advice(message), request_id=request_id)
        case ErrorReason.UNAUTHENTICATED:
            return Unauthenticated(message, request_id=request_id)
        case ErrorReason.RATE_LIMITED:
            return RateLimited(
                message, retry_after_seconds=retry_after_seconds(failure), request_id=request_id
            )
        case ErrorReason.SCOPE_MISSING:
            return ScopeMissing(message, scope=metadata["scope"], request_id=request_id)
        case ErrorReason.APP_NOT_ALLOWED:
            return AppNotAllowed(message, app_id=int(metadata["app_id"]), request_id=request_id)
        case ErrorReason.ACTOR_NOT_ALLOWED:
            return ActorNotAllowed(
                message, created_by=int(metadata["created_by"]), request_id=request_id
            )
        case (
            ErrorReason.HOLD_NOT_FOUND
            | ErrorReason.HOLD_ALREADY_CAPTURED
            | ErrorReason.HOLD_ALREADY_RELEASED
            | ErrorReason.HOLD_EXPIRED
            | ErrorReason.HOLD_EXCEEDED
            | ErrorReason.HOLD_LIFE_EXCEEDED
            | ErrorReason.GRANT_NOT_FOUND
            | ErrorReason.GRANT_EMPTY
            | ErrorReason.GRANTS_FULL
            | ErrorReason.HOLDS_FULL
            | ErrorReason.TRANSACTION_NOT_FOUND
            | ErrorReason.NOT_REVERSIBLE
            | ErrorReason.REVERSAL_EXCEEDS
            | ErrorReason.CAP_EXCEEDED
            | ErrorReason.ALREADY_PURCHASED
            | ErrorReason.REVISION_CHANGED
            | ErrorReason.AVAILABLE_TOO_LOW
            | ErrorReason.EXPIRES_TOO_EARLY
        ):
            return UnknownRefusal(
                message, status=failure.status, reason_name=info.reason, request_id=request_id
            )
        case ErrorReason.UNSPECIFIED:
            raise ValueError("never sent")
        case _:
            assert_never(reason)


def _by_status(failure: AttemptFailed, *, reason_name: str | None, request_id: str) -> CreditError:
    message, status = failure.message, failure.status
    match status:
        case Status.INVALID_ARGUMENT:
            return InvalidField(
                message, violations=_violations(failure.details), request_id=request_id
            )
        case Status.UNAVAILABLE:
            return Unavailable(message, request_id=request_id)
        case Status.DEADLINE_EXCEEDED:
            return DeadlineExceeded(_without_advice(message), request_id=request_id)
        case Status.UNAUTHENTICATED:
            return Unauthenticated(message, request_id=request_id)
        case Status.PERMISSION_DENIED:
            return AccessDenied(message, status=status, request_id=request_id)
        case Status.OK | Status.UNIMPLEMENTED:
            return ProtocolMismatch(message, status=status, request_id=request_id)
        case (
            Status.NOT_FOUND
            | Status.ALREADY_EXISTS
            | Status.RESOURCE_EXHAUSTED
            | Status.FAILED_PRECONDITION
            | Status.OUT_OF_RANGE
        ):
            return UnknownRefusal(
                message, status=status, reason_name=reason_name, request_id=request_id
            )
        case (
            Status.CANCELLED | Status.UNKNOWN | Status.ABORTED | Status.INTERNAL | Status.DATA_LOSS
        ):
            return InternalError(message, status=status, request_id=request_id)
        case _:
            assert_never(status)


def _without_advice(message: str) -> str:
    """Return the first clause: the rest is advice about one attempt, not about the call."""
    return message.partition(";")[0]


def _error_info(details: Sequence[object]) -> ErrorInfo | None:
    info = _detail(details, ErrorInfo)
    return info if info is not None and info.domain == DOMAIN else None


def _violations(details: Sequence[object]) -> list[Violation]:
    bad_request = _detail(details, BadRequest)
    broken = [] if bad_request is None else bad_request.field_violations
    return [Violation(field=one.field, description=one.description) for one in broken]


def _detail(details: Sequence[object], kind: type[_DetailT]) -> _DetailT | None:
    return next((detail for detail in details if isinstance(detail, kind)), None)
