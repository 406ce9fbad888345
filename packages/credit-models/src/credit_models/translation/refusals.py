"""Translates the refusals of the ledger into the contract's reasons and their details."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from credit_models import ErrorReason
from credit_models.errors import Violation
from credit_models.ledger import (
    AccountFull,
    AlreadyPurchased,
    AvailableTooLow,
    BalanceOverflow,
    BatchAborted,
    BatchTooLarge,
    CapExceeded,
    CreditsLimitExceeded,
    ExpiresTooEarly,
    GrantEmpty,
    GrantNotFound,
    GrantsFull,
    HoldAlreadyCaptured,
    HoldAlreadyReleased,
    HoldExceeded,
    HoldExpired,
    HoldLifeExceeded,
    HoldNotFound,
    HoldsFull,
    InsufficientCredits,
    InvariantViolated,
    KeyReused,
    Kind,
    NotReversible,
    Refusal,
    ReversalExceeds,
    RevisionChanged,
    TooManyAlerts,
    TooManyApps,
    TransactionNotFound,
)
from credit_models.reasons import DOMAIN, RULES, reason_name

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_OF_HOLD = ": {captured} of its credits were captured and {released} released; no change was made"

# The reason and the sentence of each refusal. The sentence contains metadata of the reason.
_FORMS: Mapping[type[Refusal], tuple[ErrorReason, str]] = MappingProxyType(
    {
        KeyReused: (
            ErrorReason.IDEMPOTENCY_KEY_REUSED,
            (
                "the idempotency key was used in this app for a request that differs in: {fields};"
                " no change was made: use a new key for another request"
            ),
        ),
        CreditsLimitExceeded: (
            ErrorReason.CREDITS_LIMIT_EXCEEDED,
            "the request adds {credits} credits and one call may add {limit}; no change was made",
        ),
        TransactionNotFound: (
            ErrorReason.TRANSACTION_NOT_FOUND,
            "the user has no such transaction in the app; no change was made",
        ),
        GrantNotFound: (
            ErrorReason.GRANT_NOT_FOUND,
            "the user has no such grant in the app; no change was made",
        ),
        HoldNotFound: (
            ErrorReason.HOLD_NOT_FOUND,
            "the user has no such hold in the app; no change was made",
        ),
        NotReversible: (
            ErrorReason.NOT_REVERSIBLE,
            "transactions of the type {type} cannot be reversed; no change was made",
        ),
        HoldAlreadyCaptured: (
            ErrorReason.HOLD_ALREADY_CAPTURED,
            "a capture has settled the hold" + _OF_HOLD,
        ),
        HoldAlreadyReleased: (
            ErrorReason.HOLD_ALREADY_RELEASED,
            "the hold was released" + _OF_HOLD,
        ),
        HoldExpired: (ErrorReason.HOLD_EXPIRED, "the hold has ended" + _OF_HOLD),
        GrantEmpty: (
            ErrorReason.GRANT_EMPTY,
            "nothing is left of the grant; no change was made",
        ),
        ExpiresTooEarly: (
            ErrorReason.EXPIRES_TOO_EARLY,
            "the grant would end at or before its start; no change was made",
        ),
        HoldLifeExceeded: (
            ErrorReason.HOLD_LIFE_EXCEEDED,
            "a hold ends at most {limit_seconds} seconds after it was placed; no change was made",
        ),
        RevisionChanged: (
            ErrorReason.REVISION_CHANGED,
            (
                "the revision is {revision} and the request requires another; no change was made:"
                " read the data again, and decide again"
            ),
        ),
        AlreadyPurchased: (
            ErrorReason.ALREADY_PURCHASED,
            "the user owns the report, and the request sets `once`; no change was made",
        ),
        HoldExceeded: (
            ErrorReason.HOLD_EXCEEDED,
            "the hold has {held} credits and {required} are required; no change was made",
        ),
        ReversalExceeds: (
            ErrorReason.REVERSAL_EXCEEDS,
            "{reversible} credits of the transaction can still be reversed; no change was made",
        ),
        CapExceeded: (
            ErrorReason.CAP_EXCEEDED,
            (
                "the spending cap is {cap} credits per {period}: {spent} are spent, {held} held and"
                " {required} required; the {period} ends at {resets_at}; no change was made"
            ),
        ),
        InsufficientCredits: (
            ErrorReason.INSUFFICIENT_CREDITS,
            "the user has {available} credits and {required} are required; no change was made",
        ),
        BalanceOverflow: (
            ErrorReason.BALANCE_OVERFLOW,
            (
                "the balance with held and scheduled credits is {balance}, and {credits} more"
                " would raise it above 4294967295; no change was made"
            ),
        ),
        TooManyAlerts: (
            ErrorReason.TOO_MANY_ALERTS,
            "the maximum of {limit} alerts is set; no change was made: remove an alert first",
        ),
        TooManyApps: (
            ErrorReason.TOO_MANY_APPS,
            "the user has credits in {limit} apps, and more are not allowed; no change was made",
        ),
        GrantsFull: (
            ErrorReason.GRANTS_FULL,
            "the user has {limit} grants in the app, and more are not allowed; no change was made",
        ),
        HoldsFull: (
            ErrorReason.HOLDS_FULL,
            (
                "the user has {limit} open holds in the app, and more are not allowed;"
                " no change was made"
            ),
        ),
        AccountFull: (
            ErrorReason.ACCOUNT_FULL,
            (
                "a user may have {limit} grants and holds in all apps together, and the request"
                " needs more; no change was made"
            ),
        ),
        AvailableTooLow: (
            ErrorReason.AVAILABLE_TOO_LOW,
            (
                "the balance after the request would be {available_after}, and {required} are"
                " required; no change was made"
            ),
        ),
        BatchTooLarge: (
            ErrorReason.BATCH_TOO_LARGE,
            (
                "with this operation the atomic batch would write {size} transactions, and {limit}"
                " are allowed; no change was made: send this and later operations in another batch"
            ),
        ),
        BatchAborted: (
            ErrorReason.BATCH_ABORTED,
            "operation {index} of the atomic batch was rejected; no change was made",
        ),
    }
)


class Answer(NamedTuple):
    """The contract's error for a request that the ledger rejects.

    Attributes:
        reason: The contract's reason.
        message: What happened, for people.
        metadata: What the contract lists for the reason.
    """

    reason: ErrorReason
    message: str
    metadata: Mapping[str, str]


def answer_of(refusal: Refusal) -> Answer:
    """Return the answer to a request that the ledger has rejected.

    Raises:
        InvariantViolated: No request can cause the refusal.
    """
    if type(refusal) not in _FORMS:
        raise InvariantViolated(f"the contract has no reason for {refusal}")
    reason, sentence = _FORMS[type(refusal)]
    # The keys of the metadata are the attributes of the refusal.
    metadata = {key: _text(refusal, key) for key in RULES[reason].metadata}
    shown = {key: value.replace(",", ", ") for key, value in metadata.items()}
    if isinstance(refusal, CapExceeded):
        # People read the sentence, and programs read the milliseconds of the metadata.
        shown["resets_at"] = f"{refusal.resets_at:%Y-%m-%dT%H:%M:%SZ}"
    return Answer(reason, sentence.format(**shown), metadata)


def total_overflow(total: int) -> Answer:
    """Return the answer if an app's sum does not fit its field."""
    return Answer(
        ErrorReason.APP_TOTAL_OVERFLOW,
        f"the balances of the app's users add up to {total}, past 4294967295",
        {"total": str(total)},
    )


