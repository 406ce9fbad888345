"""Every error that a call of the SDK raises, with its cause and the remedy.

    CreditError
    ├── InvalidField            your request: correct it
    ├── IdempotencyKeyReused    your request: use a new key for a new request
    ├── TransactionNotFound     your request: the user has no such transaction in the app
    ├── IdempotencyKeyNotFound  no fault: no request with this key was applied so far
    ├── PageTokenInvalid        your request: begin with the first page
    ├── SummaryTooLarge         your request: request shorter spans
    ├── ResumeTokenInvalid      your request: begin without a token
    ├── ResumeTokenExpired      your app: begin without a token, and read what it missed
    ├── AlertEventsExpired      your app: it reads too late, and events were already removed
    ├── UserNotFound            your request: the directory has no user with this external id
    ├── UserIdsExhausted        the operator: the directory has no number left for a user
    ├── NotReversible           your request: transactions of this type cannot be reversed
    ├── ReversalExceeds         your request: less of the transaction is left to reverse
    ├── GrantNotFound           your request: the user never had such a grant in the app
    ├── GrantEmpty              no fault: nothing is left of the grant
    ├── ExpiresTooEarly         your request: the grant would end before it starts
    ├── HoldNotFound            your request: the user never had such a hold in the app
    ├── HoldSettled             your app: the hold is no longer open
    │   ├── HoldAlreadyCaptured     a capture has settled the hold
    │   ├── HoldAlreadyReleased     the hold was released
    │   └── HoldExpired             the hold has ended: call `use` instead
    ├── HoldExceeded            your request: the price is above what the hold still holds
    ├── HoldLifeExceeded        your request: the hold would last longer than allowed
    ├── RevisionChanged         no fault: another write came first; read and decide again
    ├── RevisionNotReached      the store: it lags behind; or your request: no such revision
    ├── AlreadyPurchased        the user: the user owns the report
    ├── CapExceeded             the user: retry when the period of the cap has ended
    ├── InsufficientCredits     the user: the same call succeeds once credits have been added
    ├── AvailableTooLow         no fault: the balance would be below the required one
    ├── CreditsLimitExceeded    your request: it adds more than the operator allows in one call
    ├── BalanceOverflow         your request: the balance has no room for so many credits
    ├── TooManyApps             your request: the user has credits in as many apps as allowed
    ├── TooManyAlerts           your app: the maximum number of alerts is set
    ├── TooManyWebhooks         your app: the maximum number of webhooks is set
    ├── WebhookUrlNotAllowed    your request: the URL is not HTTPS, or has a private address
    ├── DeadLetterNotFound      your request: the app has no such dead letter
    ├── GrantsFull              your app: the user has as many live grants as allowed
    ├── HoldsFull               your app: the user has as many open holds as allowed
    ├── AccountFull             your app: the user has as many grants and holds as allowed
    ├── BatchTooLarge           your batch: it would write too much; split it
    ├── BatchAborted            your batch: another operation of it was rejected
    ├── AppTotalOverflow        no fault: the sum is too large; request single users' balances
    ├── DataUnreadable          the operator: stored data of the user cannot be read
    ├── RateLimited             your app: make fewer calls, retry later
    ├── AccessDenied            your app, or the operator
    │   ├── Unauthenticated     your app: get a new token or certificate
    │   ├── ScopeMissing        the operator: the identity lacks the call's scope
    │   ├── AppNotAllowed       the operator: the identity does not belong to the app
    │   └── ActorNotAllowed     your request: `created_by` is not the identity's own number
    ├── TokenUnavailable        your app: the source of the token failed
    ├── TlsFailed               your app, or the server: fix certificates or settings
    ├── UnknownRefusal          unknown: the server is newer than this SDK
    ├── Unavailable             the network or the server: retry
    │   ├── Overloaded          the server: retry later
    │   ├── ClockSkewed         the server: retry later
    │   └── StoreUnavailable    the server: retry later
    ├── DeadlineExceeded        unknown: retry, with more time
    ├── HistoryAltered          the operator: a history is not what the server has written
    ├── CheckpointRejected      your app, or the operator: a checkpoint has no valid signature
    ├── ClientClosed            your app: the client was not open, or was closed during the call
    ├── InternalError           the server: report it, with the request id
    └── ProtocolMismatch        the server, or a proxy: the answer breaks the contract
        └── ServerTooOld        the operator: the server must be updated for this call

The SDK raises these after its own retries. `error.outcome` shows whether a write may have taken
effect. Unless that is `Outcome.NO_CHANGE`, a retry must send the same idempotency key
(`error.idempotency_key`), or the write may count twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar, dataclass_transform

from credit_models import ErrorReason
from credit_models.constraints import Violation
from grpclib.const import Status

_ErrorT = TypeVar("_ErrorT", bound="CreditError")


class Outcome(Enum):
    """What a write that raised an error did to the ledger, all its attempts together."""

    NO_CHANGE = "no_change"
    """No attempt took effect, and none will."""

    UNKNOWN = "unknown"
    """The write may have taken effect, or may still do so: at least one attempt has no answer."""

    APPLIED = "applied"
    """The write took effect. Only its receipt is missing."""


class CreditError(Exception):
    """A call that did not succeed. The base of all errors; they can be pickled and copied.

    Attributes:
        message: What happened, in a sentence.
        status: The gRPC status.
        reason: The contract's reason; None without a reason that this SDK knows.
        request_id: Identifies the call, also in the server's logs if it arrived there, and ends the
            text of the error. None if the request was rejected before the call began, unless the
            app has given an id.
        idempotency_key: The key of the write, your own or the one that the SDK made: with it the
            write can be retried and counts once. None for a call that reads.
        outcome: Whether the write may have taken effect. `Outcome.NO_CHANGE` for a call that reads.
    """

    status: Status = Status.UNKNOWN
    reason: ErrorReason | None = None
    outcome: Outcome = Outcome.UNKNOWN

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.idempotency_key: str | None = None

    def __str__(self) -> str:
        return self.message + (f" (request {self.request_id})" if self.request_id else "")

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        # `Exception` would call the constructor with the message alone, and lose the keywords.
        # `Any`: an instance's attributes have no common type.
        return _restore, (type(self), self.message), self.__dict__


def _restore(error_type: type[_ErrorT], message: str) -> _ErrorT:
    return error_type.__new__(error_type, message)


class InvalidField(CreditError):
    """The request breaks a constraint of the contract. Sent again unchanged, it fails again.

    Usually nothing was sent: the SDK checks every request with the server's own rules.

    Attributes:
        violations: Every broken field at once, each with the constraint of the field.
    """

    status = Status.INVALID_ARGUMENT
    reason = ErrorReason.INVALID_FIELD
    outcome = Outcome.NO_CHANGE  # of a request that the SDK does not send

    def __init__(
        self, message: str, *, violations: Sequence[Violation] = (), request_id: str | None = None
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.violations = tuple(violations)


class IdempotencyKeyReused(CreditError):
    """The key was used before, for another request of this user in this app. Take a new key.

    Attributes:
        fields: The fields that differ from that request; "call" stands for another call.
    """

    status = Status.ALREADY_EXISTS
    reason = ErrorReason.IDEMPOTENCY_KEY_REUSED

    def __init__(
        self, message: str, *, fields: Sequence[str] = (), request_id: str | None = None
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.fields = tuple(fields)


@dataclass_transform(kw_only_default=True, eq_default=False)
def _figures(kind: type[_ErrorT]) -> type[_ErrorT]:
    """Make a constructor that takes the figures by name."""
    return dataclass(kw_only=True, eq=False, repr=False)(kind)


@dataclass(eq=False, repr=False)
class _Refusal(CreditError):
    """An error with figures: mostly the metadata of its reason, by the contract's names."""

    message: str
    request_id: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        # Not `super`: the base of some has a status to be given, and these have their own.
        CreditError.__init__(self, self.message, request_id=self.request_id)


