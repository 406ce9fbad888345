"""Reading messages: each kind of broken message gets the status that gRPC's documents give."""

import gzip
import struct

import pytest
from credit_models import CreditRequest, Empty, UserCredits, UserId
from credit_models.codec import encode
from credit_testing.calls import SERVICE, call_headers, framed
from credit_testing.frames import DATA, Flag, frame
from credit_testing.http2_client import Connection
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpclib.const import Status

from tests.server.serving import MESSAGE_BYTES_MAX, is_served

PATH = SERVICE + "GetUserCredits"
SOUND = framed(encode(UserId(user_id=7)))
GZIP = ("grpc-encoding", "gzip")

pytestmark = pytest.mark.usefixtures("bystander")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff", id="a tag without an end"),
        pytest.param(b"\x0a\x05abc", id="a length past the end"),
        pytest.param(b"\x00\x01", id="field number zero"),
        pytest.param(b"\x0b", id="a group without an end"),
        pytest.param(b"\x08" + b"\xff" * 11, id="a varint of more than ten bytes"),
    ],
)
async def test_bytes_that_are_no_message_are_an_internal_error(
    wire: Connection, data: bytes
) -> None:
    answer = await wire.request(call_headers(PATH), framed(data))
    assert answer.status is Status.INTERNAL
    assert "cannot be decoded" in answer.sentence
    await is_served(wire)


async def test_text_that_is_not_utf8_is_an_internal_error(wire: Connection) -> None:
    answer = await wire.request(call_headers(SERVICE + "UseCredits"), framed(b"\x1a\x02\xc3\x28"))
    assert answer.status is Status.INTERNAL
    await is_served(wire)


@pytest.mark.parametrize(
    ("call", "data", "fields"),
    [
        ("AddCredits", "0807 1001 188580808010 2009", ["credits"]),  # 2**32 + 5
        ("AddCredits", "0807 1001 18fbffffffffffffffff01 2009", ["credits"]),  # -5 as an int64
        ("AddCredits", "08d48f808010 1001 1805 2009", ["user_id"]),  # 2**32 + 2004
        ("AddCredits", "0887808080808080808002 1001 1805 2009", ["user_id"]),  # 2**64 + 7
        (
            "UseCredits",
            "0887808080 10 1081808080 10 1a0172 220152 2801 3009",
            ["user_id", "app_id"],
        ),
        ("GetUserCredits", "0887808080 10", ["user_id"]),
        ("GetAppBalance", "0801 1087808080 10", ["user_id"]),
        ("ListUserTransactions", "0807 1080808080808080808002", ["after_sequence"]),
    ],
)
async def test_a_number_that_does_not_fit_its_field_is_invalid_and_has_no_effect(
    wire: Connection, call: str, data: str, fields: list[str]
) -> None:
    answer = await wire.request(call_headers(SERVICE + call), framed(bytes.fromhex(data)))
    assert answer.status is Status.INVALID_ARGUMENT
    info, broken = answer.details
    assert isinstance(info, ErrorInfo)
    assert isinstance(broken, BadRequest)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "credit.v1")
    assert [one.field for one in broken.field_violations] == fields
    assert all(one.description.startswith("must be 0 to ") for one in broken.field_violations)
    assert all(field in answer.sentence for field in fields)
    for user_id in (7, 2004):
        holdings = await wire.call("GetUserCredits", UserId(user_id=user_id))
        assert holdings.message(UserCredits) == UserCredits(user_id=user_id)


@pytest.mark.parametrize("size", range(1, len(SOUND)))
async def test_a_request_that_ends_in_mid_message_is_an_internal_error(
    wire: Connection, size: int
) -> None:
    answer = await wire.request(call_headers(PATH), SOUND[:size])
    assert answer.status is Status.INTERNAL
    await is_served(wire)


async def test_a_missing_message_is_unimplemented(wire: Connection) -> None:
    answer = await wire.request(call_headers(PATH))
    assert answer.status is Status.UNIMPLEMENTED
    await is_served(wire)


async def test_a_second_message_is_unimplemented_and_has_no_effect(wire: Connection) -> None:
    request = framed(encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)))
    answer = await wire.request(call_headers(SERVICE + "AddCredits"), request * 2)
    assert answer.status is Status.UNIMPLEMENTED
    holdings = await wire.call("GetUserCredits", UserId(user_id=7))
    assert holdings.message(UserCredits) == UserCredits(user_id=7)


async def test_a_compressed_flag_without_an_encoding_is_an_internal_error(wire: Connection) -> None:
    for more in ([], [("grpc-encoding", "identity")]):
        answer = await wire.request(call_headers(PATH, *more), framed(SOUND, flag=1))
        assert answer.status is Status.INTERNAL
        assert "grpc-encoding" in answer.sentence


@pytest.mark.parametrize("encoding", ["deflate", "snappy", "GZIP", "gzip,identity", "x" * 200])
async def test_an_unknown_encoding_is_rejected_with_the_accepted_ones(
    wire: Connection, encoding: str
) -> None:
    headers = call_headers(PATH, ("grpc-encoding", encoding))
    answer = await wire.request(headers, framed(b"\x1f\x8b", flag=1))
    assert answer.status is Status.UNIMPLEMENTED
    assert answer.headers["grpc-accept-encoding"] == "identity,gzip"
    await is_served(wire)


