"""Failed attempts and the errors that they become."""

from datetime import UTC, datetime

import pytest
from credit_client import errors
from credit_client.refusal import error_of, retry_after_seconds
from credit_client.retry import is_retryable
from credit_client.transport import AnswerBroken, AttemptFailed, HandshakeFailed
from credit_models import ErrorReason
from credit_models.constraints import Violation
from credit_models.reasons import DOMAIN, RULES, reason_name
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpclib.const import Status


def _refused(reason: ErrorReason, *more: object, **metadata: str) -> AttemptFailed:
    info = ErrorInfo(reason=reason_name(reason), domain=DOMAIN, metadata=metadata)
    return AttemptFailed(RULES[reason].status, "why", details=[info, *more], request_id="theirs")


def test_no_two_errors_have_the_same_reason() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    named = [kind.reason for kind in kinds if issubclass(kind, errors.CreditError) and kind.reason]
    assert sorted(named) == sorted(RULES)


@pytest.mark.parametrize("reason", list(RULES), ids=lambda reason: reason.name)
def test_every_reason_becomes_the_error_that_carries_it(reason: ErrorReason) -> None:
    metadata = dict.fromkeys(RULES[reason].metadata, "5")
    error = error_of(_refused(reason, **metadata), request_id="ours")
    assert type(error) is not errors.ProtocolMismatch, f"add an error for {reason.name}"
    assert type(error) is not errors.CreditError
    assert (error.reason, error.status) == (reason, RULES[reason].status)
    assert (error.message, error.request_id) == ("why", "theirs")


@pytest.mark.parametrize("reason", list(RULES), ids=lambda reason: reason.name)
def test_what_the_contract_calls_retryable_is_retried(reason: ErrorReason) -> None:
    assert is_retryable(_refused(reason)) == RULES[reason].retryable


@pytest.mark.parametrize(
    "reason", [reason for reason in RULES if RULES[reason].metadata], ids=lambda reason: reason.name
)
def test_a_reason_without_its_metadata_is_a_protocol_mismatch(reason: ErrorReason) -> None:
    error = error_of(_refused(reason), request_id="ours")
    assert isinstance(error, errors.ProtocolMismatch)
    assert "why" in error.message


def test_numbers_fields_and_violations_arrive_typed() -> None:
    few = error_of(
        _refused(ErrorReason.INSUFFICIENT_CREDITS, available="1", required="300", shortfall="299"),
        request_id="",
    )
    assert isinstance(few, errors.InsufficientCredits)
    assert (few.available, few.required, few.shortfall) == (1, 300, 299)
    reused = error_of(
        _refused(ErrorReason.IDEMPOTENCY_KEY_REUSED, fields="credits,app_id"), request_id=""
    )
    assert isinstance(reused, errors.IdempotencyKeyReused)
    assert reused.fields == ("credits", "app_id")
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="f", description="d")])
    invalid = error_of(_refused(ErrorReason.INVALID_FIELD, bad), request_id="")
    assert isinstance(invalid, errors.InvalidField)
    assert invalid.violations == (Violation(field="f", description="d"),)


@pytest.mark.parametrize("status", list(Status), ids=lambda status: status.name)
def test_without_a_reason_the_status_decides(status: Status) -> None:
    expected = {
        Status.INVALID_ARGUMENT: errors.InvalidField,
        Status.UNAVAILABLE: errors.Unavailable,
        Status.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
        Status.UNAUTHENTICATED: errors.Unauthenticated,
        Status.PERMISSION_DENIED: errors.AccessDenied,
        Status.UNIMPLEMENTED: errors.ProtocolMismatch,
        Status.OK: errors.ProtocolMismatch,
        **dict.fromkeys(
            [
                Status.NOT_FOUND,
                Status.ALREADY_EXISTS,
                Status.RESOURCE_EXHAUSTED,
                Status.FAILED_PRECONDITION,
                Status.OUT_OF_RANGE,
            ],
            errors.UnknownRefusal,
        ),
    }
    error = error_of(AttemptFailed(status, "why"), request_id="ours")
    assert type(error) is expected.get(status, errors.InternalError)
    assert (error.status, error.request_id) == (status, "ours")


def test_a_reason_of_a_newer_server_is_named() -> None:
    info = ErrorInfo(reason="MOON_IS_FULL", domain=DOMAIN)
    failure = AttemptFailed(Status.FAILED_PRECONDITION, "why", details=[info])
    error = error_of(failure, request_id="ours")
    assert isinstance(error, errors.UnknownRefusal)
    assert error.reason_name == "MOON_IS_FULL"


def test_a_reason_of_another_domain_is_ignored() -> None:
    info = ErrorInfo(reason="OVERLOADED", domain="proxy.example")
    error = error_of(AttemptFailed(Status.UNAVAILABLE, "why", details=[info]), request_id="ours")
    assert type(error) is errors.Unavailable


