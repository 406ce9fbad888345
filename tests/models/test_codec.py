"""The contract's codec: the module's functions and the codec for grpclib."""

from datetime import UTC, datetime
from typing import Any

import betterproto2
import credit_models
import pytest
from credit_models import (
    AdjustBalanceRequest,
    AdjustBalanceResponse,
    Alert,
    AlertDirection,
    AlertEvent,
    Allocation,
    AppId,
    AppPolicy,
    Balance,
    BatchWriteRequest,
    BatchWriteResponse,
    CaptureHoldRequest,
    CaptureHoldResponse,
    CheckpointLeaf,
    CreditRequest,
    CreditTransaction,
    DeadLetter,
    DirectoryUser,
    Empty,
    ErrorReason,
    ExpiringCredits,
    ExtendHoldRequest,
    ExtendHoldResponse,
    FindUserRequest,
    FindUserResponse,
    ForecastStep,
    GetAppPolicyRequest,
    GetAppPolicyResponse,
    GetBalanceAtRequest,
    GetBalanceAtResponse,
    GetCheckpointRequest,
    GetCheckpointResponse,
    GetForecastRequest,
    GetForecastResponse,
    GetSpendingCapRequest,
    GetSpendingCapResponse,
    GetTransactionRequest,
    GetTransactionResponse,
    Grant,
    GrantCategory,
    GrantCreditsRequest,
    GrantCreditsResponse,
    Hold,
    HoldState,
    ListAlertEventsRequest,
    ListAlertEventsResponse,
    ListAlertsRequest,
    ListAlertsResponse,
    ListCheckpointsRequest,
    ListCheckpointsResponse,
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    ListGrantsRequest,
    ListGrantsResponse,
    ListHoldsRequest,
    ListHoldsResponse,
    ListWebhooksRequest,
    ListWebhooksResponse,
    Operation,
    OperationFailure,
    OperationOutcome,
    PlaceHoldRequest,
    PlaceHoldResponse,
    Purchase,
    PurchaseRequest,
    QueryPurchasesRequest,
    QueryPurchasesResponse,
    QueryTransactionsRequest,
    QueryTransactionsResponse,
    Receipt,
    ReleaseHoldRequest,
    ReleaseHoldResponse,
    RemoveAlertRequest,
    RemoveAlertResponse,
    RemoveWebhookRequest,
    RemoveWebhookResponse,
    ResendDeadLettersRequest,
    ResendDeadLettersResponse,
    ResolveUserRequest,
    ResolveUserResponse,
    ReverseTransactionRequest,
    ReverseTransactionResponse,
    SetAlertRequest,
    SetAlertResponse,
    SetAppPolicyRequest,
    SetAppPolicyResponse,
    SetSpendingCapRequest,
    SetSpendingCapResponse,
    SetWebhookRequest,
    SetWebhookResponse,
    SignedCheckpoint,
    SpendingCaps,
    SpendingCapStatus,
    SpendingPeriod,
    SummarizeRequest,
    SummarizeResponse,
    Summary,
    SummaryGroup,
    TransactionType,
    TransferCreditsRequest,
    TransferCreditsResponse,
    UserCredits,
    UserId,
    VoidGrantRequest,
    VoidGrantResponse,
    WatchRequest,
    WatchResponse,
    Webhook,
    WriteRequest,
    WriteResponse,
)
from credit_models.codec import WireCodec, WireError, decode, decode_with_violations, encode
from credit_models.constraints import Violation
from credit_models.image import message_class
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value

