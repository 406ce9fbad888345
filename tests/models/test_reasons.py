"""The reasons, and how the server sends them, equal those of the contract."""

import pytest
from credit_models import (
    AlertServiceBase,
    CreditServiceBase,
    DirectoryServiceBase,
    ErrorReason,
    HistoryServiceBase,
    LedgerServiceBase,
)
from credit_models.reasons import (
    ACCESS_REASONS,
    DOMAIN,
    RULES,
    ReasonRule,
    method_reasons,
    reason_name,
)
from google.rpc import error_details_pb2
from grpclib.const import Status

WRITE = "/credit.v1.CreditService/UseCredits"


def test_every_reason_but_the_zero_value_has_a_rule() -> None:
    assert list(RULES) == [reason for reason in ErrorReason if reason != ErrorReason.UNSPECIFIED]
    assert all(rule.reason == reason for reason, rule in RULES.items())


def test_a_rule_has_the_values_of_the_contracts_option() -> None:
    assert RULES[ErrorReason.INSUFFICIENT_CREDITS] == ReasonRule(
        reason=ErrorReason.INSUFFICIENT_CREDITS,
        status=Status.FAILED_PRECONDITION,
        metadata=("available", "required", "shortfall"),
        details=(),
        retryable=False,
    )
    assert RULES[ErrorReason.OVERLOADED] == ReasonRule(
        reason=ErrorReason.OVERLOADED,
        status=Status.UNAVAILABLE,
        metadata=(),
        details=("RetryInfo",),
        retryable=True,
    )


def test_details_are_messages_of_google_rpc() -> None:
    for rule in RULES.values():
        for detail in rule.details:
            assert detail in error_details_pb2.DESCRIPTOR.message_types_by_name


def test_exactly_the_retryable_reasons_have_retry_info() -> None:
    for rule in RULES.values():
        assert rule.retryable == ("RetryInfo" in rule.details)
    retryable = {reason for reason, rule in RULES.items() if rule.retryable}
    unavailable = {reason for reason in RULES if RULES[reason].status is Status.UNAVAILABLE}
    assert retryable == unavailable | {ErrorReason.RATE_LIMITED}


def test_reason_names_have_no_prefix() -> None:
    assert reason_name(ErrorReason.BALANCE_OVERFLOW) == "BALANCE_OVERFLOW"
    assert [reason_name(reason) for reason in ErrorReason] == [
        reason.name for reason in ErrorReason
    ]


def test_an_unknown_reason_has_no_name() -> None:
    with pytest.raises(KeyError):
        reason_name(ErrorReason(999))


def test_every_method_lists_its_reasons_in_order_of_precedence() -> None:
    services = (
        CreditServiceBase(),
        LedgerServiceBase(),
        HistoryServiceBase(),
        AlertServiceBase(),
        DirectoryServiceBase(),
    )
    served = {path for service in services for path in service.__mapping__()}
    assert set(method_reasons()) == set(served)
    assert method_reasons()[WRITE] == (
        ErrorReason.INVALID_FIELD,
        ErrorReason.IDEMPOTENCY_KEY_REUSED,
        ErrorReason.REVISION_CHANGED,
        ErrorReason.ALREADY_PURCHASED,
        ErrorReason.CAP_EXCEEDED,
        ErrorReason.INSUFFICIENT_CREDITS,
        ErrorReason.AVAILABLE_TOO_LOW,
        ErrorReason.CLOCK_SKEWED,
        ErrorReason.OVERLOADED,
        ErrorReason.STORE_UNAVAILABLE,
        ErrorReason.DATA_UNREADABLE,
    )


def test_every_reason_belongs_to_a_method_or_to_access() -> None:
    own = {reason for reasons in method_reasons().values() for reason in reasons}
    assert own | set(ACCESS_REASONS) == set(RULES)


def test_access_is_checked_before_all_else_and_in_this_order() -> None:
    assert ACCESS_REASONS == (
        ErrorReason.UNAUTHENTICATED,
        ErrorReason.RATE_LIMITED,
        ErrorReason.SCOPE_MISSING,
        ErrorReason.APP_NOT_ALLOWED,
        ErrorReason.ACTOR_NOT_ALLOWED,
    )
    for reasons in method_reasons().values():
        assert not set(reasons) & set(ACCESS_REASONS)


def test_the_domain_is_the_contracts_package() -> None:
    assert DOMAIN == "credit.v1"
