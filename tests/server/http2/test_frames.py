"""Floods and faults in frames end the client's own connection; a bystander is served."""

import re
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from credit_models import UserCredits, UserId
from credit_models.codec import encode
from credit_models.http2_engine import Engine
from credit_server.http2.connections import Closing
from credit_server.http2.frames import ServerFrames
from credit_server.http2.incoming import SLICE_FRAMES, FloodError
from credit_server.http2.limits import ConnectionLimits
from credit_testing.calls import SERVICE, call_headers, framed
from credit_testing.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    SETTINGS_FRAME,
    WINDOW_UPDATE,
    ErrorCode,
    Frame,
    Setting,
    frame,
    header_block,
    take_frames,
)
from credit_testing.http2_client import Connection
from credit_testing.stores import HeldStore
from h2.events import DataReceived, RequestReceived
from h2.exceptions import FrameTooLargeError, ProtocolError
from hpack import Decoder

from tests.server.serving import Serving, is_served, serving

PATH = SERVICE + "GetUserCredits"
CALL = header_block(call_headers(PATH))
SOUND = framed(encode(UserId(user_id=7)))
CANCEL = struct.pack(">I", ErrorCode.CANCEL)
ACKNOWLEDGED = frame(SETTINGS, flags=ACK)
GROWTH_BYTES_MAX = 20 * 2**20


def odd(count: int) -> range:
    """Return the numbers of that many streams of a client."""
    return range(1, 2 * count, 2)


def begin(stream: int, *, headers: bytes = CALL, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, headers, flags=flags, stream=stream)


def is_answer(block: bytes) -> bool:
    return "grpc-status" in {str(name) for name, _ in Decoder().decode(block)}


def rapid_resets(count: int) -> bytes:
    return b"".join(
        begin(stream) + frame(RST_STREAM, CANCEL, stream=stream) for stream in odd(count)
    )


def window_overflows(count: int) -> bytes:
    """Return MadeYouReset, CVE-2025-8671: faults for which the server must reset the streams."""
    overflow = struct.pack(">I", 2**31 - 1)
    return b"".join(
        begin(stream) + frame(WINDOW_UPDATE, overflow, stream=stream) for stream in odd(count)
    )


def malformed(count: int) -> bytes:
    upper = header_block(call_headers(PATH, ("X-Upper", "1")))
    return b"".join(begin(stream, headers=upper) for stream in odd(count))


def wrong_lengths(count: int) -> bytes:
    """Return requests that are longer than their content-length."""
    headers = header_block(call_headers(PATH, ("content-length", "1")))
    return b"".join(
        begin(stream, headers=headers) + frame(DATA, bytes(2), stream=stream)
        for stream in odd(count)
    )


def half_closed(count: int) -> bytes:
    """Return requests with data after their end."""
    return b"".join(
        begin(stream, flags=END_HEADERS | END_STREAM) + frame(DATA, b"x", stream=stream)
        for stream in odd(count)
    )


def memory_bytes() -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


FLOODS = [
    pytest.param(rapid_resets(20_000), id="rapid reset"),
    pytest.param(window_overflows(5_000), id="window overflows"),
    pytest.param(malformed(5_000), id="malformed requests"),
    pytest.param(wrong_lengths(5_000), id="wrong lengths"),
    pytest.param(half_closed(5_000), id="data after the end"),
    pytest.param(b"".join(map(begin, odd(5_000))), id="calls over the limit"),
    pytest.param(frame(PING, bytes(8)) * 20_000, id="PING"),
    pytest.param(frame(SETTINGS) * 20_000, id="SETTINGS"),
    pytest.param(frame(SETTINGS, flags=1) * 20_000, id="acknowledged SETTINGS"),
    pytest.param(frame(PRIORITY, bytes(4) + b"\x07", stream=3) * 20_000, id="PRIORITY"),
    pytest.param(frame(WINDOW_UPDATE, b"\x00\x00\x00\x01") * 20_000, id="WINDOW_UPDATE"),
    pytest.param(begin(1) + frame(DATA, stream=1) * 20_000, id="empty DATA"),
    pytest.param(begin(1) + frame(DATA, b"x", stream=1) * 20_000, id="DATA of one byte"),
    pytest.param(frame(0xFA, b"whatever") * 20_000, id="unknown frames"),
    pytest.param(frame(RST_STREAM, CANCEL, stream=1) * 20_000, id="RST_STREAM of nothing"),
]


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_is_answered_with_enhance_your_calm_and_closed(
    served: Serving, bystander: Connection, flood: bytes
) -> None:
    before, now = memory_bytes(), time.monotonic()
    # The budgets must not refill while a slow machine reads the flood.
    served.server.connections.clock = lambda: now
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(begin(1) + frame(RST_STREAM, CANCEL, stream=1) if flood[3] == RST_STREAM else b"")
        raw.write(flood)
        await is_served(bystander)
        assert await raw.last_goaway() is ErrorCode.ENHANCE_YOUR_CALM
    assert served.server.connections.closed[Closing.FLOOD] == 1
    await served.wait_quiet()
    assert served.running_calls() <= 1
    assert memory_bytes() - before < GROWTH_BYTES_MAX