@_figures
class TransactionNotFound(_Refusal):
    """The user has no such transaction in the app. Nothing was changed.

    Attributes:
        transaction_id: The id in the request.
    """

    status = Status.NOT_FOUND
    reason = ErrorReason.TRANSACTION_NOT_FOUND
    transaction_id: str


@_figures
class IdempotencyKeyNotFound(_Refusal):
    """No request of the user in the app with this key was applied so far.

    Attributes:
        key: The key in the request.
    """

    status = Status.NOT_FOUND
    reason = ErrorReason.IDEMPOTENCY_KEY_NOT_FOUND
    key: str


@_figures
class PageTokenInvalid(_Refusal):
    """A page token was returned for another request or another identity."""

    status = Status.INVALID_ARGUMENT
    reason = ErrorReason.PAGE_TOKEN_INVALID


@_figures
class SummaryTooLarge(_Refusal):
    """The span of a summary has too many transactions or groups. Request shorter spans.

    Attributes:
        counted: What exceeds the limit: `transactions` or `groups`.
        limit: The largest number of these in one summary.
    """

    status = Status.RESOURCE_EXHAUSTED
    reason = ErrorReason.SUMMARY_TOO_LARGE
    counted: str
    limit: int


@_figures
class ResumeTokenInvalid(_Refusal):
    """A resume token was returned for another user or app, or by another database."""

    status = Status.INVALID_ARGUMENT
    reason = ErrorReason.RESUME_TOKEN_INVALID


