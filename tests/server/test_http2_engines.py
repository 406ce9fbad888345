"""Test that both libraries for HTTP/2 send the same answers and serve the same requests."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from credit_server.http2.frames import EARLY_STREAMS, RequestReset, ServerFrames
from credit_server.http2.limits import ConnectionLimits
from credit_server.http2.nghttp2_frames import Nghttp2Frames
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
    frame,
    header_block,
)
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError, StreamClosedError
from hpack import Encoder
from hypothesis import event, given, settings
from hypothesis import strategies as st

PUSH_PROMISE, PADDED, WITH_PRIORITY = 5, 8, 0x20
LIMITS = ConnectionLimits(streams_max=4)
CALL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a.B/C"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
HEADER_LISTS: dict[str, Sequence[tuple[str, str]]] = {
    "sound": CALL,
    "one more": [*CALL, ("x-a", "b")],
    "upper case": [*CALL, ("X-Upper", "1")],
    "a length of 100": [*CALL, ("content-length", "100")],
    "of HTTP/1": [*CALL, ("connection", "close")],
    "too long": [*CALL, ("x-long", "y" * 17_000)],
    "no method": CALL[1:],
    "trailers": [("x-trailer", "1")],
    "none": [],
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """HEADERS and their CONTINUATIONs."""

    stream: int
    headers: str
    end: int
    parts: int
    depends_on: int | None
    padding: int | None

    def build(self, encoder: Encoder) -> bytes:
        block = encoder.encode(HEADER_LISTS[self.headers])
        flags, before, after = self.end, b"", b""
        if self.padding is not None and block:  # hyperframe rejects padding around nothing
            flags, before, after = flags | PADDED, bytes([self.padding]), bytes(self.padding)
        if self.depends_on is not None:
            flags, before = flags | WITH_PRIORITY, before + struct.pack(">IB", self.depends_on, 7)
        size = min(-(-len(block) // self.parts) or 1, 16_000)
        pieces = [block[at : at + size] for at in range(0, len(block), size)] or [b""]
        last = END_HEADERS if len(pieces) == 1 else 0
        first = before + pieces[0] + after
        octets = frame(HEADERS, first, flags=flags | last, stream=self.stream)
        for index, piece in enumerate(pieces[1:], start=2):
            last = END_HEADERS if index == len(pieces) else 0
            octets += frame(CONTINUATION, piece, flags=last, stream=self.stream)
        return octets


streams = st.sampled_from([1, 1, 1, 3, 3, 5, 7, 9, 11, 13, 0, 2, 99])
increments = st.sampled_from([0, 1, 100, 1 << 30, 2**31 - 1, 1 << 31, 1 << 31 | 5])
requests = st.builds(
    Request,
    stream=streams,
    headers=st.sampled_from(["sound", "sound", "sound", *HEADER_LISTS]),
    end=st.sampled_from([0, END_STREAM]),
    parts=st.integers(1, 3),
    depends_on=st.sampled_from([None, None, None, 0, 1, 3]),
    padding=st.sampled_from([None, None, 0, 9]),
)


@st.composite
def others(draw: st.DrawFn) -> bytes:
    stream = draw(streams)
    size = draw(st.sampled_from([0, 1, 50, 100, 1024, 16_384]))
    flags = draw(st.sampled_from([0, 0, END_STREAM]))
    small = draw(st.integers(0, 9))
    return draw(
        st.sampled_from(
            [
                frame(DATA, bytes(size), flags=flags, stream=stream),
                frame(DATA, bytes(size), flags=flags, stream=stream),
                frame(DATA, bytes([small]) + bytes(20), flags=flags | PADDED, stream=stream),
                frame(RST_STREAM, struct.pack(">I", 8), stream=stream),
                frame(RST_STREAM, bytes(small), stream=stream),
                frame(WINDOW_UPDATE, struct.pack(">I", draw(increments)), stream=stream),
                frame(WINDOW_UPDATE, bytes(small), stream=stream),
                frame(PING, bytes(8)),
                frame(PING, bytes(8), flags=ACK),
                frame(PING, bytes(small)),
                frame(SETTINGS, struct.pack(">HI", 4, draw(st.sampled_from([0, 9, 1 << 30])))),
                frame(SETTINGS, struct.pack(">HI", 0x99, 1)),
                frame(SETTINGS, flags=ACK),
                frame(SETTINGS, bytes(small)),
                frame(PRIORITY, struct.pack(">IB", draw(streams), 1), stream=stream),
                frame(PRIORITY, bytes(small), stream=stream),
                frame(PUSH_PROMISE, bytes(4), flags=END_HEADERS, stream=stream),
                frame(CONTINUATION, b"", flags=END_HEADERS, stream=stream),
                frame(0xFA, bytes(small), flags=flags, stream=stream),
                frame(GOAWAY, struct.pack(">II", 0, 0)),
            ]
        )
    )


@dataclass(kw_only=True)
class Seen:
    """The results of a client's frames with one library."""

    resets: dict[int, int] = field(default_factory=dict)
    goaway: int | None = None
    pongs: int = 0
    served: dict[int, list[object]] = field(default_factory=dict)