async def test_the_frames_of_a_usual_client_are_not_a_flood(
    served: Serving, wire: Connection
) -> None:
    for _ in range(300):  # twice the burst, if answers did not pay for the frames that they cause
        wire.write(frame(WINDOW_UPDATE, b"\x00\x00\x00\x01") * 4 + frame(PING, b"measures"))
        await is_served(wire)
    for _ in range(900):
        stream_id, _ = wire.begin(call_headers(PATH), end=False)
        wire.reset(stream_id)
    await is_served(wire)


@pytest.fixture
async def narrow() -> AsyncIterator[tuple[Serving, HeldStore]]:
    """A server that admits two streams of a connection, and holds writes."""
    store = HeldStore()
    async with serving(store, connections=ConnectionLimits(streams_max=2)) as running:
        yield running, store


async def test_a_call_over_the_limit_is_refused_and_the_others_continue(
    narrow: tuple[Serving, HeldStore],
) -> None:
    served, _ = narrow
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(ACKNOWLEDGED)
        raw.write(b"".join(map(begin, (1, 3, 5))) + frame(DATA, SOUND, stream=5, flags=END_STREAM))
        await raw.in_order()
        assert raw.resets == {5: ErrorCode.REFUSED_STREAM}
        raw.write(frame(DATA, SOUND, stream=1, flags=END_STREAM))
        assert is_answer((await raw.next(HEADERS, flags=END_STREAM)).payload)
        # The stream that has ended makes room for another.
        raw.write(begin(7) + frame(DATA, SOUND, stream=7, flags=END_STREAM))
        ended = await raw.next(HEADERS, flags=END_STREAM)
        assert is_answer(ended.payload)
        assert ended.stream == 7


async def test_calls_that_come_before_the_limit_is_known_are_served(
    narrow: tuple[Serving, HeldStore],
) -> None:
    served, _ = narrow
    async with Connection.connect(served.port, automatic=False) as raw:
        calls = odd(8)
        raw.write(b"".join(map(begin, calls)))  # as a proxy does on a new connection
        for stream in calls:
            raw.write(frame(DATA, SOUND, stream=stream, flags=END_STREAM))
            await raw.next(HEADERS, flags=END_STREAM)
        assert not raw.resets


async def test_the_limit_is_enforced_on_a_client_that_never_acknowledges_it(
    narrow: tuple[Serving, HeldStore],
) -> None:
    served, _ = narrow
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(b"".join(map(begin, odd(10))))
        await raw.in_order()
        assert raw.resets == dict.fromkeys((17, 19), ErrorCode.REFUSED_STREAM)
        for stream in odd(8):
            raw.write(frame(DATA, SOUND, stream=stream, flags=END_STREAM))
            await raw.next(HEADERS, flags=END_STREAM)
        raw.write(b"".join(map(begin, (21, 23, 25))))
        await raw.in_order()
        assert raw.resets.keys() == {17, 19, 25}


