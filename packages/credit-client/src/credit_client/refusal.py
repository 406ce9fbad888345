"""Translates a failed attempt into the error that the caller gets: by reason first, then status."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from inspect import signature
from typing import Any, TypeVar, assert_never, get_type_hints

from credit_models import ErrorReason
from credit_models.constraints import Violation
from credit_models.reasons import DOMAIN, RULES, reason_name
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpclib.const import Status

from credit_client import errors
from credit_client.errors import (
    AccessDenied,
    CreditError,
    DeadlineExceeded,
    InternalError,
    InvalidField,
    ProtocolMismatch,
    RateLimited,
    ServerTooOld,
    StoreUnavailable,
    TlsFailed,
    Unauthenticated,
    Unavailable,
    UnknownRefusal,
)
from credit_client.transport import AnswerBroken, AttemptFailed, HandshakeFailed

_DetailT = TypeVar("_DetailT", ErrorInfo, BadRequest, RetryInfo)

# The first release of each service that not every server has.
_FIRST_RELEASES = {
    "credit.v1.LedgerService": "0.3.0",
    "credit.v1.HistoryService": "0.4.0",
    "credit.v1.AlertService": "0.4.0",
    "credit.v1.DirectoryService": "0.4.0",
}

_REASONS = {reason_name(reason): reason for reason in RULES}


def error_of(failure: AttemptFailed, *, request_id: str, path: str = "") -> CreditError:
    """Return the error for a failed attempt.

    Args:
        failure: What the transport raised.
        request_id: The id that the SDK sent. If the server answered, the error has the server's id.
        path: The path of the call. See `_FIRST_RELEASES`.
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
        return _by_status(
            failure, reason_name=name, request_id=request_id, method=path.removeprefix("/")
        )
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
        case ErrorReason.RATE_LIMITED:
            return RateLimited(
                message, retry_after_seconds=retry_after_seconds(failure), request_id=request_id
            )
        case ErrorReason.STORE_UNAVAILABLE:
            return StoreUnavailable(_without_advice(message), request_id=request_id)
        case _:
            kind = _KINDS[reason]
            figures = {name: read(metadata[name]) for name, read in _FIGURES[kind].items()}
            return kind(message, request_id=request_id, **figures)


def _moment(milliseconds: str) -> datetime:
    return _EPOCH + timedelta(milliseconds=int(milliseconds))


def _words(listed: str) -> list[str]:
    return [word for word in listed.split(",") if word]


def _reads(kind: type[CreditError]) -> Mapping[str, Callable[[str], Any]]:
    """Return what reads each figure of an error's constructor from the metadata."""
    hints = get_type_hints(kind.__init__)
    names = signature(kind).parameters.keys() - {"message", "request_id"}
    return {name: _READERS[hints[name]] for name in names}


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Any: a figure has the type of its argument.
_READERS: Mapping[Any, Callable[[str], Any]] = {
    int: int,
    str: str,
    datetime: _moment,
    Sequence[str]: _words,
}

# Each error with a reason names it, and no two name the same one.
_KINDS: Mapping[ErrorReason, type[CreditError]] = {
    kind.reason: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, CreditError) and kind.reason is not None
}
# The figures of these are in the other details of the status, those of all others in the metadata.
_WITH_DETAILS = (InvalidField, RateLimited)
_FIGURES = {kind: _reads(kind) for kind in _KINDS.values() if kind not in _WITH_DETAILS}


def _by_status(
    failure: AttemptFailed, *, reason_name: str | None, request_id: str, method: str
) -> CreditError:
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
        case Status.UNIMPLEMENTED if method.startswith(tuple(_FIRST_RELEASES)):
            release = _FIRST_RELEASES[method.partition("/")[0]]
            return ServerTooOld(
                f"{method} requires a server of {release} or later; the server answered: {message}",
                method=method,
                request_id=request_id,
            )
        case Status.OK | Status.UNIMPLEMENTED:
            return ProtocolMismatch(message, status=status, request_id=request_id)
        case Status.ABORTED if reason_name is None:
            return InternalError(message, status=status, request_id=request_id)
        case (
            Status.ABORTED
            | Status.NOT_FOUND
            | Status.ALREADY_EXISTS
            | Status.RESOURCE_EXHAUSTED
            | Status.FAILED_PRECONDITION
            | Status.OUT_OF_RANGE
        ):
            return UnknownRefusal(
                message, status=status, reason_name=reason_name, request_id=request_id
            )
        case Status.CANCELLED | Status.UNKNOWN | Status.INTERNAL | Status.DATA_LOSS:
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
