"""Translates errors into statuses with google.rpc details, as the contract's options say."""

from collections.abc import Mapping, Sequence
from math import ceil

from credit_models import ErrorReason, OperationFailure
from credit_models.constraints import Violation, describe
from credit_models.ledger import Refusal
from credit_models.reasons import RULES
from credit_models.translation.refusals import answer_of, bad_request, error_info
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpclib.exceptions import GRPCError

from credit_server.access.identity import (
    AccessDenied,
    ActorNotAllowed,
    AppNotAllowed,
    ScopeMissing,
)
from credit_server.admission.decision import Decision, NotAdmitted
from credit_server.commit import (
    ClockSkewed,
    CommitError,
    NotCommitted,
    Overloaded,
    ResultUnknown,
    Stopping,
)
from credit_server.grpc.call import status_details
from credit_server.grpc.handler import UNCERTAIN_WRITE
from credit_server.grpc.ports import CutOff
from credit_server.store.port import IndexMissing, Rejected, StoreError, Unreadable

# A replica set takes some seconds to elect a primary, and a server to be replaced.
_RETRY_STORE_SECONDS = 1.0
# Clocks are set by an operator, or by NTP within minutes; another server may be sound.
_RETRY_CLOCK_SECONDS = 5.0
# Another connection or server may serve the stream at once.
_RETRY_STREAM_SECONDS = 0.05
# These causes concern one caller; for the others the server has too much to do.
_CALLERS_OWN = frozenset({Decision.RATE, Decision.RUNNING_CALLS})


def translate(error: BaseException, *, write: bool) -> GRPCError | None:
    """Return the status for an error; None: the error is a bug.

    Args:
        error: The error.
        write: Whether the call writes. If so, the message states whether a change was made.
    """
    effect = "; no change was made" if write else ""
    match error:
        case GRPCError():
            return error
        case NotAdmitted(decision=decision):
            reason = (
                ErrorReason.RATE_LIMITED if decision in _CALLERS_OWN else ErrorReason.OVERLOADED
            )
            return status_of(reason, f"{error}{effect}", {}, _retry_in(error.retry_seconds))
        case AccessDenied():
            return _denied(error)
        case Unreadable():
            # Not STORE_UNAVAILABLE: a retry would fail again.
            return status_of(
                ErrorReason.DATA_UNREADABLE,
                f"data that the request needs cannot be read{effect}: the operator must correct the"
                " data",
                {},
            )
        case Rejected():  # a bug: a retry would fail again
            return None
        case IndexMissing():
            return _store_unavailable(
                f"an index of the store is missing{effect}: the operator must run credit-server"
                " migrate"
            )
        case CommitError() | StoreError():
            return _unavailable(error)
        case CutOff():
            # Not OVERLOADED, which promises that no change was made.
            effect = f"; {UNCERTAIN_WRITE}" if write else ""
            return _store_unavailable(
                f"the server closes the connection before it has answered the call{effect}"
            )
        case _:
            return None


def _denied(error: AccessDenied) -> GRPCError:
    match error:
        case ScopeMissing(scope=scope):
            return status_of(ErrorReason.SCOPE_MISSING, str(error), {"scope": scope})
        case AppNotAllowed(app_id=app_id):
            return status_of(ErrorReason.APP_NOT_ALLOWED, str(error), {"app_id": str(app_id)})
        case ActorNotAllowed(created_by=created_by):
            return status_of(
                ErrorReason.ACTOR_NOT_ALLOWED, str(error), {"created_by": str(created_by)}
            )
        case _:
            return status_of(ErrorReason.UNAUTHENTICATED, str(error), {})


def invalid(violations: Sequence[Violation]) -> GRPCError:
    """Return the status of a request, with all the fields that break a constraint."""
    return status_of(ErrorReason.INVALID_FIELD, describe(violations), {}, bad_request(violations))


def refused(refusal: Refusal) -> GRPCError:
    """Return the status of a request that the ledger has rejected.

    Raises:
        InvariantViolated: No request can cause the refusal.
    """
    return status_of(*answer_of(refusal))


def not_readable_yet() -> GRPCError:
    """Return the status of a write that took effect, but whose effect no read returned in time."""
    return _store_unavailable(
        "the write took effect, but the store does not return it yet; a retry has no second effect"
    )


def drained() -> GRPCError:
    """Return the status of a stream of operations that the server ends with its connection."""
    return status_of(
        ErrorReason.OVERLOADED,
        "the server closes the connection; operations without an outcome had no effect: send them"
        " on another connection",
        {},
        _retry_in(_RETRY_STREAM_SECONDS),
    )


def watch_drained() -> GRPCError:
    """Return the status of a stream of `Watch` that the server ends with its connection."""
    return status_of(
        ErrorReason.OVERLOADED,
        "the server closes the connection: continue with the latest resume_token on another"
        " connection",
        {},
        _retry_in(_RETRY_STREAM_SECONDS),
    )


def to_failure(error: GRPCError) -> OperationFailure:
    """Return the failure of an operation from the status that its call would have returned."""
    infos = (detail for detail in error.details or () if isinstance(detail, ErrorInfo))
    info = next(infos, None)
    return OperationFailure(
        code=error.status.value,
        message=error.message or "",
        reason=ErrorReason.UNSPECIFIED if info is None else ErrorReason[info.reason],
        status_details=status_details(error),
    )


def _unavailable(error: CommitError | StoreError) -> GRPCError:
    match error:
        case Overloaded(retry_seconds=seconds):
            return status_of(
                ErrorReason.OVERLOADED,
                "more writes are waiting than can be answered in time; no change was made",
                {},
                _retry_in(seconds),
            )
        case Stopping():
            return status_of(
                ErrorReason.OVERLOADED,
                "the server is shutting down; no change was made",
                {},
                _retry_in(_RETRY_STORE_SECONDS),
            )
        case ClockSkewed(skew_seconds=skew, limit_seconds=limit):
            skew_milliseconds, limit_milliseconds = ceil(skew * 1000), ceil(limit * 1000)
            return status_of(
                ErrorReason.CLOCK_SKEWED,
                f"the clocks of the server and its store differ by {skew_milliseconds} ms or more,"
                f" and {limit_milliseconds} ms are allowed; no change was made: retry, at another"
                " server if there is one",
                {
                    "skew_milliseconds": str(skew_milliseconds),
                    "limit_milliseconds": str(limit_milliseconds),
                },
                _retry_in(_RETRY_CLOCK_SECONDS),
            )
        case ResultUnknown():
            return _store_unavailable(
                f"the store did not report in time whether it has committed; {UNCERTAIN_WRITE}"
            )
        case NotCommitted():
            return _store_unavailable(
                "the store could not commit the write; no change was made: retry"
            )
        case _:
            return _store_unavailable("the store cannot be reached")


def _store_unavailable(sentence: str) -> GRPCError:
    return status_of(ErrorReason.STORE_UNAVAILABLE, sentence, {}, _retry_in(_RETRY_STORE_SECONDS))


def status_of(
    reason: ErrorReason, sentence: str, metadata: Mapping[str, str], *details: Message
) -> GRPCError:
    """Return the status of a reason.

    Args:
        reason: The reason.
        sentence: What happened, for people.
        metadata: What the contract lists for the reason.
        details: Further messages that the contract lists for the reason.
    """
    return GRPCError(RULES[reason].status, sentence, [error_info(reason, metadata), *details])


def _retry_in(seconds: float) -> RetryInfo:
    delay = Duration()
    # Rounded up: a caller that retries after exactly that time is not too early.
    delay.FromMilliseconds(ceil(seconds * 1000))
    return RetryInfo(retry_delay=delay)
