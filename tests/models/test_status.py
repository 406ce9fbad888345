"""Details of a status survive a round trip, and invalid details are dropped."""

import pytest
from credit_models.status import StatusDetailsCodec
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpclib.const import Status
from hypothesis import given
from hypothesis import strategies as st

CODEC = StatusDetailsCodec()
INFO = error_details_pb2.ErrorInfo(reason="R", domain="credit.v1", metadata={"available": "1"})
BAD = error_details_pb2.BadRequest(
    field_violations=[error_details_pb2.BadRequest.FieldViolation(field="f", description="d")]
)
RETRY = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=5))


def decode(*packed: Packed) -> list[object]:
    data = status_pb2.Status(details=packed).SerializeToString()
    return list(CODEC.decode(Status.UNKNOWN, None, data))


def pack(message: Message) -> Packed:
    container = Packed()
    container.Pack(message)
    return container


def test_details_survive_a_round_trip_in_their_order() -> None:
    data = CODEC.encode(Status.UNAVAILABLE, "later", [INFO, BAD, RETRY])
    assert CODEC.decode(Status.UNAVAILABLE, "later", data) == [INFO, BAD, RETRY]


def test_the_bytes_are_a_google_rpc_status() -> None:
    status = status_pb2.Status.FromString(CODEC.encode(Status.ABORTED, "why", [INFO]))
    assert (status.code, status.message) == (Status.ABORTED.value, "why")


def test_a_status_may_have_no_details_and_no_message() -> None:
    data = CODEC.encode(Status.NOT_FOUND, None, [])
    assert CODEC.decode(Status.NOT_FOUND, None, data) == []


@pytest.mark.parametrize(
    "packed",
    [
        Packed(type_url="type.googleapis.com/example.Nonsense", value=b"\x08\x01"),
        Packed(type_url="", value=b"\x08"),
        Packed(type_url="google.rpc.RetryInfo/", value=b""),
        Packed(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\x0a\x7f"),
        pack(Duration(seconds=1)),
    ],
    ids=["unknown type", "no type", "no name", "malformed", "not of google.rpc"],
)
def test_an_unknown_or_malformed_detail_is_dropped(packed: Packed) -> None:
    assert decode(pack(INFO), packed, pack(RETRY)) == [INFO, RETRY]


@given(st.binary(max_size=64))
def test_decoding_never_raises(data: bytes) -> None:
    CODEC.decode(Status.UNKNOWN, None, data)


def test_malformed_bytes_decode_to_no_details() -> None:
    assert CODEC.decode(Status.UNKNOWN, None, b"\x0a\xff") == []