@_figures
class ResumeTokenExpired(_Refusal):
    """The server no longer has the log of the app's transactions after a resume token."""

    status = Status.OUT_OF_RANGE
    reason = ErrorReason.RESUME_TOKEN_EXPIRED


@_figures
class AlertEventsExpired(_Refusal):
    """The server cannot return all events of the app after the position.

    Either it has removed some, because they were too old, or the position does not belong to any
    event: the operator has restored an older backup, or the position is from another server.

    Attributes:
        position: The position of the last removed event of the app, or the greatest position before
            the requested one. Continue after it, or pass 0 to read all events that are kept.
    """

    status = Status.OUT_OF_RANGE
    reason = ErrorReason.ALERT_EVENTS_EXPIRED
    position: int


@_figures
class UserNotFound(_Refusal):
    """The directory has no such user for the caller. `CreditClient.resolve_user` adds the user.

    Attributes:
        user: The external id, or the number, of the request.
    """

    status = Status.NOT_FOUND
    reason = ErrorReason.USER_NOT_FOUND
    user: str


@_figures
class UserIdsExhausted(_Refusal):
    """The directory has assigned the last number. Nothing was changed."""

    status = Status.RESOURCE_EXHAUSTED
    reason = ErrorReason.USER_IDS_EXHAUSTED


@_figures
class NotReversible(_Refusal):
    """Transactions of this type cannot be reversed. Nothing was changed.

    Attributes:
        type: The name of the `TransactionType`, such as `HOLD`.
    """

    status = Status.FAILED_PRECONDITION
    reason = ErrorReason.NOT_REVERSIBLE
    type: str


@_figures
class ReversalExceeds(_Refusal):
    """All reversals of the transaction together would exceed its credits. Nothing was changed.

    Attributes:
        reversible: How many credits of the transaction can still be reversed.
        required: How many the request reverses; 0 where it does not set a number.
    """

    status = Status.FAILED_PRECONDITION
    reason = ErrorReason.REVERSAL_EXCEEDS
    reversible: int
    required: int


@_figures
class GrantNotFound(_Refusal):
    """The user never had a grant with this id in the app. Nothing was changed.

    Attributes:
        grant_id: The id in the request.
    """

    status = Status.NOT_FOUND
    reason = ErrorReason.GRANT_NOT_FOUND
    grant_id: str


@_figures
class GrantEmpty(_Refusal):
    """Nothing is left of the grant: it is spent, held, voided, revoked or expired.

    Attributes:
        grant_id: The grant.
    """

    status = Status.FAILED_PRECONDITION
    reason = ErrorReason.GRANT_EMPTY
    grant_id: str


@_figures
class ExpiresTooEarly(_Refusal):
    """The grant would end at or before its start. Nothing was added.

    Attributes:
        expires_at: The end, by the request.
        starts_at: The start.
    """

    status = Status.FAILED_PRECONDITION
    reason = ErrorReason.EXPIRES_TOO_EARLY
    expires_at: datetime
    starts_at: datetime


