"""Every refusal of the ledger has the contract's reason, its metadata and a sentence."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from credit_models import ErrorReason, ledger
from credit_models.constraints import Violation
from credit_models.ledger import InvariantViolated, Kind, Period, Refusal
from credit_models.reasons import ACCESS_REASONS, DOMAIN, RULES
from credit_models.translation.refusals import (
    alert_events_expired,
    alert_position_unknown,
    answer_of,
    bad_request,
    dead_letter_not_found,
    error_info,
    key_not_found,
    page_token_invalid,
    resume_token_expired,
    resume_token_invalid,
    revision_not_reached,
    summary_too_large,
    too_many_webhooks,
    total_overflow,
    user_ids_exhausted,
    user_not_found,
    webhook_url_not_allowed,
)

REFUSALS: list[type[Refusal]] = [
    each for each in get_args(Refusal) if each not in (ledger.NothingDue, ledger.AlertUnchanged)
]


def made(refusal: type[Refusal]) -> Refusal:
    """Return a refusal whose figures are all 5, and whose time is 5 milliseconds."""
    # Any: the figures have many types; all are only shown.
    figures: dict[str, Any] = {field.name: 5 for field in fields(refusal)}
    if "resets_at" in figures:
        figures["resets_at"] = datetime(1970, 1, 1, microsecond=5000, tzinfo=UTC)
    return refusal(**figures)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_has_a_sentence_and_the_metadata_of_its_reason(refusal: type[Refusal]) -> None:
    reason, message, metadata = answer_of(made(refusal))
    assert message
    assert "{" not in message
    expected = dict.fromkeys(RULES[reason].metadata, "5")
    if "shortfall" in expected:
        expected["shortfall"] = "0"
    assert metadata == expected


def test_every_reason_that_follows_from_a_request_and_the_ledger_has_a_sentence() -> None:
    answered = [answer_of(made(refusal)).reason for refusal in REFUSALS]
    answered += [total_overflow(5).reason, page_token_invalid().reason, key_not_found("k").reason]
    answered.append(summary_too_large("groups", 3).reason)
    answered += [resume_token_invalid().reason, resume_token_expired().reason]
    answered.append(alert_events_expired(3).reason)
    answered += [too_many_webhooks(4).reason, webhook_url_not_allowed("must be public").reason]
    answered.append(dead_letter_not_found("d").reason)
    answered += [user_not_found("u").reason, user_ids_exhausted().reason]
    answered += [revision_not_reached(1, required=2).reason]
    retryable = {reason for reason, rule in RULES.items() if rule.retryable}
    of_store = {ErrorReason.DATA_UNREADABLE}
    others = {ErrorReason.INVALID_FIELD, *ACCESS_REASONS, *of_store, *retryable}
    assert sorted(answered) == sorted(RULES.keys() - others)


def test_a_position_that_no_event_has_is_rejected_as_one_whose_events_were_removed() -> None:
    answer = alert_position_unknown(7)
    assert answer.reason is alert_events_expired(7).reason
    assert answer.metadata == {"position": "7"}
    assert answer.message.endswith(
        "Continue after the greatest earlier position, 7, or begin with after_position 0"
    )


def test_a_position_before_all_events_is_rejected_without_an_earlier_one() -> None:
    answer = alert_position_unknown(0)
    assert answer.metadata == {"position": "0"}
    assert answer.message == (
        "after_position does not belong to any event: the operator has restored an older backup, or"
        " the position is from another server. Events may be missing. Begin with after_position 0"
    )


def test_the_sum_of_an_app_that_is_too_large_is_named() -> None:
    _, message, metadata = total_overflow(2**32)
    assert "4294967296" in message
    assert metadata == {"total": "4294967296"}


def test_a_refusal_that_is_none_of_a_request_has_no_answer() -> None:
    with pytest.raises(InvariantViolated, match="no reason"):
        answer_of(ledger.NothingDue())


def test_figures_are_written_as_the_contract_defines() -> None:
    reused = answer_of(ledger.KeyReused(fields=("credits", "call")))
    assert reused.metadata == {"fields": "credits,call"}
    assert "a request that differs in: credits, call; no change was made" in reused.message
    kind = answer_of(ledger.NotReversible(kind=Kind.HOLD))
    assert kind.metadata == {"type": "HOLD"}
    start = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    early = answer_of(ledger.ExpiresTooEarly(expires_at=start - timedelta(days=9), starts_at=start))
    assert early.metadata == {"expires_at": "0", "starts_at": "1000"}
    capped = answer_of(
        ledger.CapExceeded(period=Period.DAY, cap=1, spent=2, held=3, required=4, resets_at=start)
    )
    assert capped.metadata["period"] == "day"


def test_the_details_of_a_status_name_the_reason_and_the_fields() -> None:
    info = error_info(ErrorReason.INVALID_FIELD, {"a": "b"})
    assert (info.reason, info.domain, info.metadata) == ("INVALID_FIELD", DOMAIN, {"a": "b"})
    broken = [Violation(field="f", description="must be set")]
    (shown,) = bad_request(broken).field_violations
    assert (shown.field, shown.description) == ("f", "must be set")
