"""The contract's codec: the module's functions and the codec for grpclib."""

from datetime import UTC, datetime
from typing import Any

import betterproto2
import credit_models
import pytest
from credit_models import (
    AppId,
    Balance,
    BatchWriteRequest,
    BatchWriteResponse,
    CreditRequest,
    CreditTransaction,
    Empty,
    ErrorReason,
    Operation,
    OperationFailure,
    OperationOutcome,
    Purchase,
    PurchaseRequest,
    Receipt,
    TransactionType,
    UserCredits,
    UserId,
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


def test_the_grpclib_codec_rejects_a_message_of_another_type() -> None:
    with pytest.raises(TypeError, match="Empty is not Balance"):
        WireCodec().encode(Empty(), Balance)
