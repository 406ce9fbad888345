"""What the attempts of a call have done to the ledger, as far as the SDK can know."""

from dataclasses import dataclass
from typing import Protocol, assert_never

from credit_models import ErrorReason
from grpclib.const import Status

from credit_client.errors import CreditError, IdempotencyKeyReused, Outcome
from credit_client.refusal import reason_of
from credit_client.transport import AnswerBroken, AttemptFailed, HandshakeFailed

# The clause with which a server reports that nothing changed, and that of servers up to 0.3.0.
_PROMISES = ("; no change was made", "; nothing happened")


class Effect(Protocol):
    """Follows the attempts of a call."""

    def begin_attempt(self) -> None:
        """Record that an attempt begins, possibly after a failed one. Nothing was sent yet.

        A second call before `sending` changes nothing.
        """

    def sending(self) -> None:
        """Record that from now on the server may execute the latest attempt."""

    def failed(self, failure: AttemptFailed) -> None:
        """Record why the latest attempt has failed."""

    def complete(self, error: CreditError) -> None:
        """Add the outcome to the error that ends the call."""


class ReadEffect:
    """The effect of a call that changes nothing.

    Attributes are those of `WriteEffect`.
    """

    outcome = Outcome.NO_CHANGE
    earlier_unknown = False

    def begin_attempt(self) -> None:
        """See `Effect`."""

    def sending(self) -> None:
        """See `Effect`."""

    def failed(self, failure: AttemptFailed) -> None:
        """See `Effect`."""

    def complete(self, error: CreditError) -> None:
        """See `Effect`."""
        error.outcome = Outcome.NO_CHANGE


@dataclass(eq=False, slots=True)
class WriteEffect:
    """The effect of one write.

    Attributes:
        outcome: What the latest attempt did to the ledger; unknown once it is sent.
        earlier_unknown: Whether the outcome of an attempt before the latest is unknown.
    """

    outcome: Outcome = Outcome.NO_CHANGE
    earlier_unknown: bool = False

    def begin_attempt(self) -> None:
        """See `Effect`."""
        self.earlier_unknown |= self.outcome is Outcome.UNKNOWN
        self.outcome = Outcome.NO_CHANGE

    def sending(self) -> None:
        """See `Effect`."""
        self.outcome = Outcome.UNKNOWN

    def failed(self, failure: AttemptFailed) -> None:
        """See `Effect`."""
        if self.outcome is Outcome.UNKNOWN:
            self.outcome = outcome_of(failure)

    def complete(self, error: CreditError) -> None:
        """See `Effect`."""
        error.outcome, clause = Outcome.NO_CHANGE, "no change was made"
        if self.outcome is Outcome.UNKNOWN:
            error.outcome, clause = Outcome.UNKNOWN, "the write may have taken effect"
        elif self.earlier_unknown and not isinstance(error, IdempotencyKeyReused):
            # A refusal proves that the earlier attempt had not taken effect by then. It may still
            # be on its way to another server, and take effect once there are credits, for example.
            # Only a key that belongs to another request makes the server reject it forever.
            error.outcome, clause = Outcome.UNKNOWN, "an earlier attempt may have taken effect"
            error.message = _without_promise(error.message)
        elif "nothing happened" in error.message or clause in error.message:
            return
        error.message = f"{error.message.removesuffix('.')}; {clause}"
        error.args = (error.message,)


def _without_promise(message: str) -> str:
    """Return a server's message without its clause that the attempt made no change.

    The clause is about one attempt. Beside an earlier attempt whose outcome is unknown it would
    read as a promise for the whole write.
    """
    for clause in _PROMISES:
        message = message.replace(clause, "")
    return message


def outcome_of(failure: AttemptFailed) -> Outcome:
    """Return the outcome of an attempt that was sent: `NO_CHANGE` only if that is certain."""
    if isinstance(failure, HandshakeFailed):
        return Outcome.NO_CHANGE
    if isinstance(failure, AnswerBroken):
        return Outcome.UNKNOWN
    reason = reason_of(failure)
    return _of_status(failure.status) if reason is None else _of_reason(reason)


