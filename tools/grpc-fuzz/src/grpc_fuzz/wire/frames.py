"""Wire cases with HTTP/2 frames that are unusual but valid, or that RFC 9113 forbids."""

from collections.abc import Iterator

from grpc_fuzz.model import Case, Method
from grpc_fuzz.wire.script import (
    HANG_UP,
    HTTP2_ERROR,
    SERVICE_STATUSES,
    call_fields,
    data,
    frame,
    headers,
    prefixed,
    raw,
    valid_call,
    wire_case,
)

DATA, HEADERS, PRIORITY, SETTINGS, PUSH_PROMISE = 0, 1, 2, 4, 5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION, UNKNOWN = 6, 7, 8, 9, 0xFA
_PADDED, _END_STREAM, _END_HEADERS = 0x8, 0x1, 0x4
_BYTEWISE_MAX = 64

# Each is a connection error. The sections are those of RFC 9113.
_FORBIDDEN = {
    "DATA on stream 0 (6.1)": frame(DATA, b""),
    "HEADERS on stream 0 (6.2)": frame(HEADERS, b"\x82", flags=_END_HEADERS),
    "HEADERS on a stream of the server (5.1.1)": frame(
        HEADERS, b"\x82", flags=_END_HEADERS, stream_id=2
    ),
    "a header block that is not HPACK (4.3)": frame(
        HEADERS, b"\xff\xff\xff\xff\xff\xff", flags=_END_HEADERS | _END_STREAM, stream_id=1
    ),
    "DATA on an idle stream (5.1)": frame(DATA, b"", stream_id=99),
    "CONTINUATION without HEADERS (6.10)": frame(CONTINUATION, b"", stream_id=3),
    "a frame between HEADERS and CONTINUATION (6.2)": frame(
        HEADERS, b"\x82", flags=_END_STREAM, stream_id=1
    )
    + frame(PING, bytes(8)),
    "PUSH_PROMISE from a client (8.4)": frame(
        PUSH_PROMISE, b"\x00\x00\x00\x02\x82", flags=_END_HEADERS, stream_id=1
    ),
    "SETTINGS of five bytes (6.5)": frame(SETTINGS, bytes(5)),
    "SETTINGS on a stream (6.5)": frame(SETTINGS, b"", stream_id=1),
    "SETTINGS with too large a window (6.5.2)": frame(SETTINGS, b"\x00\x04\xff\xff\xff\xff"),
    "PING of seven bytes (6.7)": frame(PING, bytes(7)),
    "PING on a stream (6.7)": frame(PING, bytes(8), stream_id=1),
    "WINDOW_UPDATE of 0 on the connection (6.9)": frame(WINDOW_UPDATE, bytes(4)),
    "WINDOW_UPDATE that overflows (6.9.1)": frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff") * 2,
    "padding longer than the frame (6.1)": frame(DATA, b"\xff", flags=_PADDED, stream_id=1),
    "a frame that is too long (4.2)": frame(DATA, bytes(2**20), stream_id=1),
}


def frame_cases(method: Method, request: bytes) -> Iterator[Case]:
    """Yield the cases of one method, made from one request that keeps the contract."""
    yield from _forbidden(method, request)
    yield from _cut_short(method, request)
    yield from _unusual(method, request)


def _forbidden(method: Method, request: bytes) -> Iterator[Case]:
    opened = headers(call_fields(method))
    # The rest of the call distinguishes a server that has not noticed from one that is slow.
    rest = data(prefixed(request))
    for description, octets in _FORBIDDEN.items():
        yield wire_case(method, description, opened, raw(octets), rest, expected=HTTP2_ERROR)


def _cut_short(method: Method, request: bytes) -> Iterator[Case]:
    body = prefixed(request)
    whole = frame(DATA, body, flags=_END_STREAM, stream_id=1)
    # The bytes never arrive, and the connection ends. A server may answer or not.
    over = HTTP2_ERROR | SERVICE_STATUSES | {"INTERNAL"}
    for length in (4, 9, len(whole) - 1):
        name = f"a frame cut to {length} bytes, then the end of the connection"
        steps = (headers(call_fields(method)), raw(whole[:length]), HANG_UP)
        yield wire_case(method, name, *steps, expected=over)
    yield wire_case(
        method,
        "the connection ends before the call",
        headers(call_fields(method)),
        HANG_UP,
        expected=over,
    )


def _unusual(method: Method, request: bytes) -> Iterator[Case]:
    body = prefixed(request)
    opened = headers(call_fields(method))
    bytewise = [data(body[at : at + 1], end_stream=False) for at in range(len(body))][
        :_BYTEWISE_MAX
    ]
    padded = frame(DATA, b"\x0a" + body + bytes(10), flags=_PADDED | _END_STREAM, stream_id=1)
    for description, steps in {
        "DATA of one byte each": (opened, *bytewise, data(body[len(bytewise) :])),
        "empty DATA before the message": (opened, data(b"", end_stream=False), data(body)),
        "the stream ended by empty DATA": (opened, data(body, end_stream=False), data(b"")),
        "padded DATA": (opened, raw(padded)),
        "HEADERS split into CONTINUATION frames": (
            headers(call_fields(method), frames=5),
            data(body),
        ),
        "a frame of an unknown type (5.5)": (
            raw(frame(UNKNOWN, b"fuzz")),
            opened,
            raw(frame(UNKNOWN, b"fuzz", stream_id=1)),
            data(body),
        ),
        "an unknown setting (6.5.2)": (
            raw(frame(SETTINGS, b"\xfa\xfa\x00\x00\x00\x01")),
            *valid_call(method, body),
        ),
        "PRIORITY (5.3.2)": (
            raw(frame(PRIORITY, b"\x00\x00\x00\x00\x10", stream_id=1)),
            *valid_call(method, body),
        ),
        "PING during the call": (opened, raw(frame(PING, b"grpcping")), data(body)),
    }.items():
        yield wire_case(method, description, *steps)