def test_the_error_of_a_rejected_identity_names_what_is_missing() -> None:
    scope = error_of(_refused(ErrorReason.SCOPE_MISSING, scope="credits:spend"), request_id="")
    assert isinstance(scope, errors.ScopeMissing)
    assert (scope.scope, scope.status) == ("credits:spend", Status.PERMISSION_DENIED)
    app = error_of(_refused(ErrorReason.APP_NOT_ALLOWED, app_id="7"), request_id="")
    assert isinstance(app, errors.AppNotAllowed)
    assert app.app_id == 7
    actor = error_of(_refused(ErrorReason.ACTOR_NOT_ALLOWED, created_by="9"), request_id="")
    assert isinstance(actor, errors.ActorNotAllowed)
    assert actor.created_by == 9


def test_a_rate_limit_has_the_wait_until_a_retry() -> None:
    wait = RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
    limited = error_of(_refused(ErrorReason.RATE_LIMITED, wait), request_id="")
    assert isinstance(limited, errors.RateLimited)
    assert limited.retry_after_seconds == 2.5


def test_a_limit_on_credits_and_a_skewed_clock_come_with_their_figures() -> None:
    exceeded = error_of(
        _refused(ErrorReason.CREDITS_LIMIT_EXCEEDED, credits="4294967291", limit="1000000"),
        request_id="",
    )
    assert isinstance(exceeded, errors.CreditsLimitExceeded)
    assert (exceeded.credits, exceeded.limit) == (4294967291, 1000000)
    failure = _refused(
        ErrorReason.CLOCK_SKEWED, skew_milliseconds="3600000", limit_milliseconds="2000"
    )
    skewed = error_of(failure, request_id="")
    assert isinstance(skewed, errors.ClockSkewed)
    assert isinstance(skewed, errors.Unavailable)
    assert (skewed.skew_milliseconds, skewed.limit_milliseconds) == (3_600_000, 2000)
    assert is_retryable(failure)


def test_what_the_ledger_found_arrives_typed_with_times_in_utc() -> None:
    settled = {"captured": "7", "released": "13", "settled_at": "1772323200123"}
    expired = error_of(_refused(ErrorReason.HOLD_EXPIRED, **settled), request_id="")
    assert isinstance(expired, errors.HoldExpired)
    assert isinstance(expired, errors.HoldSettled)
    assert (expired.captured, expired.released) == (7, 13)
    assert expired.settled_at == datetime(2026, 3, 1, 0, 0, 0, 123_000, tzinfo=UTC)
    capped = error_of(
        _refused(
            ErrorReason.CAP_EXCEEDED,
            period="day",
            cap="100",
            spent="90",
            held="8",
            required="3",
            resets_at="1772409600000",
        ),
        request_id="",
    )
    assert isinstance(capped, errors.CapExceeded)
    assert (capped.period, capped.cap, capped.spent, capped.held, capped.required) == (
        "day",
        100,
        90,
        8,
        3,
    )
    assert capped.resets_at == datetime(2026, 3, 2, tzinfo=UTC)
    owned = error_of(_refused(ErrorReason.ALREADY_PURCHASED, purchase_id="p7"), request_id="")
    assert isinstance(owned, errors.AlreadyPurchased)
    assert owned.purchase_id == "p7"


def test_a_new_call_that_a_server_does_not_know_names_the_version_that_it_requires() -> None:
    unknown = AttemptFailed(Status.UNIMPLEMENTED, "unknown method")
    error = error_of(unknown, request_id="ours", path="/credit.v1.LedgerService/PlaceHold")
    assert isinstance(error, errors.ServerTooOld)
    assert error.method == "credit.v1.LedgerService/PlaceHold"
    assert "requires a server of 0.3.0 or later" in error.message
    seed = error_of(unknown, request_id="ours", path="/credit.v1.CreditService/AddCredits")
    assert type(seed) is errors.ProtocolMismatch


def test_an_unknown_reason_of_an_aborted_call_is_named_too() -> None:
    info = ErrorInfo(reason="MOON_IS_FULL", domain=DOMAIN)
    error = error_of(AttemptFailed(Status.ABORTED, "why", details=[info]), request_id="ours")
    assert isinstance(error, errors.UnknownRefusal)
    assert error.reason_name == "MOON_IS_FULL"


def test_a_connection_that_is_not_safe_is_an_error_of_its_own_and_not_retried() -> None:
    failure = HandshakeFailed(Status.UNAVAILABLE, "the certificate has expired")
    assert isinstance(error_of(failure, request_id="ours"), errors.TlsFailed)
    assert not is_retryable(failure)


def test_a_broken_answer_is_a_protocol_mismatch() -> None:
    error = error_of(AnswerBroken(Status.INTERNAL, "why"), request_id="ours")
    assert isinstance(error, errors.ProtocolMismatch)


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [(Duration(seconds=2, nanos=500_000_000), 2.5), (Duration(seconds=-3), 0.0), (None, 0.0)],
)
def test_the_wait_that_the_server_asks_for_is_read(delay: Duration | None, seconds: float) -> None:
    details = [] if delay is None else [RetryInfo(retry_delay=delay)]
    assert retry_after_seconds(AttemptFailed(Status.UNAVAILABLE, "", details=details)) == seconds