async def test_the_limits_are_sent_in_settings(served: Serving) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        payload = (await raw.next(SETTINGS)).payload
    announced = dict(struct.iter_unpack(">HI", payload))
    assert announced[3] == 256  # MAX_CONCURRENT_STREAMS
    assert announced[4] == 65_535  # INITIAL_WINDOW_SIZE
    assert announced[6] == 16_384  # MAX_HEADER_LIST_SIZE


async def test_a_header_block_that_is_too_long_ends_the_connection(
    served: Serving, bystander: Connection
) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(begin(1, flags=0) + frame(CONTINUATION, bytes(8000), stream=1) * 10)
        assert await raw.last_goaway() is ErrorCode.ENHANCE_YOUR_CALM


async def test_empty_continuations_end_the_connection(
    served: Serving, bystander: Connection, engine: Engine
) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(begin(1, flags=0) + frame(CONTINUATION, stream=1) * 1000)
        h2 = engine is Engine.H2
        expected = ErrorCode.PROTOCOL_ERROR if h2 else ErrorCode.ENHANCE_YOUR_CALM
        assert await raw.last_goaway() is expected


def frames(limits: ConnectionLimits | None = None) -> ServerFrames:
    made = ServerFrames(limits or ConnectionLimits(), 0.0)
    made.initiate_connection()
    made.receive_data(PREFACE + SETTINGS_FRAME)
    return made


def test_a_buffer_is_read_in_slices() -> None:
    server, turns = frames(), [0]
    events = server.receive_data(frame(PING, bytes(8)) * (2 * SLICE_FRAMES + 1))
    turns[0] = len(events)
    while server.has_more:
        turns.append(len(server.receive_data(b"")))
    assert turns == [SLICE_FRAMES, SLICE_FRAMES, 1]


def test_a_header_list_that_is_too_long_is_the_last_of_its_slice() -> None:
    """It takes long to decode, so other connections have their turn after it."""
    long = CALL + b"\x40\x01x\x7f" + b"\xa1\x1e" + b"y" * 4000 + b"\xbe" * 4
    server = frames()
    assert len(server.receive_data(begin(1, headers=long) + begin(3) + begin(5))) == 1
    assert server.has_more
    assert len(server.receive_data(b"")) == 2


def sent(server: ServerFrames) -> list[Frame]:
    """Return the frames that are to be sent."""
    return list(take_frames(bytearray(server.data_to_send())))


def stream_limits(server: ServerFrames) -> list[int]:
    """Return the limits on streams in the SETTINGS that are to be sent."""
    return [
        dict(struct.iter_unpack(">HI", each.payload))[Setting.MAX_CONCURRENT_STREAMS]
        for each in sent(server)
        if each.kind == SETTINGS and not each.flags & ACK
    ]


def goaways(server: ServerFrames) -> list[int]:
    """Return the last stream ids of the GOAWAY frames that are to be sent."""
    return [each.last_stream_id for each in sent(server) if each.kind == GOAWAY]


def reset_streams(server: ServerFrames) -> set[int]:
    """Return the streams that are to be reset."""
    return {each.stream for each in sent(server) if each.kind == RST_STREAM}


def test_a_client_is_sent_a_limit_on_streams_once_it_has_acknowledged_the_one_before() -> None:
    server = frames()
    assert stream_limits(server) == [256]
    server.limit_streams(9)
    assert stream_limits(server) == []
    server.receive_data(ACKNOWLEDGED)
    assert stream_limits(server) == [9]
    for count in (8, 7, 6):
        server.limit_streams(count)
    assert stream_limits(server) == []
    server.receive_data(ACKNOWLEDGED)
    assert stream_limits(server) == [6]
    server.receive_data(ACKNOWLEDGED)
    server.limit_streams(6)
    assert stream_limits(server) == []


def test_a_limit_is_enforced_only_when_the_client_has_acknowledged_it() -> None:
    server = frames()
    server.limit_streams(1)
    # They were sent before the client read the limit.
    early = server.receive_data(begin(1) + begin(3))
    assert [type(event) for event in early] == [RequestReceived] * 2
    server.receive_data(ACKNOWLEDGED)  # the first SETTINGS, without a limit of one
    assert server.receive_data(begin(5))
    server.receive_data(ACKNOWLEDGED)
    server.clear_outbound_data_buffer()
    assert server.receive_data(begin(7)) == []
    assert server.data_to_send()[3] == RST_STREAM