NOW = datetime(2024, 6, 1, 12, 30, 15, 123_000, tzinfo=UTC)
GREATEST = 2**32 - 1
MESSAGES: list[betterproto2.Message] = [
    Empty(),
    UserId(user_id=GREATEST),
    AppId(app_id=1),
    AppId(app_id=1, user_id=0),
    Balance(app_id=1, balance=GREATEST),
    CreditRequest(user_id=1, app_id=2, credits=3, created_by=4, idempotency_key="ключ"),
    PurchaseRequest(
        user_id=1,
        app_id=2,
        report_id="r",
        report_name="R",
        credits=3,
        created_by=4,
        idempotency_key="k",
    ),
    Purchase(
        id="p",
        user_id=1,
        app_id=2,
        report_id="r",
        report_name="R",
        credits=3,
        created_at=NOW,
        created_by=4,
        transaction_id="t",
    ),
    CreditTransaction(
        id="t",
        user_id=1,
        app_id=2,
        credits=3,
        created_at=NOW,
        created_by=4,
        type=TransactionType.USE,
        balance_after=5,
        sequence=2**64 - 1,
        purchase_id="p",
        idempotency_key="k",
    ),
    UserCredits(
        id="u",
        user_id=1,
        balances=[Balance(app_id=1, balance=2), Balance(app_id=3)],
        created_at=NOW,
        updated_at=NOW,
        created_by=4,
        updated_by=5,
        revision=6,
    ),
    Receipt(transaction_id="t", purchase_id="p", balance=1, sequence=2, replayed=True),
    Receipt(type=TransactionType.EXPIRE, effect=-(2**63), expires_at=NOW, validated=True),
    CreditTransaction(
        type=TransactionType.HOLD,
        effect=-GREATEST,
        effective_at=NOW,
        related_id="h",
        allocations=[Allocation(grant_id="g", credits=1), Allocation(credits=GREATEST)],
        metadata={"ключ": ""},
        note="n",
        expires_at=NOW,
    ),
    Allocation(grant_id="g", credits=3),
    ExpiringCredits(credits=3, at=NOW),
    Balance(app_id=1, held=2, owed=3, expiring_next=ExpiringCredits(credits=4, at=NOW)),
    CreditRequest(expected_revision=0, min_available_after=0),
    PurchaseRequest(once=True, expected_revision=2**64 - 1, min_available_after=GREATEST),
    Grant(id="g", sequence=1, left=2, category=GrantCategory.PROMOTIONAL, expires_at=NOW),
    GrantCreditsRequest(user_id=1, metadata={"k": "v"}, expires_at=NOW, priority=0),
    GrantCreditsRequest(expires_after_seconds=0, effective_at=NOW),
    GrantCreditsResponse(receipt=Receipt(sequence=1)),
    VoidGrantRequest(grant_id="g", validate_only=True),
    VoidGrantResponse(receipt=Receipt()),
    ListGrantsRequest(user_id=1, app_id=2),
    ListGrantsResponse(grants=[Grant(id="g"), Grant()], base_credits=3),
    GetForecastRequest(user_id=1, app_id=2, until=NOW),
    GetForecastResponse(balance=3, steps=[ForecastStep(credits=1), ForecastStep()]),
    ForecastStep(at=NOW, type=TransactionType.EXPIRE, related_id="g", credits=3, effect=-3),
    Hold(id="h", credits=3, state=HoldState.EXPIRED, placed_at=NOW, settled_at=NOW, purpose="p"),
    PlaceHoldRequest(credits=3, expires_after_seconds=0, purpose="p", allow_partial=True),
    PlaceHoldResponse(receipt=Receipt(held=3)),
    CaptureHoldRequest(hold_id="h", credits=0, report_id="r", final=False, allow_excess=True),
    CaptureHoldRequest(report_name="R", final=True),
    CaptureHoldResponse(receipt=Receipt(purchase_id="p", released_credits=3)),
    ReleaseHoldRequest(hold_id="h"),
    ReleaseHoldResponse(receipt=Receipt(related_id="h")),
    ExtendHoldRequest(hold_id="h", expires_after_seconds=60),
    ExtendHoldResponse(receipt=Receipt(expires_at=NOW)),
    ListHoldsRequest(user_id=1, include_settled=True, after_sequence=2**64 - 1, page_size=7),
    ListHoldsResponse(holds=[Hold(), Hold(id="h")], next_after_sequence=2**64 - 1),
    ReverseTransactionRequest(transaction_id="t", credits=0, restore_until=NOW),
    ReverseTransactionResponse(receipt=Receipt(credits=2)),
    AdjustBalanceRequest(delta=-GREATEST, note="n"),
    AdjustBalanceResponse(receipt=Receipt(owed=3)),
    TransferCreditsRequest(to_user_id=0, to_app_id=GREATEST, credits=3),
    TransferCreditsResponse(receipt=Receipt()),
    SpendingCaps(per_hour=0, per_day=1, per_month=GREATEST),
    AppPolicy(app_id=1, caps=SpendingCaps(), allow_negative=True, updated_at=NOW, revision=3),
    SetSpendingCapRequest(user_id=0, caps=SpendingCaps(per_day=5)),
    SetSpendingCapResponse(policy=AppPolicy(app_id=1)),
    GetSpendingCapRequest(user_id=0, app_id=1),
    QueryTransactionsRequest(
        user_id=7, types=[TransactionType.USE], created_from=NOW, metadata={"order": "42"}
    ),
    QueryTransactionsResponse(next_page_token="AQ"),
    QueryPurchasesRequest(app_id=0, created_until=NOW, refunded=False),
    QueryPurchasesResponse(next_page_token="AQ", complete_until=NOW),
    GetBalanceAtRequest(user_id=7, at=NOW, sequence=0, min_revision=0),
    GetBalanceAtResponse(owed=GREATEST, sequence=2**64 - 1, as_of=NOW),
    SummarizeRequest(user_id=0, created_from=NOW, group_by=SummaryGroup.DAY, min_revision=1),
    SummarizeResponse(summaries=[Summary(app_id=1)], complete_until=NOW),
    Summary(starts_at=NOW, type=TransactionType.USE, report_id="r", spent=2**64 - 1),
    ListCheckpointsRequest(app_id=GREATEST),
    ListCheckpointsResponse(checkpoints=[SignedCheckpoint(time=NOW)]),
    SignedCheckpoint(time=NOW, note="note", has_proofs=True),
    GetCheckpointRequest(app_id=1, user_id=0, time=NOW),
    GetCheckpointResponse(checkpoint=SignedCheckpoint(), leaves=[CheckpointLeaf(user_id=7)]),
    CheckpointLeaf(user_id=7, hash=b"\0", index=GREATEST, path=[b"", b"\xff" * 32]),
    GetTransactionRequest(transaction_id="t"),
    WatchRequest(user_id=0, resume_token="AQ", progress_seconds=1, end_when_current=True),
    WatchResponse(resume_token="AQ", snapshot=UserCredits(user_id=7)),
    WatchResponse(transaction=CreditTransaction(id="t")),
    GetTransactionResponse(),
    DirectoryUser(user_id=GREATEST, app_id=1, external_id="u", created_at=NOW),
    ResolveUserRequest(app_id=1, external_id="u"),
    ResolveUserResponse(user=DirectoryUser(user_id=1), created=True),
    FindUserRequest(user_id=GREATEST),
    FindUserResponse(user=DirectoryUser(external_id="u")),
    GetSpendingCapResponse(statuses=[SpendingCapStatus(spent=2**64 - 1, left=0)]),
    SpendingCapStatus(period=SpendingPeriod.MONTH, cap=1, spent=2, held=GREATEST, resets_at=NOW),
    SetAppPolicyRequest(app_id=1, allow_negative=False, expected_revision=0),
    SetAppPolicyResponse(policy=AppPolicy()),
    GetAppPolicyRequest(app_id=1),
    GetAppPolicyResponse(policy=AppPolicy(updated_by=3)),
    Webhook(url="https://example.com", created_at=NOW, created_by=9),
    SetWebhookRequest(app_id=1, created_by=9, url="u", secret="s"),
    SetWebhookResponse(webhook=Webhook(url="u"), secret="s"),
    ListWebhooksRequest(app_id=1),
    ListWebhooksResponse(webhooks=[Webhook(), Webhook(created_by=1)]),
    RemoveWebhookRequest(app_id=1, created_by=9, url="u"),
    RemoveWebhookResponse(),
    DeadLetter(id="d", url="u", event=AlertEvent(id="e"), attempts=3, error="e", failed_at=NOW),
    ListDeadLettersRequest(app_id=1, after_id="d", page_size=2),
    ListDeadLettersResponse(dead_letters=[DeadLetter(id="d")], next_after_id="d"),
    ResendDeadLettersRequest(app_id=1, created_by=9, dead_letter_id="d"),
    ResendDeadLettersResponse(resent=2**64 - 1),
    Alert(credits=GREATEST, direction=AlertDirection.RISES_TO),
    AlertEvent(id="e", user_id=7, alert=Alert(credits=20), balance=0, created_at=NOW, position=1),
    SetAlertRequest(user_id=0, app_id=1, credits=20, direction=AlertDirection.FALLS_BELOW),
    SetAlertResponse(alerts=[Alert(), Alert(credits=1)]),
    RemoveAlertRequest(app_id=1, created_by=9, credits=20),
    RemoveAlertResponse(),
    ListAlertsRequest(user_id=0, app_id=1, min_revision=2**63 - 1),
    ListAlertsResponse(user_alerts=[Alert(credits=1)], app_alerts=[Alert(credits=2)]),
    ListAlertEventsRequest(user_id=7, app_id=1, after_position=2**63 - 1, page_size=1),
    ListAlertEventsRequest(app_id=1, from_now=True),
    ListAlertEventsResponse(events=[AlertEvent(sequence=2)], next_after_position=3, position=3),
    Operation(adjust_balance=AdjustBalanceRequest(delta=1)),
    Operation(use_credits=PurchaseRequest(user_id=1, report_name="n")),
    OperationFailure(
        code=9, message="m", reason=ErrorReason.BATCH_ABORTED, status_details=b"\xff\x00"
    ),
    OperationOutcome(receipt=Receipt(transaction_id="t")),
    BatchWriteRequest(
        operations=[Operation(), Operation(add_credits=CreditRequest(user_id=1))], atomic=True
    ),
    BatchWriteResponse(outcomes=[OperationOutcome(failure=OperationFailure(code=3))]),
    WriteRequest(correlation_id=2**64 - 1, operation=Operation(add_credits=CreditRequest())),
    WriteResponse(correlation_id=1, outcome=OperationOutcome(receipt=Receipt())),
]