async def test_a_gzip_message_is_read_and_the_answer_is_not_compressed(wire: Connection) -> None:
    packed = gzip.compress(encode(UserId(user_id=7)))
    answer = await wire.request(call_headers(PATH, GZIP), framed(packed, flag=1))
    assert answer.message(UserCredits) == UserCredits(user_id=7)
    assert "grpc-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("packed", "status"),
    [
        pytest.param(b"", Status.INTERNAL, id="nothing"),
        pytest.param(b"not gzip", Status.INTERNAL, id="not gzip"),
        pytest.param(gzip.compress(b"")[:-1], Status.INTERNAL, id="cut off"),
        pytest.param(gzip.compress(b"") * 2, Status.INTERNAL, id="two members"),
        pytest.param(
            gzip.compress(bytes(MESSAGE_BYTES_MAX * 100)), Status.RESOURCE_EXHAUSTED, id="bomb"
        ),
    ],
)
async def test_unsound_gzip_has_the_status_that_the_documents_give(
    wire: Connection, packed: bytes, status: Status
) -> None:
    answer = await wire.request(call_headers(PATH, GZIP), framed(packed, flag=1))
    assert answer.status is status
    await is_served(wire)


async def test_an_encoding_is_no_harm_where_no_message_is_compressed(wire: Connection) -> None:
    answer = await wire.request(call_headers(PATH, ("grpc-encoding", "gzip")), SOUND)
    assert answer.message(UserCredits) == UserCredits(user_id=7)


@pytest.mark.parametrize("flag", [2, 128, 255])
async def test_any_other_flag_is_an_internal_error(wire: Connection, flag: int) -> None:
    headers = call_headers(PATH, ("grpc-encoding", "gzip"))
    answer = await wire.request(headers, framed(b"", flag=flag))
    assert answer.status is Status.INTERNAL
    await is_served(wire)


@pytest.mark.parametrize("length", [MESSAGE_BYTES_MAX + 1, 2**30, 2**32 - 1])
async def test_a_message_over_the_limit_is_rejected_before_it_is_sent(
    wire: Connection, length: int
) -> None:
    answer = await wire.request(call_headers(PATH), framed(b"", length=length), end=False)
    assert answer.status is Status.RESOURCE_EXHAUSTED
    assert (str(length) in answer.sentence, str(MESSAGE_BYTES_MAX) in answer.sentence) == (
        True,
        True,
    )
    await is_served(wire)


async def test_a_message_of_exactly_the_limit_is_read(wire: Connection) -> None:
    # An unknown field fills it up: its tag and its length take four bytes.
    known = encode(UserId(user_id=7))
    padding = MESSAGE_BYTES_MAX - len(known) - 4
    length = struct.pack("BB", padding & 0x7F | 0x80, padding >> 7)
    data = known + b"\xa2\x06" + length + bytes(padding)
    assert len(data) == MESSAGE_BYTES_MAX
    answer = await wire.request(call_headers(PATH), framed(data))
    assert answer.message(UserCredits) == UserCredits(user_id=7)


async def test_a_message_may_come_byte_by_byte_with_empty_frames_between(wire: Connection) -> None:
    stream_id, answer = wire.begin(call_headers(PATH), end=False)
    for byte in SOUND:
        wire.send(stream_id, bytes([byte]))
        wire.send(stream_id, b"")
        await wire.in_order()
    wire.send(stream_id, b"", end=True)
    await wire.ended(answer)
    assert answer.message(UserCredits) == UserCredits(user_id=7)


async def test_padded_frames_are_read(wire: Connection) -> None:
    stream_id, answer = wire.begin(call_headers(PATH), end=False)
    padded, padding = Flag.PADDED, bytes(20)
    wire.write(frame(DATA, b"\x14" + padding, flags=padded, stream=stream_id))
    end = padded | Flag.END_STREAM
    wire.write(frame(DATA, b"\x14" + SOUND + padding, flags=end, stream=stream_id))
    await wire.ended(answer)
    assert answer.message(UserCredits) == UserCredits(user_id=7)


async def test_a_request_may_end_with_trailers(wire: Connection) -> None:
    stream_id, answer = wire.begin(call_headers(PATH), SOUND, end=False)
    wire.send_trailers(stream_id, [("x-checksum", "1")])
    await wire.ended(answer)
    assert answer.message(UserCredits) == UserCredits(user_id=7)


async def test_an_unknown_field_is_dropped(wire: Connection) -> None:
    data = encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)) + b"\xa0\x06\x01"
    answer = await wire.request(call_headers(SERVICE + "AddCredits"), framed(data))
    assert answer.message(Empty) == Empty()


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_the_standard_services_take_one_message_too(wire: Connection, method: str) -> None:
    headers = call_headers(f"/grpc.health.v1.Health/{method}")
    for data in (b"", framed(b"") * 2):
        assert (await wire.request(headers, data)).status is Status.UNIMPLEMENTED
    assert (await wire.request(headers, framed(b"\xff"))).status is Status.INTERNAL
