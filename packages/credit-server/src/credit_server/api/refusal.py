"""Translates refusals into statuses with google.rpc details, as the contract's options say."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from math import ceil
from typing import assert_never

from credit_models import ErrorReason
from credit_models.constraints import Violation
from credit_models.reasons import DOMAIN, RULES, reason_name
from credit_models.status import StatusDetailsCodec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import encode_bin_value, encode_grpc_message

from credit_server.commit import (
    ClockSkewed,
    CommitError,
    NotCommitted,
    Overloaded,
    ResultUnknown,
    Stopping,
)
from credit_server.grpc.compression import ACCEPTED
from credit_server.ledger import (
    BalanceOverflow,
    CreditsLimitExceeded,
    InsufficientCredits,
    KeyReused,
    Refusal,
    TooManyApps,
)
from credit_server.store.port import StoreError

_RETRY_STEP_SECONDS = 0.05
"""To what times of shed calls are rounded, so that their headers are made once."""
_RETRY_RUNNING_SECONDS = 0.25
_RETRY_STORE_SECONDS = 1.0
"""A replica set takes some seconds to elect a primary, and a server to be replaced."""
_RETRY_CLOCK_SECONDS = 5.0
"""Clocks are set by an operator, or by NTP within minutes; another server may be sound."""
_MAY_HAVE = (
    "a write may or may not have taken effect, or may still take effect: retry it with the same"
    " idempotency key, and it takes effect once"
)


def unauthenticated(sentence: str) -> GRPCError:
    """Refuse a call that proves no identity.

    Args:
        sentence: What is wrong, for the caller to read.
    """
    return _error(ErrorReason.UNAUTHENTICATED, sentence, {})


def rate_limited(sentence: str, wait_seconds: float) -> GRPCError:
    """Refuse a call that comes too soon.

    Args:
        sentence: What has used up its share.
        wait_seconds: After which time a call is taken again.
    """
    return _error(
        ErrorReason.RATE_LIMITED,
        f"{sentence} as often as it may in a time; nothing happened",
        {},
        _retry_in(wait_seconds),
    )


def too_many_running(limit: int) -> GRPCError:
    """Refuse a call of who has as many calls under way as they may."""
    return _error(
        ErrorReason.RATE_LIMITED,
        f"the caller has {limit} calls under way, which is all that it may; nothing happened",
        {},
        _retry_in(_RETRY_RUNNING_SECONDS),
    )


def scope_missing(scope: str) -> GRPCError:
    """Refuse a call that the identity may not make."""
    return _error(ErrorReason.SCOPE_MISSING, f"the call takes the scope {scope}", {"scope": scope})


def app_not_allowed(app_id: int) -> GRPCError:
    """Refuse to act, or to show anything, in an app that is not the identity's."""
    return _error(
        ErrorReason.APP_NOT_ALLOWED,
        f"the identity may not act in app {app_id}",
        {"app_id": str(app_id)},
    )


def actor_not_allowed(created_by: int) -> GRPCError:
    """Refuse to act in another's name."""
    return _error(
        ErrorReason.ACTOR_NOT_ALLOWED,
        f"the identity may not act in the name of {created_by}",
        {"created_by": str(created_by)},
    )


def invalid(violations: Sequence[Violation]) -> GRPCError:
    """Refuse a request for all the fields that break a constraint."""
    named = "; ".join(f"{broken.field} {broken.description}" for broken in violations)
    details = BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field=broken.field, description=broken.description)
            for broken in violations
        ]
    )
    return _error(ErrorReason.INVALID_FIELD, named, {}, details)


def refused(refusal: Refusal) -> GRPCError:
    """Translate what the ledger refused."""
    match refusal:
        case KeyReused(fields=fields):
            return _error(
                ErrorReason.IDEMPOTENCY_KEY_REUSED,
                f"the idempotency key was used in this app for a request with another"
                f" {', '.join(fields)}; no change was made",
                {"fields": ",".join(fields)},
            )
        case CreditsLimitExceeded(credits=added, limit=limit):
            return _error(
                ErrorReason.CREDITS_LIMIT_EXCEEDED,
                f"the request adds {added} credits and one call may add {limit};"
                " no change was made",
                {"credits": str(added), "limit": str(limit)},
            )
        case InsufficientCredits(available=available, required=required):
            return _error(
                ErrorReason.INSUFFICIENT_CREDITS,
                f"the user holds {available} credits and {required} are required",
                {
                    "available": str(available),
                    "required": str(required),
                    "shortfall": str(refusal.shortfall),
                },
            )
        case BalanceOverflow(balance=balance, credits=added):
            return _error(
                ErrorReason.BALANCE_OVERFLOW,
                f"the balance is {balance} and {added} more would take it past 4294967295",
                {"balance": str(balance), "credits": str(added)},
            )
        case TooManyApps(limit=limit):
            return _error(
                ErrorReason.TOO_MANY_APPS,
                f"the user has credits in {limit} apps, and more are not allowed",
                {"limit": str(limit)},
            )
        case _:
            assert_never(refusal)


