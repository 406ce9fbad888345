"""Translates refusals into statuses with google.rpc details, as the contract's options say."""

import math
from collections.abc import Mapping, Sequence
from typing import assert_never

from credit_models import ErrorReason
from credit_models.constraints import Violation
from credit_models.reasons import DOMAIN, RULES, reason_name
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpclib.exceptions import GRPCError

from credit_server.commit import (
    CommitError,
    NotCommitted,
    Overloaded,
    ResultUnknown,
    Stopping,
)
from credit_server.ledger import (
    BalanceOverflow,
    InsufficientCredits,
    KeyReused,
    Refusal,
    TooManyApps,
)
from credit_server.store.port import StoreError

_RETRY_OVERLOADED_SECONDS = 0.1
"""About a few batches: the queue has moved by then."""
_RETRY_STORE_SECONDS = 1.0
"""A replica set takes some seconds to elect a primary."""


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
                f"the idempotency key was used for a request with another {', '.join(fields)}",
                {"fields": ",".join(fields)},
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
        case Overloaded():
            return _error(
                ErrorReason.OVERLOADED,
                "more writes are waiting than the server queues; nothing happened",
                {},
                _retry_in(_RETRY_OVERLOADED_SECONDS),
            )
        case Stopping():
            return _error(
                ErrorReason.OVERLOADED,
                "the server is shutting down; nothing happened",
                {},
                _retry_in(_RETRY_STORE_SECONDS),
            )
        case ResultUnknown():
            return _error(
                ErrorReason.STORE_UNAVAILABLE,
                "the store did not settle the write in time; it may have happened:"
                " send it again with the same idempotency key",
                {},
                _retry_in(_RETRY_STORE_SECONDS),
            )
        case NotCommitted():
            return _error(
                ErrorReason.STORE_UNAVAILABLE,
                "the store could not take the write; nothing happened",
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