@_figures
class HoldNotFound(_Refusal):
    """The user never had a hold with this id in the app. Nothing was changed.

    Attributes:
        hold_id: The id in the request.
    """

    status = Status.NOT_FOUND
    reason = ErrorReason.HOLD_NOT_FOUND
    hold_id: str


@_figures
class HoldSettled(_Refusal):
    """The hold is no longer open. Nothing was changed. This is the base of three errors.

    Attributes:
        captured: How many of the reserved credits were captured.
        released: How many of them were released.
        settled_at: When the hold was settled.
    """

    status = Status.FAILED_PRECONDITION
    captured: int
    released: int
    settled_at: datetime


class HoldAlreadyCaptured(HoldSettled):
    """A capture has settled the hold. Nothing was changed."""

    reason = ErrorReason.HOLD_ALREADY_CAPTURED


class HoldAlreadyReleased(HoldSettled):
    """The hold was released. Nothing was changed."""

    reason = ErrorReason.HOLD_ALREADY_RELEASED


class HoldExpired(HoldSettled):
    """The hold has ended, and its credits were released. Call `use` with a new key."""

    reason = ErrorReason.HOLD_EXPIRED


@_figures
class HoldExceeded(_Refusal):
    """The price is above what the hold still holds. Nothing was taken; see `allow_excess`.

    Attributes:
        held: The credits that the hold still holds.
        required: The price, in credits.
    """

    status = Status.FAILED_PRECONDITION
    reason = ErrorReason.HOLD_EXCEEDED
    held: int
    required: int


@_figures
class HoldLifeExceeded(_Refusal):
    """The hold would end later than is allowed. Nothing was changed.

    Attributes:
        limit_seconds: How long a hold may last, from when it was placed.
        placed_at: When the hold was placed.
    """

    status = Status.OUT_OF_RANGE
    reason = ErrorReason.HOLD_LIFE_EXCEEDED
    limit_seconds: int
    placed_at: datetime


@_figures
class RevisionChanged(_Refusal):
    """The user's revision is not `expected_revision`. Nothing was changed; read and decide again.

    Attributes:
        revision: The revision now.
    """

    status = Status.ABORTED
    reason = ErrorReason.REVISION_CHANGED
    revision: int


@_figures
class RevisionNotReached(_Refusal):
    """A read required a `min_revision`, and the user had a lower one. Nothing was changed.

    Attributes:
        revision: The user's revision; 0 if the identity belongs to certain apps.
        required: The required revision.
    """

    status = Status.ABORTED
    reason = ErrorReason.REVISION_NOT_REACHED
    revision: int
    required: int


@_figures
class AlreadyPurchased(_Refusal):
    """The user owns the report in the app, and the request sets `once`. Nothing was taken.

    Attributes:
        purchase_id: The purchase of the report. It is empty if the purchase was part of the same
            atomic batch: the batch was aborted, so the purchase does not exist.
    """

    status = Status.ALREADY_EXISTS
    reason = ErrorReason.ALREADY_PURCHASED
    purchase_id: str


@_figures
class CapExceeded(_Refusal):
    """The request would exceed a spending cap. Nothing was taken.

    Attributes:
        period: "hour", "day" or "month".
        cap: The cap, in credits.
        spent: The credits that were spent in this period.
        held: The credits of open holds, which count too.
        required: The credits of the request.
        resets_at: When the period ends.
    """

    status = Status.FAILED_PRECONDITION
    reason = ErrorReason.CAP_EXCEEDED
    period: str
    cap: int
    spent: int
    held: int
    required: int
    resets_at: datetime


@_figures
class InsufficientCredits(_Refusal):
    """The user has fewer credits in the app than the request takes. Nothing was taken.

    Attributes:
        available: The balance, in credits; of a reversal, what is left of the credits.
        required: The price or the other credits that the request takes.
        shortfall: `required - available`, 1 or more.
    """

    status = Status.FAILED_PRECONDITION
    reason = ErrorReason.INSUFFICIENT_CREDITS
    available: int
    required: int
    shortfall: int