def total_overflow(total: int) -> GRPCError:
    """Refuse to show a sum that does not fit."""
    return _error(
        ErrorReason.APP_TOTAL_OVERFLOW,
        f"the balances of the app's users add up to {total}, past 4294967295",
        {"total": str(total)},
    )


def unavailable(error: CommitError | StoreError) -> GRPCError:
    """Translate why a write was not settled, or a read not answered."""
    match error:
        case Overloaded(retry_seconds=seconds):
            return _overloaded("more writes are waiting than can be answered in time", seconds)
        case Stopping():
            return _overloaded("the server is shutting down", _RETRY_STORE_SECONDS)
        case ClockSkewed(skew_seconds=skew, limit_seconds=limit):
            skew_milliseconds, limit_milliseconds = ceil(skew * 1000), ceil(limit * 1000)
            return _error(
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
            return _error(
                ErrorReason.STORE_UNAVAILABLE,
                f"the store did not report in time whether it has committed; {_MAY_HAVE}",
                {},
                _retry_in(_RETRY_STORE_SECONDS),
            )
        case NotCommitted():
            return _error(
                ErrorReason.STORE_UNAVAILABLE,
                "the store could not commit the write; no change was made: retry",
                {},
                _retry_in(_RETRY_STORE_SECONDS),
            )
        case _:
            return _error(
                ErrorReason.STORE_UNAVAILABLE,
                "the store cannot be reached",
                {},
                _retry_in(_RETRY_STORE_SECONDS),
            )


def too_many_lists(retry_seconds: float) -> GRPCError:
    """Refuse to go on with a list whose turn does not come.

    Args:
        retry_seconds: When it should be asked for again.
    """
    return _overloaded("more lists are asked for than can be read in time", retry_seconds)


def deadline_exceeded(*, write: bool) -> GRPCError:
    """End a call whose deadline has passed.

    Args:
        write: Whether it is a write, which a batch may commit after its caller has left.
    """
    sentence = f"the deadline has passed; {_MAY_HAVE}" if write else "the deadline has passed"
    return GRPCError(Status.DEADLINE_EXCEEDED, sentence)


def cut_off() -> GRPCError:
    """End a call that the server has begun and cannot finish, because it closes the connection.

    Not as OVERLOADED, which promises that nothing has happened.
    """
    return _error(
        ErrorReason.STORE_UNAVAILABLE,
        f"the server closes the connection before it has answered the call; {_MAY_HAVE}",
        {},
        _retry_in(_RETRY_STORE_SECONDS),
    )


def shed_headers(retry_seconds: float) -> Sequence[tuple[str, str]]:
    """Return the whole answer to a call that is refused by its headers alone.

    Args:
        retry_seconds: When it should come again; rounded up to a twentieth of a second.
    """
    return _shed_headers(ceil(retry_seconds / _RETRY_STEP_SECONDS))


@cache
def _shed_headers(retry_steps: int) -> tuple[tuple[str, str], ...]:
    error = _overloaded(
        "the server has more calls than it can answer in time", retry_steps * _RETRY_STEP_SECONDS
    )
    details = StatusDetailsCodec().encode(error.status, error.message, error.details)
    return (
        (":status", "200"),
        ("content-type", "application/grpc+proto"),
        ("grpc-accept-encoding", ACCEPTED),
        ("grpc-status", str(error.status.value)),
        ("grpc-message", encode_grpc_message(str(error.message))),
        ("grpc-status-details-bin", encode_bin_value(details).decode("ascii")),
    )


def _overloaded(sentence: str, retry_seconds: float) -> GRPCError:
    return _error(
        ErrorReason.OVERLOADED, f"{sentence}; no change was made", {}, _retry_in(retry_seconds)
    )


def _error(
    reason: ErrorReason, sentence: str, metadata: Mapping[str, str], *details: Message
) -> GRPCError:
    info = ErrorInfo(reason=reason_name(reason), domain=DOMAIN, metadata=metadata)
    return GRPCError(RULES[reason].status, sentence, [info, *details])


def _retry_in(seconds: float) -> RetryInfo:
    delay = Duration()
    # Rounded up: who comes back after exactly that time is not too early.
    delay.FromMilliseconds(math.ceil(seconds * 1000))
    return RetryInfo(retry_delay=delay)
