"""What gRPC has to know of the contract."""

import pytest
from credit_models import (
    BatchWriteRequest,
    CreditRequest,
    GrantCreditsRequest,
    Operation,
    UserId,
)
from credit_models.codec import encode
from credit_server.api.contract import CONTRACT, WRITES, WithMisfits
from credit_testing.calls import SERVICE
from google.rpc.error_details_pb2 import BadRequest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.v1.health_pb2 import HealthCheckRequest

from tests.server.operations import BATCH_WRITE, WRITE
from tests.server.requests import PATHS, request_of


def test_the_writes_are_known_from_the_contract() -> None:
    reads = {
        "GetUserCredits",
        "GetAppBalance",
        "ListUserPurchases",
        "ListUserTransactions",
        "GetAppPolicy",
        "GetSpendingCap",
        "ListGrants",
        "ListHolds",
        "GetForecast",
        "QueryTransactions",
        "QueryPurchases",
        "GetBalanceAt",
        "Summarize",
        "GetTransaction",
        "Watch",
        "ListCheckpoints",
        "GetCheckpoint",
        "ListAlerts",
        "ListAlertEvents",
        "ListWebhooks",
        "ListDeadLetters",
        "FindUser",
    }
    assert {path for call, path in PATHS.items() if call not in reads} == WRITES
    assert {SERVICE + "AddCredits", SERVICE + "UseCredits", BATCH_WRITE, WRITE} <= WRITES


@pytest.mark.parametrize("message_type", [UserId, HealthCheckRequest])
def test_malformed_bytes_are_an_internal_error(message_type: type) -> None:
    with pytest.raises(GRPCError) as raised:
        CONTRACT.codec.decode(b"\xff", message_type)
    assert raised.value.status is Status.INTERNAL
    assert "cannot be decoded" in str(raised.value.message)


def test_an_integer_that_does_not_fit_its_field_is_named() -> None:
    too_wide = b"\x08\x85\x80\x80\x80\x10"  # field 1: 2**32 + 5
    with pytest.raises(GRPCError) as raised:
        CONTRACT.codec.decode(too_wide, CreditRequest)
    assert raised.value.status is Status.INVALID_ARGUMENT
    assert raised.value.details is not None
    broken = raised.value.details[1]
    assert isinstance(broken, BadRequest)
    assert [violation.field for violation in broken.field_violations] == ["user_id"]


FAR = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"  # a Timestamp of 2**63 - 1 seconds


def test_a_time_outside_the_years_1_to_9999_is_named() -> None:
    data = encode(request_of("GrantCredits")) + b"\x5a" + bytes([len(FAR)]) + FAR
    with pytest.raises(GRPCError) as raised:
        CONTRACT.codec.decode(data, GrantCreditsRequest)
    assert raised.value.status is Status.INVALID_ARGUMENT
    assert raised.value.details is not None
    (violation,) = raised.value.details[1].field_violations
    assert violation.field == "expires_at"
    assert violation.description == "must be in the years 0001 to 9999"


def test_a_time_that_does_not_fit_rejects_its_operation_alone() -> None:
    grant = encode(request_of("GrantCredits")) + b"\x5a" + bytes([len(FAR)]) + FAR
    operation = b"\x1a" + bytes([len(grant)]) + grant
    data = encode(BatchWriteRequest(operations=[Operation(add_credits=request_of("AddCredits"))]))
    batch = CONTRACT.codec.decode(
        data + b"\x0a" + bytes([len(operation)]) + operation, BatchWriteRequest
    )
    assert isinstance(batch, WithMisfits)
    assert {place: [each.field for each in found] for place, found in batch.misfits.items()} == {
        1: ["expires_at"]
    }
    assert len(batch.message.operations) == 2