@_figures
class AvailableTooLow(_Refusal):
    """The balance would be lower than `min_available_after`. Nothing was changed.

    Attributes:
        available_after: The balance that the request would leave; 0 where credits would be owed.
        required: `min_available_after`.
    """

    status = Status.ABORTED
    reason = ErrorReason.AVAILABLE_TOO_LOW
    available_after: int
    required: int


@_figures
class CreditsLimitExceeded(_Refusal):
    """The request adds more credits than the operator allows in one call. Nothing was added.

    Attributes:
        credits: How many the request adds.
        limit: The most that one call may add.
    """

    status = Status.OUT_OF_RANGE
    reason = ErrorReason.CREDITS_LIMIT_EXCEEDED
    credits: int
    limit: int


@_figures
class BalanceOverflow(_Refusal):
    """Adding the credits would take the balance past 4294967295. Nothing was added.

    Attributes:
        balance: The balance, in credits. Credits that are held or start later count too.
        credits: The credits of the request.
    """

    status = Status.OUT_OF_RANGE
    reason = ErrorReason.BALANCE_OVERFLOW
    balance: int
    credits: int


@_figures
class TooManyApps(_Refusal):
    """The user has, or had, credits in as many apps as one user may. Nothing was added.

    Attributes:
        limit: The largest number of apps.
    """

    status = Status.RESOURCE_EXHAUSTED
    reason = ErrorReason.TOO_MANY_APPS
    limit: int


@_figures
class TooManyAlerts(_Refusal):
    """The user in the app, or the app, has the maximum number of alerts. Nothing was changed.

    Attributes:
        limit: The largest number of alerts.
    """

    status = Status.RESOURCE_EXHAUSTED
    reason = ErrorReason.TOO_MANY_ALERTS
    limit: int


@_figures
class TooManyWebhooks(_Refusal):
    """The app has the maximum number of webhooks. Nothing was changed.

    Attributes:
        limit: The largest number of webhooks.
    """

    status = Status.RESOURCE_EXHAUSTED
    reason = ErrorReason.TOO_MANY_WEBHOOKS
    limit: int


@_figures
class WebhookUrlNotAllowed(_Refusal):
    """The operator does not allow the URL: it is not HTTPS, or has a private address.

    Nothing was changed.
    """

    status = Status.FAILED_PRECONDITION
    reason = ErrorReason.WEBHOOK_URL_NOT_ALLOWED


@_figures
class DeadLetterNotFound(_Refusal):
    """The app has no dead letter with this id. Nothing was changed.

    Attributes:
        dead_letter_id: The id of the request.
    """

    status = Status.NOT_FOUND
    reason = ErrorReason.DEAD_LETTER_NOT_FOUND
    dead_letter_id: str


@_figures
class GrantsFull(_Refusal):
    """The user has as many live grants in the app as one user may. Nothing was changed.

    Attributes:
        limit: The largest number of live grants.
    """

    status = Status.RESOURCE_EXHAUSTED
    reason = ErrorReason.GRANTS_FULL
    limit: int


@_figures
class HoldsFull(_Refusal):
    """The user has as many open holds in the app as one user may. Nothing was changed.

    Attributes:
        limit: The largest number of open holds.
    """

    status = Status.RESOURCE_EXHAUSTED
    reason = ErrorReason.HOLDS_FULL
    limit: int


@_figures
class AccountFull(_Refusal):
    """The user has as many live grants and open holds in all apps as one user may.

    Nothing was changed. Credits can still be added and used, and holds can be captured and
    released.

    Attributes:
        limit: The largest number of grants and holds. A hold counts as 1, and as 1 more for each
            of its allocations.
    """

    status = Status.RESOURCE_EXHAUSTED
    reason = ErrorReason.ACCOUNT_FULL
    limit: int


@_figures
class BatchTooLarge(_Refusal):
    """With this operation, the atomic batch would write more than one batch may.

    The batch made no change. Send this operation and those after it in another batch.

    Attributes:
        size: How many transactions the operations up to this one would write.
        limit: The maximum of `size`.
    """

    status = Status.RESOURCE_EXHAUSTED
    reason = ErrorReason.BATCH_TOO_LARGE
    size: int
    limit: int