def name(message: betterproto2.Message) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", MESSAGES, ids=name)
def test_the_bytes_equal_those_of_google_and_betterproto2(message: betterproto2.Message) -> None:
    written = encode(message)
    assert written == bytes(message)
    google = message_class(f"credit.v1.{name(message)}").FromString(written)
    assert google.SerializeToString() == written
    assert decode(type(message), written) == message


def test_every_message_of_the_contract_has_an_example_here() -> None:
    messages = {
        exported
        for exported in vars(credit_models).values()
        if isinstance(exported, type) and issubclass(exported, betterproto2.Message)
    }
    assert {type(message) for message in MESSAGES} == messages


def test_unset_differs_from_zero_for_fields_with_explicit_presence() -> None:
    assert decode(AppId, encode(AppId(app_id=1))).user_id is None
    assert decode(AppId, encode(AppId(app_id=1, user_id=0))).user_id == 0


@pytest.mark.parametrize(
    "data",
    [b"\x08", b"\x2a\x05abc", b"\x2a\x02\xff\xff", b"\x00\x01", b"\x0f"],
    ids=["truncated", "length past the end", "bad UTF-8", "field 0", "wire type 7"],
)
def test_malformed_bytes_are_rejected_and_not_quoted(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode(CreditRequest, data)
    assert str(caught.value) == "The bytes are not a valid credit.v1.CreditRequest."


def test_a_value_out_of_range_is_rejected_and_never_wraps() -> None:
    message = CreditRequest(user_id=1)
    message.credits = 2**32
    with pytest.raises(WireError, match=r"^credit\.v1\.CreditRequest\.credits has a value"):
        encode(message)


def test_a_message_of_which_a_part_does_not_fit_is_read_with_its_violations() -> None:
    fits = BatchWriteRequest(operations=[Operation(add_credits=CreditRequest(user_id=1))] * 20)
    assert decode_with_violations(BatchWriteRequest, encode(fits)) == (fits, ())
    too_wide = b"\x0a\x08\x0a\x06\x08\x85\x80\x80\x80\x10"  # user_id: 2**32 + 5
    read, violations = decode_with_violations(BatchWriteRequest, encode(fits) + too_wide * 20)
    assert read.operations[:20] == fits.operations
    assert [violation.field for violation in violations] == [
        f"operations[{position}].add_credits.user_id" for position in range(20, 40)
    ]
    with pytest.raises(WireError):
        decode_with_violations(BatchWriteRequest, b"\x0a\x05")


def test_a_message_of_which_a_time_does_not_fit_is_read_with_its_violations() -> None:
    fits = Operation(add_credits=CreditRequest(user_id=1))
    # `effective_at` of a grant, in the year 69 million.
    misfit = b"\x0a\x0b\x1a\x09\x6a\x07\x08\xff\xff\xff\xff\xff\x3f"
    data = encode(BatchWriteRequest(operations=[fits])) + misfit + b"\x10\x01"
    read, violations = decode_with_violations(BatchWriteRequest, data)
    assert (read.operations[0], read.atomic) == (fits, True)
    assert [violation.field for violation in violations] == [
        "operations[1].grant_credits.effective_at"
    ]
    with pytest.raises(WireError) as caught:
        decode(GetForecastRequest, b"\x1a\x07\x08\xff\xff\xff\xff\xff\x3f")
    assert [violation.field for violation in caught.value.violations] == ["until"]


@pytest.mark.parametrize("count", [0, 1001, 100_000])
def test_items_of_a_wrong_number_are_not_converted(count: int) -> None:
    with pytest.raises(WireError) as caught:
        decode_with_violations(BatchWriteRequest, b"\x0a\x00" * count)
    assert caught.value.violations == (
        Violation(field="operations", description=f"must be 1 to 1000 items, got {count}"),
    )


def test_the_content_subtype_is_proto() -> None:
    assert WireCodec().__content_subtype__ == "proto"


@pytest.mark.parametrize(
    "message", [UserId(user_id=7), Value(string_value="x")], ids=["ours", "Google's"]
)
def test_the_grpclib_codec_accepts_our_messages_and_googles(message: Any) -> None:
    codec = WireCodec()
    assert codec.decode(codec.encode(message, type(message)), type(message)) == message


@pytest.mark.parametrize("message_type", [UserId, Value], ids=["ours", "Google's"])
def test_the_grpclib_codec_rejects_malformed_bytes(message_type: type[Message]) -> None:
    with pytest.raises(WireError, match=r"^The bytes are not a valid (credit|google)\."):
        WireCodec().decode(b"\x08", message_type)


def test_the_grpclib_codec_writes_googles_message_where_ours_of_its_type_is_sent() -> None:
    google = message_class("credit.v1.UserId")(user_id=7)
    assert WireCodec().encode(google, UserId) == encode(UserId(user_id=7))


@pytest.mark.parametrize(
    "message", [Empty(), message_class("credit.v1.Empty")()], ids=["ours", "Google's"]
)
def test_the_grpclib_codec_rejects_a_message_of_another_type(message: Any) -> None:
    with pytest.raises(TypeError, match="Empty is not Balance"):
        WireCodec().encode(message, Balance)
