"""Test that the HTTP/2 client names each rule that a server breaks, and replies as it should."""

import struct

import pytest
from credit_testing import frames
from credit_testing.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_BYTES,
    ErrorCode,
    Flag,
    Header,
    Setting,
    frame,
)
from credit_testing.http2_receiver import Receiver, Windows

STATUS: Header = (":status", "200")
END = END_HEADERS | END_STREAM
OPENED = frames.headers(1, frames.header_block([STATUS]))
BODY = bytes(frames.MAX_FRAME_SIZE)


def fields(*more: Header, flags: int = END_HEADERS) -> bytes:
    return frames.headers(1, frames.header_block(more), flags)


def received(octets: bytes, *, window: int | None = None) -> Receiver:
    """Return a client that has begun a call on stream 1, and received these bytes."""
    receiver = Receiver(window)
    receiver.answer(1)
    receiver.receive(octets)
    return receiver


@pytest.mark.parametrize(
    ("octets", "named"),
    [
        (fields(), "the pseudo-header fields []"),
        (fields(STATUS, STATUS), "the pseudo-header fields [':status', ':status']"),
        (fields(STATUS, (":path", "/")), "the pseudo-header fields"),
        (fields(("a", "b"), STATUS), "a pseudo-header field after others"),
        (OPENED + fields(STATUS, flags=END), "the pseudo-header fields [':status']"),
        (OPENED + fields(("a", "b")), "trailers without END_STREAM"),
        (fields(STATUS, ("X-Upper", "1")), "the field name 'X-Upper'"),
        (fields(STATUS, ("connection", "close")), "the field name 'connection'"),
        (fields(STATUS, ("x", "a\nb")), "the value 'a\\nb' of x"),
        (fields(STATUS, ("x", " a")), "the value ' a' of x"),
        (frame(1, b"\xff" * 9, flags=END, stream=1), "a malformed frame of type 1"),
        (frames.headers(3, frames.header_block([STATUS])), "on stream 3, which is idle"),
        (frames.data(1, b"x"), "DATA on stream 1 before its headers"),
        (fields(STATUS, flags=END) + frames.data(1, b"x"), "on stream 1 after its end"),
        (frames.reset(1, 8) + OPENED, "on stream 1 after its end"),
        (fields(STATUS, flags=0) + frame(PING, bytes(8)), "a frame of type 6 in a header block"),
        (frame(CONTINUATION, stream=1), "a CONTINUATION without HEADERS"),
        (fields(STATUS, flags=0) + frame(CONTINUATION, stream=3), "a CONTINUATION without HEADERS"),
        (OPENED + frame(0, bytes(16_385), stream=1), "a frame of 16385 bytes"),
        (OPENED + frames.data(1, BODY * 5), "16384 bytes of DATA, which the windows do not allow"),
        (OPENED + frame(0, b"\x09", stream=1, flags=Flag.PADDED), "more padding than payload"),
        (frames.window_update(0), "a WINDOW_UPDATE of 0"),
        (frame(GOAWAY, struct.pack(">II", 1, 0)) * 2, ""),
        (
            frame(GOAWAY, struct.pack(">II", 1, 0)) + frame(GOAWAY, struct.pack(">II", 3, 0)),
            "GOAWAY of 3 after 1",
        ),
        (frame(GOAWAY, bytes(7)), "a malformed frame of type 7"),
        (frame(SETTINGS, bytes(5)), "a malformed frame of type 4"),
        (frame(RST_STREAM, bytes(3), stream=1), "a malformed frame of type 3"),
        (frame(PUSH_PROMISE, bytes(4), stream=1), "PUSH_PROMISE"),
        (frame(0xFA, b"unknown"), ""),
    ],
)
def test_a_broken_rule_is_named(octets: bytes, named: str) -> None:
    faults = received(octets, window=4 * len(BODY)).faults
    assert named in "; ".join(faults)
    assert bool(faults) == bool(named)


def test_an_answer_is_read_whatever_the_sizes_of_the_pieces() -> None:
    octets = OPENED + frames.data(1, b"body") + fields(("grpc-status", "0"), flags=END)
    receiver = received(b"")
    for octet in octets:
        receiver.receive(bytes([octet]))
    answer = receiver.answer(1)
    assert (answer.headers, bytes(answer.data)) == ({":status": "200"}, b"body")
    assert answer.outcome == "OK"
    assert answer.ended.is_set()
    assert not receiver.faults


def test_padding_and_priority_are_no_part_of_the_content() -> None:
    block = frames.header_block([STATUS])
    flags = END_HEADERS | Flag.PADDED | Flag.PRIORITY
    opened = frame(1, b"\x02" + bytes(5) + block + bytes(2), flags=flags, stream=1)
    padded = frame(0, b"\x03body" + bytes(3), flags=END_STREAM | Flag.PADDED, stream=1)
    receiver = received(opened + padded)
    assert receiver.answer(1).headers == {":status": "200"}
    assert receiver.answer(1).data == b"body"
    assert not receiver.faults


def test_settings_and_pings_are_acknowledged_by_an_automatic_client_alone() -> None:
    octets = frames.settings((Setting.MAX_CONCURRENT_STREAMS, 7)) + frame(PING, b"whatever")
    automatic, manual = received(octets), Receiver(automatic=False)
    manual.receive(octets)
    assert automatic.replies == frame(SETTINGS, flags=Flag.ACK) + frame(
        PING, b"whatever", flags=Flag.ACK
    )
    assert not manual.replies
    assert automatic.streams_max == manual.streams_max == 7


def test_windows_grow_again_unless_their_size_was_set() -> None:
    half = frames.data(1, BODY) * 2
    grown = received(OPENED + half).replies
    assert grown == frames.window_update(2**15) + frames.window_update(2**15, stream=1)
    assert received(OPENED + half, window=2**15).replies == frames.window_update(2**15)


def test_the_initial_window_changes_streams_that_exist() -> None:
    windows = Windows()
    assert windows.take(1, 10)
    windows.set_initial(4)
    assert windows.left(1) == -6
    assert windows.left(0) == WINDOW_BYTES - 10
    assert not windows.take(1, 1)
    assert windows.take(1, 0), "an empty frame needs no window"


def test_the_codes_of_resets_are_kept() -> None:
    receiver = received(frames.reset(1, ErrorCode.CANCEL) + frames.reset(3, 99))
    assert receiver.resets == {1: ErrorCode.CANCEL, 3: 99}
    assert receiver.answer(1).outcome == "RST_STREAM CANCEL"
    assert receiver.answer(3).outcome == "RST_STREAM code 99"


def test_no_answer_is_awaited_after_the_end_of_the_connection() -> None:
    receiver = received(b"")
    before = receiver.answer(1)
    receiver.end()
    assert before.ended.is_set()
    assert receiver.answer(3).ended.is_set(), "a call that begins on a lost connection"