@_figures
class BatchAborted(_Refusal):
    """Another operation of the same atomic batch was rejected. The batch made no change.

    Attributes:
        index: The position of the first rejected operation in the batch, from 0.
    """

    status = Status.ABORTED
    reason = ErrorReason.BATCH_ABORTED
    index: int


@_figures
class AppTotalOverflow(_Refusal):
    """The sum over all users of the app is past 4294967295; single balances are not affected.

    Attributes:
        total: The sum, in credits.
    """

    status = Status.OUT_OF_RANGE
    reason = ErrorReason.APP_TOTAL_OVERFLOW
    total: int


@_figures
class DataUnreadable(_Refusal):
    """Data that the request needs, such as the user's account, cannot be read by the server.

    Nothing was changed. The operator must correct the data; a retry fails until then.
    """

    status = Status.DATA_LOSS
    reason = ErrorReason.DATA_UNREADABLE


class _StatusError(CreditError):
    """An error that several statuses lead to."""

    def __init__(self, message: str, *, status: Status, request_id: str | None = None) -> None:
        super().__init__(message, request_id=request_id)
        self.status = status


class AccessDenied(_StatusError):
    """The server does not know the caller, or does not allow the caller this call.

    A retry helps only after the identity or its rights have changed.
    """


class Unauthenticated(_Refusal, AccessDenied):
    """The server requires an identity, and the call had none or one that is not valid.

    Nothing happened. The message names the problem; get a new token. Where a function or a file
    provides the token, the SDK has fetched a new one already, and the server rejected it too.
    """

    status = Status.UNAUTHENTICATED
    reason = ErrorReason.UNAUTHENTICATED


@_figures
class ScopeMissing(_Refusal, AccessDenied):
    """The identity lacks the scope that the call needs. Nothing happened.

    Attributes:
        scope: The scope, such as `credits:spend`.
    """

    status = Status.PERMISSION_DENIED
    reason = ErrorReason.SCOPE_MISSING
    scope: str


@_figures
class AppNotAllowed(_Refusal, AccessDenied):
    """The identity may not act in the app. Nothing happened.

    Attributes:
        app_id: The app.
    """

    status = Status.PERMISSION_DENIED
    reason = ErrorReason.APP_NOT_ALLOWED
    app_id: int


@_figures
class ActorNotAllowed(_Refusal, AccessDenied):
    """`created_by` is not the identity's own number, and it may not act for others.

    Nothing happened.

    Attributes:
        created_by: The number in the request.
    """

    status = Status.PERMISSION_DENIED
    reason = ErrorReason.ACTOR_NOT_ALLOWED
    created_by: int


@_figures
class RateLimited(_Refusal):
    """The identity has exceeded its rate limit. Nothing happened; retry later.

    Attributes:
        retry_after_seconds: The wait that the server requests, 0 or more.
    """

    status = Status.RESOURCE_EXHAUSTED
    reason = ErrorReason.RATE_LIMITED
    retry_after_seconds: float


class TokenUnavailable(CreditError):
    """There is no token for the call: its file cannot be read, or your function failed.

    Nothing was sent. The message names the cause, and `__cause__` is what your function raised.
    """

    status = Status.UNAUTHENTICATED


class TlsFailed(CreditError):
    """There is no safe connection to the server, and a retry alone would not make one.

    Nothing happened. The message names the certificate or setting to fix.
    """

    status = Status.UNAVAILABLE


class UnknownRefusal(_StatusError):
    """The server rejects the request for a reason that this SDK does not know. Update the SDK.

    Attributes:
        reason_name: The reason's name as the server sent it, or None if it sent none.
    """

    def __init__(
        self,
        message: str,
        *,
        status: Status,
        reason_name: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, status=status, request_id=request_id)
        self.reason_name = reason_name


class Unavailable(CreditError):
    """The server could not be reached, or the connection was lost. A retry may help.

    A write may or may not have taken effect: retry it with the same idempotency key.
    """

    status = Status.UNAVAILABLE


