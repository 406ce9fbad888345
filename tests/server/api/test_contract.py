"""What gRPC has to know of the contract."""

import pytest
from credit_models import CreditRequest, GetForecastRequest, UserId
from credit_server.api.contract import CONTRACT, WRITES
from credit_testing.calls import SERVICE
from google.rpc.error_details_pb2 import BadRequest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.v1.health_pb2 import HealthCheckRequest

from tests.server.operations import BATCH_WRITE, WRITE
from tests.server.requests import PATHS


def test_the_writes_are_known_from_the_contract() -> None:
    reads = {
        "GetUserCredits",
        "GetAppBalance",
        "ListUserPurchases",
        "ListUserTransactions",
        "GetAppPolicy",
        "ListGrants",
        "ListHolds",
        "GetForecast",
    }
    assert {path for call, path in PATHS.items() if call not in reads} == WRITES
    assert {SERVICE + "AddCredits", SERVICE + "UseCredits", BATCH_WRITE, WRITE} <= WRITES


@pytest.mark.parametrize("message_type", [UserId, HealthCheckRequest])
def test_malformed_bytes_are_an_internal_error(message_type: type) -> None:
    with pytest.raises(GRPCError) as raised:
        CONTRACT.codec.decode(b"\xff", message_type)
    assert raised.value.status is Status.INTERNAL
    assert "cannot be decoded" in str(raised.value.message)


def test_a_time_out_of_range_is_named() -> None:
    data = b"\x1a\x07\x08\xff\xff\xff\xff\xff\x3f"  # `until`, in the year 69 million
    with pytest.raises(GRPCError) as raised:
        CONTRACT.codec.decode(data, GetForecastRequest)
    assert raised.value.status is Status.INVALID_ARGUMENT
    assert raised.value.details is not None
    broken = raised.value.details[1]
    assert isinstance(broken, BadRequest)
    assert [violation.field for violation in broken.field_violations] == ["until"]


def test_an_integer_that_does_not_fit_its_field_is_named() -> None:
    too_wide = b"\x08\x85\x80\x80\x80\x10"  # field 1: 2**32 + 5
    with pytest.raises(GRPCError) as raised:
        CONTRACT.codec.decode(too_wide, CreditRequest)
    assert raised.value.status is Status.INVALID_ARGUMENT
    assert raised.value.details is not None
    broken = raised.value.details[1]
    assert isinstance(broken, BadRequest)
    assert [violation.field for violation in broken.field_violations] == ["user_id"]