def page_token_invalid() -> Answer:
    """Return the answer to a page token that was made for another request or identity."""
    return Answer(
        ErrorReason.PAGE_TOKEN_INVALID,
        "the page_token was returned for another request or identity: begin with the first page",
        {},
    )


def summary_too_large(counted: str, limit: int) -> Answer:
    """Return the answer to a summary with too many transactions or groups.

    Args:
        counted: What exceeds the limit: "transactions" or "groups".
        limit: The limit.
    """
    return Answer(
        ErrorReason.SUMMARY_TOO_LARGE,
        f"the span has more than {limit} {counted}: request shorter spans, and add their summaries",
        {"counted": counted, "limit": str(limit)},
    )


def resume_token_invalid() -> Answer:
    """Return the answer to a text that is no resume token of a watch of the user or the app."""
    return Answer(
        ErrorReason.RESUME_TOKEN_INVALID,
        "resume_token is not a token that a watch of this user or app returned: begin without a"
        " token",
        {},
    )


def resume_token_expired() -> Answer:
    """Return the answer to a resume token whose position is no longer in the log."""
    return Answer(
        ErrorReason.RESUME_TOKEN_EXPIRED,
        "the log no longer has the transactions after the resume_token: begin without a token, and"
        " read the missed ones with QueryTransactions",
        {},
    )