def _of_reason(reason: ErrorReason) -> Outcome:
    """Return what the contract promises for a reason (`error_reason.proto`)."""
    match reason:
        case (
            ErrorReason.INVALID_FIELD
            | ErrorReason.IDEMPOTENCY_KEY_REUSED
            | ErrorReason.INSUFFICIENT_CREDITS
            | ErrorReason.BALANCE_OVERFLOW
            | ErrorReason.APP_TOTAL_OVERFLOW
            | ErrorReason.OVERLOADED
            | ErrorReason.TOO_MANY_APPS
            | ErrorReason.TOO_MANY_ALERTS
            | ErrorReason.TOO_MANY_WEBHOOKS
            | ErrorReason.WEBHOOK_URL_NOT_ALLOWED
            | ErrorReason.DEAD_LETTER_NOT_FOUND
            | ErrorReason.BATCH_ABORTED
            | ErrorReason.UNAUTHENTICATED
            | ErrorReason.RATE_LIMITED
            | ErrorReason.SCOPE_MISSING
            | ErrorReason.APP_NOT_ALLOWED
            | ErrorReason.ACTOR_NOT_ALLOWED
            | ErrorReason.CREDITS_LIMIT_EXCEEDED
            | ErrorReason.CLOCK_SKEWED
            | ErrorReason.HOLD_NOT_FOUND
            | ErrorReason.HOLD_ALREADY_CAPTURED
            | ErrorReason.HOLD_ALREADY_RELEASED
            | ErrorReason.HOLD_EXPIRED
            | ErrorReason.HOLD_EXCEEDED
            | ErrorReason.HOLD_LIFE_EXCEEDED
            | ErrorReason.GRANT_NOT_FOUND
            | ErrorReason.GRANT_EMPTY
            | ErrorReason.GRANTS_FULL
            | ErrorReason.HOLDS_FULL
            | ErrorReason.ACCOUNT_FULL
            | ErrorReason.BATCH_TOO_LARGE
            | ErrorReason.TRANSACTION_NOT_FOUND
            | ErrorReason.NOT_REVERSIBLE
            | ErrorReason.REVERSAL_EXCEEDS
            | ErrorReason.CAP_EXCEEDED
            | ErrorReason.ALREADY_PURCHASED
            | ErrorReason.REVISION_CHANGED
            | ErrorReason.AVAILABLE_TOO_LOW
            | ErrorReason.EXPIRES_TOO_EARLY
            | ErrorReason.PAGE_TOKEN_INVALID
            | ErrorReason.SUMMARY_TOO_LARGE
            | ErrorReason.IDEMPOTENCY_KEY_NOT_FOUND
            | ErrorReason.RESUME_TOKEN_INVALID
            | ErrorReason.RESUME_TOKEN_EXPIRED
            | ErrorReason.ALERT_EVENTS_EXPIRED
            | ErrorReason.USER_NOT_FOUND
            | ErrorReason.USER_IDS_EXHAUSTED
            | ErrorReason.REVISION_NOT_REACHED
            | ErrorReason.DATA_UNREADABLE
        ):
            return Outcome.NO_CHANGE
        case ErrorReason.STORE_UNAVAILABLE | ErrorReason.UNSPECIFIED:
            return Outcome.UNKNOWN
        case _:
            assert_never(reason)


def _of_status(status: Status) -> Outcome:
    """Return the outcome for a status without a reason of the contract.

    Servers and proxies send the first four before they execute a call. Any other status may come
    from a proxy that lost the answer, or from a server that is newer than this SDK.
    """
    match status:
        case (
            Status.INVALID_ARGUMENT
            | Status.UNAUTHENTICATED
            | Status.PERMISSION_DENIED
            | Status.UNIMPLEMENTED
        ):
            return Outcome.NO_CHANGE
        case (
            Status.OK
            | Status.CANCELLED
            | Status.UNKNOWN
            | Status.DEADLINE_EXCEEDED
            | Status.NOT_FOUND
            | Status.ALREADY_EXISTS
            | Status.RESOURCE_EXHAUSTED
            | Status.FAILED_PRECONDITION
            | Status.ABORTED
            | Status.OUT_OF_RANGE
            | Status.INTERNAL
            | Status.UNAVAILABLE
            | Status.DATA_LOSS
        ):
            return Outcome.UNKNOWN
        case _:
            assert_never(status)