def test_a_client_that_was_sent_goaway_is_sent_no_limit() -> None:
    server = frames()
    server.receive_data(ACKNOWLEDGED)
    server.close_connection()
    server.data_to_send()
    server.limit_streams(5)
    assert stream_limits(server) == []


def test_the_last_stream_id_never_grows() -> None:
    server = frames()
    server.receive_data(begin(1))
    server.clear_outbound_data_buffer()
    server.send_shutdown_notice()
    server.send_final_goaway()
    server.receive_data(begin(3))
    with pytest.raises(ProtocolError):
        server.receive_data(frame(PING, b"short"))
    assert goaways(server) == [2**31 - 1, 1, 1]


def test_a_refused_stream_may_send_until_its_client_knows() -> None:
    server = frames()
    server.receive_data(begin(1))
    server.send_final_goaway()
    server.clear_outbound_data_buffer()
    server.receive_data(begin(3) + frame(DATA, bytes(2000), stream=3) + begin(3) + begin(5))
    server.receive_data(frame(DATA, bytes(5), stream=1))
    assert reset_streams(server) == {3, 5}


def test_a_client_that_has_sent_goaway_may_finish_its_streams() -> None:
    server = frames()
    server.receive_data(begin(1) + frame(GOAWAY, bytes(8)))
    (received,) = server.receive_data(frame(DATA, bytes(5), flags=END_STREAM, stream=1))[:1]
    assert isinstance(received, DataReceived)
    server.send_headers(1, [(":status", "200")], end_stream=True)
    assert server.data_to_send()


def test_the_acknowledgement_of_the_servers_settings_is_free() -> None:
    server = frames(ConnectionLimits(control_frames_burst=2, control_frames_per_second=1))
    server.receive_data(ACKNOWLEDGED)
    for count in range(1, 100):
        server.limit_streams(count)
        server.receive_data(ACKNOWLEDGED)
    server.receive_data(
        ACKNOWLEDGED
    )  # one too many: the SETTINGS of `frames` were the first of two
    with pytest.raises(FloodError):
        server.receive_data(ACKNOWLEDGED)


def test_a_header_block_may_come_in_slices() -> None:
    server = frames()
    server.receive_data(begin(1, headers=CALL[:9], flags=0))
    assert server.in_header_block
    server.receive_data(frame(CONTINUATION, CALL[9:], flags=END_HEADERS, stream=1))
    assert not server.in_header_block


def test_a_frame_that_is_too_long_is_rejected_by_its_header() -> None:
    with pytest.raises(FrameTooLargeError):
        frames().receive_data(frame(DATA, bytes(16_385), stream=1)[:9])


def test_unknown_settings_are_not_remembered() -> None:
    server = frames()
    known = len(server.remote_settings)
    for code in range(1000, 60_000, 2000):
        server.receive_data(
            frame(SETTINGS, b"".join(struct.pack(">HI", code + n, 1) for n in range(2000)))
        )
    assert len(server.remote_settings) == known


def test_few_of_the_closed_streams_are_remembered() -> None:
    server = frames(ConnectionLimits(resets_burst=100_000))
    for at in range(0, 3000, 64):
        server.receive_data(
            b"".join(
                begin(2 * n + 1) + frame(RST_STREAM, CANCEL, stream=2 * n + 1)
                for n in range(at, at + 64)
            )
        )
    assert len(server._closed_streams) <= 1024
    assert len(server.streams) <= 1


async def test_a_request_with_a_wrong_content_length_is_reset_alone(
    served: Serving, bystander: Connection, wire: Connection
) -> None:
    wrong = await wire.request(call_headers(PATH, ("content-length", "3")), SOUND)
    assert wrong.reset is ErrorCode.PROTOCOL_ERROR
    answer = await wire.call("GetUserCredits", UserId(user_id=7))
    assert answer.message(UserCredits) == UserCredits(user_id=7)