def play(frames: ServerFrames | Nghttp2Frames, turns: Sequence[bytes], size: int) -> Seen:
    """Feed each turn in pieces, then answer the requests that are complete."""
    seen = Seen()
    frames.initiate_connection()
    frames.data_to_send()
    try:
        for octets in turns:
            ended: list[int] = []
            for at in range(0, len(octets), size):
                ended += take(frames, octets[at : at + size], seen)
            while frames.has_more:
                ended += take(frames, b"", seen)
            for stream_id in ended:
                answer(frames, stream_id)
            read(frames.data_to_send(), seen)
    except ProtocolError:
        pass
    read(frames.data_to_send(), seen)
    return seen


def take(frames: ServerFrames | Nghttp2Frames, octets: bytes, seen: Seen) -> list[int]:
    """Handle the events of some bytes; return the streams whose requests are complete."""
    ended = []
    for each in frames.receive_data(octets):
        note(each, seen)
        if isinstance(each, DataReceived):
            frames.acknowledge_received_data(each.flow_controlled_length, each.stream_id)
        if isinstance(each, StreamEnded):
            ended.append(each.stream_id)
    return ended


def answer(frames: ServerFrames | Nghttp2Frames, stream_id: int) -> None:
    try:
        frames.send_headers(stream_id, [(":status", "200")])
        frames.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)
    except (StreamClosedError, ProtocolError):
        return


def note(each: Event, seen: Seen) -> None:
    stream_id = getattr(each, "stream_id", 0)
    if not isinstance(each, RequestReceived | DataReceived | StreamEnded | StreamReset):
        return
    if isinstance(each, RequestReset) and each.stream_id not in seen.served:
        return  # nothing of it was served, and the reset is in the output, which is compared
    served = seen.served.setdefault(stream_id, [])
    match each:
        case RequestReceived(headers=found):
            served.append([tuple(header) for header in found])
        case DataReceived(data=data) if data:
            if served and isinstance(served[-1], bytes):
                served[-1] += data
            else:
                served.append(data)
        case StreamEnded():
            served.append("end")
        case StreamReset() if served[-1] != "reset":
            served.append("reset")


def read(octets: bytes, seen: Seen) -> None:
    at = 0
    while at < len(octets):
        length, kind, flags = int.from_bytes(octets[at : at + 3]), octets[at + 3], octets[at + 4]
        stream_id = int.from_bytes(octets[at + 5 : at + 9])
        payload = octets[at + 9 : at + 9 + length]
        if kind == RST_STREAM:
            seen.resets.setdefault(stream_id, int.from_bytes(payload))
        elif kind == GOAWAY:
            seen.goaway = int.from_bytes(payload[4:8])
        elif kind == PING and flags & ACK:
            seen.pongs += 1
        at += 9 + length


turns = st.lists(st.lists(st.one_of(requests, requests, others(), others(), others())), max_size=5)


@settings(max_examples=150, deadline=None)
@given(turns, st.sampled_from([1, 9, 100, 5000, 1 << 20]))
def test_both_see_and_answer_the_same(sent: list[list[Request | bytes]], size: int) -> None:
    encoder = Encoder()
    octets = [
        b"".join(each if isinstance(each, bytes) else each.build(encoder) for each in turn)
        for turn in sent
    ]
    by_h2 = play(ServerFrames(LIMITS, 0.0), [PREFACE, SETTINGS_FRAME, *octets], size)
    by_nghttp2 = play(Nghttp2Frames(LIMITS, 0.0), [PREFACE, SETTINGS_FRAME, *octets], size)
    event(f"the connection ends: {by_h2.goaway is not None}")
    # A frame may have two faults, of which either gives the code: see `test_frame_faults`.
    assert (by_nghttp2.goaway is None) == (by_h2.goaway is None)
    if by_h2.goaway is None:
        assert by_nghttp2 == by_h2


@pytest.mark.parametrize("engine", [ServerFrames, Nghttp2Frames])
def test_a_limit_that_was_lowered_holds_for_all_later_streams(
    engine: type[ServerFrames | Nghttp2Frames],
) -> None:
    server = engine(LIMITS, 0.0)
    server.initiate_connection()
    acknowledged = frame(SETTINGS, flags=ACK)
    server.receive_data(PREFACE + SETTINGS_FRAME + acknowledged)
    server.limit_streams(1)
    server.receive_data(acknowledged)
    server.data_to_send()
    first = (
        2 * EARLY_STREAMS * LIMITS.streams_max + 1
    )  # the first limit applies from this stream on
    begun = [
        server.receive_data(frame(HEADERS, header_block(CALL), flags=END_HEADERS, stream=stream))
        for stream in (first, first + 2)
    ]
    assert [[type(each) for each in events] for events in begun] == [[RequestReceived], []]
    seen = Seen()
    read(server.data_to_send(), seen)
    assert seen.resets == {first + 2: ErrorCode.REFUSED_STREAM}