def alert_events_expired(position: int) -> Answer:
    """Return the answer to a read after a position whose following events were removed.

    Args:
        position: The position of the last removed event of the app.
    """
    return Answer(
        ErrorReason.ALERT_EVENTS_EXPIRED,
        f"events of the app up to the position {position} were removed, because they were too old:"
        " continue after it, or begin with after_position 0",
        {"position": str(position)},
    )


def alert_position_unknown(last: int) -> Answer:
    """Return the answer to a read after a position that does not belong to any event.

    Args:
        last: The greatest position of an event before that position; 0 if there is none.
    """
    begin = f"Continue after the greatest earlier position, {last}, or begin" if last else "Begin"
    return Answer(
        ErrorReason.ALERT_EVENTS_EXPIRED,
        "after_position does not belong to any event: the operator has restored an older backup, or"
        " the position is from another server. Events may be missing."
        f" {begin} with after_position 0",
        {"position": str(last)},
    )


def transaction_not_found(transaction_id: str) -> Answer:
    """Return the answer to a read of a transaction that does not exist for the caller."""
    return Answer(
        ErrorReason.TRANSACTION_NOT_FOUND,
        "no transaction has this id",
        {"transaction_id": transaction_id},
    )


def key_not_found(key: str) -> Answer:
    """Return the answer to a read of the transaction of a key that was not used."""
    return Answer(
        ErrorReason.IDEMPOTENCY_KEY_NOT_FOUND,
        "no request of the user in the app with this key was applied",
        {"key": key},
    )


def too_many_webhooks(limit: int) -> Answer:
    """Return the answer to a new webhook of an app that has the maximum number of webhooks."""
    return Answer(
        ErrorReason.TOO_MANY_WEBHOOKS,
        f"the app has the maximum of {limit} webhooks; no change was made: remove one first",
        {"limit": str(limit)},
    )


def webhook_url_not_allowed(fault: str) -> Answer:
    """Return the answer to a webhook whose URL the operator does not allow.

    Args:
        fault: The rule that the URL breaks, such as "must begin with https://".
    """
    return Answer(
        ErrorReason.WEBHOOK_URL_NOT_ALLOWED,
        f"the URL of a webhook {fault}, unless the operator sets"
        " CREDIT_WEBHOOK_ALLOW_PRIVATE=true; no change was made",
        {},
    )


def dead_letter_not_found(dead_letter_id: str) -> Answer:
    """Return the answer to a request for a dead letter that the app does not have."""
    return Answer(
        ErrorReason.DEAD_LETTER_NOT_FOUND,
        "the app has no dead letter with this id; no change was made",
        {"dead_letter_id": dead_letter_id},
    )


def user_not_found(user: str) -> Answer:
    """Return the answer to a search for a user who is in no directory that the caller may read."""
    return Answer(
        ErrorReason.USER_NOT_FOUND,
        "the directory has no such user",
        {"user": user},
    )


def user_ids_exhausted() -> Answer:
    """Return the answer to a request for a number after the last one was assigned."""
    return Answer(
        ErrorReason.USER_IDS_EXHAUSTED,
        "the directory has assigned the last number, 4294967295; no change was made",
        {},
    )


def revision_not_reached(revision: int, *, required: int) -> Answer:
    """Return the answer to a read that requires a revision which the user does not have yet.

    Args:
        revision: The user's revision; 0 if the caller may not read it.
        required: The required revision.
    """
    return Answer(
        ErrorReason.REVISION_NOT_REACHED,
        f"the user has not reached revision {required} in time",
        {"revision": str(revision), "required": str(required)},
    )


def error_info(reason: ErrorReason, metadata: Mapping[str, str]) -> ErrorInfo:
    """Return the detail of a status that names the contract's reason."""
    return ErrorInfo(reason=reason_name(reason), domain=DOMAIN, metadata=metadata)


def bad_request(violations: Sequence[Violation]) -> BadRequest:
    """Return the detail of a status that names all fields that break a constraint."""
    return BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field=broken.field, description=broken.description)
            for broken in violations
        ]
    )


def _text(refusal: Refusal, key: str) -> str:
    # Any: the attributes have many types.
    value: Any = getattr(refusal, "kind" if key == "type" else key)
    match value:
        case tuple():
            return ",".join(value)
        case datetime():
            # The contract's metadata have no signs. Like 1970, an instant before 1970 is too early.
            return str(max(0, (value - _EPOCH) // timedelta(milliseconds=1)))
        case Kind():
            return value.name
        case Enum():
            return str(value.value)
        case _:
            return str(value)