class Overloaded(Unavailable):
    """More writes are waiting than the server queues. No change was made; retry later."""

    reason = ErrorReason.OVERLOADED


@_figures
class ClockSkewed(_Refusal, Unavailable):
    """The server's clock differs too much from its store's, so it accepts no writes.

    Nothing was written. Retry later; another server may accept the write at once.

    Attributes:
        skew_milliseconds: The difference between the two clocks, at least.
        limit_milliseconds: The largest difference that the operator allows.
    """

    reason = ErrorReason.CLOCK_SKEWED
    skew_milliseconds: int
    limit_milliseconds: int


class StoreUnavailable(Unavailable):
    """The server cannot reach its store. Retry later, a write with the same idempotency key."""

    reason = ErrorReason.STORE_UNAVAILABLE


class DeadlineExceeded(CreditError):
    """The call's time ran out. A retry may help, a write with the same idempotency key.

    `__cause__` is the latest failure before that, if there was one: of an attempt, or of the
    connection that the call waited for. This is not `Unavailable`, because an attempt may have been
    sent and have succeeded.
    """

    status = Status.DEADLINE_EXCEEDED


class Finding(Enum):
    """The ways in which a history can differ from what the server has written."""

    CHANGED = "changed"
    """A field of the transaction was changed: its hash does not match its fields."""

    CHAIN_BROKEN = "chain_broken"
    """The transaction does not follow the one before it: one was removed, inserted or replaced."""

    OUT_OF_ORDER = "out_of_order"
    """The transaction's `sequence` is not greater than that of the previous transaction."""

    HASH_MISSING = "hash_missing"
    """The transaction has no hash, but an earlier one of the user in the app has one."""

    VERSION_UNKNOWN = "version_unknown"
    """The hash is of a scheme that this SDK does not know: update the SDK to check it."""

    BALANCE_WRONG = "balance_wrong"
    """The balance before and the effect do not add up to the balance after the transaction."""

    RECEIPT_DIFFERS = "receipt_differs"
    """The transaction is not the one that a receipt acknowledged."""

    RECEIPT_MISSING = "receipt_missing"
    """The history does not have a transaction that a receipt acknowledged."""

    CHECKPOINT_DIFFERS = "checkpoint_differs"
    """The history does not have the transaction of the user that a checkpoint covers."""


@_figures
class HistoryAltered(_Refusal):
    """A history is not what the server has written. Keep it as evidence, and ask the operator.

    Attributes:
        finding: The difference.
        user_id: The user; 0 if it is not known.
        app_id: The app; 0 if it is not known.
        sequence: The `sequence` of the first wrong or missing transaction; 0 if it is not known, as
            for `Finding.CHECKPOINT_DIFFERS`.
    """

    status = Status.DATA_LOSS
    outcome = Outcome.NO_CHANGE
    finding: Finding
    user_id: int = 0
    app_id: int = 0
    sequence: int = 0


class CheckpointRejected(CreditError):
    """A checkpoint is malformed or was not signed with the key. Do not rely on its heads."""

    status = Status.DATA_LOSS
    outcome = Outcome.NO_CHANGE


class ClientClosed(CreditError):
    """The client is not open: it was never entered, or was closed during the call.

    A write that was under way may or may not have taken effect.
    """

    status = Status.CANCELLED


class InternalError(_StatusError):
    """The server failed in a way that its contract does not foresee. Report the request id.

    A write may or may not have taken effect.
    """


class ProtocolMismatch(_StatusError):
    """The answer breaks the contract: it cannot be decoded, or something promised is missing.

    The server is of another version, or something on the way is no gRPC server. A write may or may
    not have happened.
    """


@_figures
class ServerTooOld(_Refusal, ProtocolMismatch):
    """The server is too old and does not have the call. Nothing was changed.

    All other calls still work. Ask the operator for a newer server.

    Attributes:
        method: The call, such as `credit.v1.LedgerService/GrantCredits`.
    """

    status = Status.UNIMPLEMENTED
    outcome = Outcome.NO_CHANGE
    method: str
