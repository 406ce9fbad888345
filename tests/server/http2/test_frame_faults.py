"""Every fault that RFC 9113 names: those that end only their stream, and those of the connection.

A proxy sends the calls of many clients on one connection. In each case a bystander's call is open
on the same connection; after a fault of another stream it gets its answer.
"""

import struct
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from credit_models import UserId
from credit_models.codec import encode
from credit_models.http2_engine import Engine
from credit_server.http2.connections import Closing
from credit_server.http2.limits import ConnectionLimits
from credit_testing.calls import SERVICE, Headers, call_headers, framed
from credit_testing.frames import (
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
    WINDOW_UPDATE,
    ErrorCode,
    Frame,
    frame,
    header_block,
)
from credit_testing.http2_client import Connection
from grpclib.const import Status
from hpack import Decoder

from tests.server.serving import Serving, serving

PATH = SERVICE + "GetUserCredits"
CALL = call_headers(PATH)
SOUND = framed(encode(UserId(user_id=7)))
BYSTANDER, FAULTY = 1, 3
PUSH_PROMISE, PADDED, PRIORITY_FLAG = 5, 8, 0x20
CANCEL = struct.pack(">I", ErrorCode.CANCEL)
HEADER_BYTES_MAX = 16_384

Lines = list[MutableMapping[str, Any]]  # Any: structlog's own type


def begin(headers: Headers = CALL, *, end: bool = False, stream: int = FAULTY) -> bytes:
    return frame(
        HEADERS,
        header_block(headers),
        flags=END_HEADERS | (END_STREAM if end else 0),
        stream=stream,
    )


def without(*names: str) -> Headers:
    return [header for header in CALL if header[0] not in names]


def with_value(name: str, value: str | bytes) -> Headers:
    return [(key, value if key == name else old) for key, old in CALL]


def data(payload: bytes = SOUND, *, flags: int = 0, stream: int = FAULTY) -> bytes:
    return frame(DATA, payload, flags=flags, stream=stream)


def reset(stream: int = FAULTY) -> bytes:
    return frame(RST_STREAM, CANCEL, stream=stream)


def window(increment: int, stream: int = FAULTY) -> bytes:
    return frame(WINDOW_UPDATE, struct.pack(">I", increment), stream=stream)


def priority(depends_on: int, stream: int = FAULTY) -> bytes:
    return frame(PRIORITY, struct.pack(">IB", depends_on, 15), stream=stream)


def trailers(*headers: tuple[str, str], end: bool = True) -> bytes:
    return begin(headers, end=end)


MALFORMED: dict[str, Headers] = {
    # 8.2: field names
    "8.2.1 a name in upper case": [*CALL, ("X-Upper", "1")],
    "8.2.1 a space in a name": [*CALL, ("x y", "1")],
    "8.2.1 a control character in a name": [*CALL, (b"x\x01", "1")],
    "8.2.1 DEL in a name": [*CALL, (b"x\x7f", "1")],
    "8.2.1 a name beyond ASCII": [*CALL, (b"x\xe9", "1")],
    "8.2.1 a colon in a name": [*CALL, ("x:y", "1")],
    "8.2.1 an empty name": [*CALL, ("", "1")],
    # 8.2.1: field values
    "8.2.1 NUL in a value": [*CALL, ("x-odd", b"a\x00b")],
    "8.2.1 LF in a value": [*CALL, ("x-odd", b"a\nb")],
    "8.2.1 CR in a value": [*CALL, ("x-odd", b"a\rb")],
    "8.2.1 a line end around a value": [*CALL, ("x-odd", b"a\r\n")],
    **{
        f"8.2.1 white space around a value: {value!r}": [*CALL, ("x-odd", value)]
        for value in (b" v", b"v ", b"\tv", b"v\t", b" \t v \t ")
    },
    # 8.2.2: connection-specific fields
    **{
        f"8.2.2 {name}": [*CALL, (name, "1")]
        for name in ("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade")
    },
    "8.2.2 another te": with_value("te", "gzip"),
    "8.2.2 te with more": with_value("te", "trailers, deflate"),
    # 8.3: pseudo-header fields
    "8.3 an unknown one": [(":odd", "1"), *CALL],
    "8.3 one of answers": [(":status", "200"), *CALL],
    "8.3 one of informational answers": [(":status", "100"), *CALL],
    "8.3 :protocol without CONNECT": [(":protocol", "websocket"), *CALL],
    "8.3 one after regular fields": [*CALL[1:], CALL[0]],
    "8.3 one with white space": with_value(":path", f" {PATH}"),
    **{
        f"8.3 {name} twice": [*CALL[:4], (name, "/again"), *CALL[4:]]
        for name in (":method", ":scheme", ":path", ":authority")
    },
    **{f"8.3.1 no {name}": without(name) for name in (":method", ":scheme", ":path")},
    "8.3.1 an empty :path": with_value(":path", ""),
    "8.3.1 another host": [*CALL, ("host", "elsewhere")],
    "8.3.1 two hosts": [*CALL, ("host", "127.0.0.1"), ("host", "127.0.0.1")],
    "8.3.1 neither :authority nor host": without(":authority"),
    "8.5 CONNECT with a path": with_value(":method", "CONNECT"),
    "nothing at all": [],
    # 8.1.1: content-length
    "8.1.1 a length that is no number": [*CALL, ("content-length", "x")],
    "8.1.1 a negative length": [*CALL, ("content-length", "-1")],
    "8.1.1 a length of 5,000 digits": [*CALL, ("content-length", "9" * 5000)],
    "8.1.1 two lengths": [*CALL, ("content-length", "1"), ("content-length", "2")],
}

PROTOCOL, CLOSED = ErrorCode.PROTOCOL_ERROR, ErrorCode.STREAM_CLOSED
FRAME_SIZE, FLOW = ErrorCode.FRAME_SIZE_ERROR, ErrorCode.FLOW_CONTROL_ERROR

OF_STREAM: dict[str, tuple[bytes, ErrorCode]] = {
    **{name: (begin(headers), PROTOCOL) for name, headers in MALFORMED.items()},
    **{
        f"{name}, at its end": (begin(headers, end=True), PROTOCOL)
        for name, headers in MALFORMED.items()
    },
    # 5.1: states
    "5.1 DATA on a half-closed stream": (begin(end=True) + data(), CLOSED),
    "5.1 HEADERS on a half-closed stream": (begin(end=True) + begin(), CLOSED),
    "5.1 HEADERS after the client's reset": (begin() + reset() + begin(), CLOSED),
    "5.1 DATA after the client's reset": (begin() + reset() + data(), CLOSED),
    "5.1 DATA on a stream that was skipped": (begin(stream=5) + data(), CLOSED),
    # 5.3.1 of RFC 7540; RFC 9113 has no priorities any more
    "5.3 HEADERS that depend on themselves": (
        frame(
            HEADERS,
            struct.pack(">IB", FAULTY, 15) + header_block(CALL),
            flags=END_HEADERS | PRIORITY_FLAG,
            stream=FAULTY,
        ),
        PROTOCOL,
    ),
    **{
        f"5.3 trailers that depend on themselves, {name}": (
            begin()
            + frame(
                HEADERS,
                struct.pack(">IB", FAULTY, 15) + header_block([("x-a", "b")]),
                flags=END_HEADERS | PRIORITY_FLAG | flags,
                stream=FAULTY,
            ),
            PROTOCOL,
        )
        for name, flags in (("at the end", END_STREAM), ("before the end", 0))
    },
    "5.3 a PRIORITY that depends on itself": (begin() + priority(FAULTY), PROTOCOL),
    "6.3 a PRIORITY of four bytes": (
        begin() + frame(PRIORITY, bytes(4), stream=FAULTY),
        FRAME_SIZE,
    ),
    "6.3 a PRIORITY of six bytes": (begin() + frame(PRIORITY, bytes(6), stream=FAULTY), FRAME_SIZE),
    "6.3 a PRIORITY of nothing": (begin() + frame(PRIORITY, b"", stream=FAULTY), FRAME_SIZE),
    # 6.9: flow control
    "6.9 a WINDOW_UPDATE of 0": (begin() + window(0), PROTOCOL),
    "6.9 a WINDOW_UPDATE of 0 and the reserved bit": (begin() + window(1 << 31), PROTOCOL),
    "6.9 a WINDOW_UPDATE of 0 after the end": (begin(end=True) + window(0), PROTOCOL),
    "6.9.1 a window that overflows": (begin() + window(2**31 - 1), FLOW),
    "6.9.1 more DATA than the window": (begin() + data(bytes(16_384)) * 5, FLOW),
    # 8.1: trailers
    "8.1 trailers without END_STREAM": (begin() + trailers(("x-a", "b"), end=False), PROTOCOL),
    "8.1 trailers with a pseudo-header": (begin() + trailers((":path", "/")), PROTOCOL),
    "8.1 trailers with a status": (begin() + trailers((":status", "200")), PROTOCOL),
    "8.1 trailers like an informational answer": (
        begin() + trailers((":status", "100"), end=False),
        PROTOCOL,
    ),
    "8.2.1 trailers in upper case": (begin() + trailers(("X-Upper", "1")), PROTOCOL),
    "8.2.1 trailers with a line break": (begin() + trailers(("x-odd", "a\nb")), PROTOCOL),
    "8.2.2 trailers with connection": (begin() + trailers(("connection", "close")), PROTOCOL),
    "trailers of many kilobytes": (
        begin() + trailers(("x-long", "x" * 16_300), ("x-more", "x" * 60)),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    # 8.1.1: content-length
    "8.1.1 more than the length": (begin([*CALL, ("content-length", "3")]) + data(), PROTOCOL),
    "8.1.1 less than the length": (
        begin([*CALL, ("content-length", "30")]) + data(flags=END_STREAM),
        PROTOCOL,
    ),
    "8.1.1 nothing, with a length": (
        begin([*CALL, ("content-length", "3")], end=True),
        PROTOCOL,
    ),
    "8.1.1 less than the length, with trailers": (
        begin([*CALL, ("content-length", "30")]) + data() + trailers(("x-a", "b")),
        PROTOCOL,
    ),
}

HARMLESS: dict[str, bytes] = {
    "5.1 PRIORITY on an idle stream": priority(1, stream=99),
    "5.3 a PRIORITY of an idle stream that depends on itself": priority(99, stream=99),
    "6.3 a short PRIORITY of an idle stream": frame(PRIORITY, b"x", stream=99),
    "5.1 PRIORITY on a closed stream": begin() + reset() + priority(1),
    "5.1 RST_STREAM on a closed stream": begin() + reset() + reset(),
    "5.1 WINDOW_UPDATE on a closed stream": begin() + reset() + window(1),
    "5.1 WINDOW_UPDATE of 0 on a closed stream": begin() + reset() + window(0),
    "5.5 an unknown frame on a stream": begin() + frame(0xFA, b"?", stream=FAULTY) + reset(),
    "6.1 DATA with padding": begin()
    + data(b"\x02" + b"\0\0\0\0\0" + b"\0\0", flags=PADDED)
    + reset(),
    "6.9 a WINDOW_UPDATE with the reserved bit": begin() + window(1 << 31 | 1) + reset(),
    "6.9 and on the connection": window(1 << 31 | 1, stream=0),
    "5.4.2 DATA that was under way when the stream was reset": (
        begin([*CALL, ("X-Upper", "1")]) + data() * 3
    ),
    "5.4.2 trailers that were under way when the stream was reset": (
        begin([*CALL, ("X-Upper", "1")]) + data() + trailers(("x-a", "b"))
    ),
}

OF_CONNECTION: dict[str, tuple[bytes, ErrorCode]] = {
    # 4: frames and header blocks
    "4.2 a frame that is too long": (data(bytes(16_385)), FRAME_SIZE),
    "4.3 a block that is not HPACK": (
        frame(HEADERS, b"\xff" * 9, flags=END_HEADERS, stream=FAULTY),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "4.3 trailers that are not HPACK": (
        begin() + frame(HEADERS, b"\x40\x7f", flags=END_HEADERS | END_STREAM, stream=FAULTY),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "4.3 a block of no HPACK for a call that was reset": (
        begin([*CALL, ("X-Upper", "1")])
        + frame(HEADERS, b"\xff" * 9, flags=END_HEADERS | END_STREAM, stream=FAULTY),
        ErrorCode.COMPRESSION_ERROR,
    ),
    # 5.1: states
    "5.1 DATA on an idle stream": (data(stream=99), PROTOCOL),
    "5.1 RST_STREAM on an idle stream": (reset(stream=99), PROTOCOL),
    "5.1 RST_STREAM on a stream of the server": (reset(stream=2), PROTOCOL),
    "5.1 WINDOW_UPDATE on an idle stream": (window(1, stream=99), PROTOCOL),
    "5.1 WINDOW_UPDATE of 0 on an idle stream": (window(0, stream=99), PROTOCOL),
    "5.1.1 HEADERS on a stream of the server": (begin(stream=2), PROTOCOL),
    "5.1.1 HEADERS on a stream that was skipped": (begin(stream=5) + begin(stream=3), PROTOCOL),
    # 6: frames
    "6.1 DATA on stream 0": (data(stream=0), PROTOCOL),
    "6.1 padding longer than DATA": (begin() + data(b"\xff", flags=PADDED), PROTOCOL),
    "6.2 HEADERS on stream 0": (begin(stream=0), PROTOCOL),
    "6.2 padding longer than HEADERS": (
        frame(HEADERS, b"\xff\x82", flags=END_HEADERS | PADDED, stream=FAULTY),
        PROTOCOL,
    ),
    "6.2 another frame in a header block": (
        frame(HEADERS, header_block(CALL), stream=FAULTY) + frame(PING, bytes(8)),
        PROTOCOL,
    ),
    "6.2 a WINDOW_UPDATE of 0 in a header block": (
        begin() + frame(HEADERS, header_block(CALL), stream=5) + window(0),
        PROTOCOL,
    ),
    "6.2 HEADERS too short for their priority": (
        frame(HEADERS, b"\0", flags=END_HEADERS | PRIORITY_FLAG, stream=FAULTY),
        FRAME_SIZE,
    ),
    "6.3 PRIORITY on stream 0": (priority(1, stream=0), PROTOCOL),
    "6.4 RST_STREAM on stream 0": (reset(stream=0), PROTOCOL),
    "6.4 RST_STREAM of three bytes": (
        begin() + frame(RST_STREAM, bytes(3), stream=FAULTY),
        FRAME_SIZE,
    ),
    "6.5 SETTINGS on a stream": (frame(SETTINGS, stream=FAULTY), PROTOCOL),
    "6.5 SETTINGS of five bytes": (frame(SETTINGS, bytes(5)), FRAME_SIZE),
    "6.5.2 SETTINGS with too large a window": (
        frame(SETTINGS, b"\x00\x04\xff\xff\xff\xff"),
        FLOW,
    ),
    "6.6 PUSH_PROMISE": (
        frame(PUSH_PROMISE, b"\0\0\0\x02\x82", flags=END_HEADERS, stream=BYSTANDER),
        PROTOCOL,
    ),
    "6.7 PING on a stream": (frame(PING, bytes(8), stream=BYSTANDER), PROTOCOL),
    "6.7 PING of seven bytes": (frame(PING, bytes(7)), FRAME_SIZE),
    "6.8 GOAWAY on a stream": (frame(GOAWAY, bytes(8), stream=BYSTANDER), PROTOCOL),
    "6.9 WINDOW_UPDATE of three bytes": (
        frame(WINDOW_UPDATE, bytes(3), stream=BYSTANDER),
        FRAME_SIZE,
    ),
    "6.9 WINDOW_UPDATE of 0 on the connection": (window(0, stream=0), PROTOCOL),
    "6.9.1 the connection's window overflows": (window(2**31 - 1, stream=0), FLOW),
    "6.9.2 SETTINGS overflow a stream's window": (
        begin() + window(2**31 - 1 - 65_535) + frame(SETTINGS, struct.pack(">HI", 4, 65_536)),
        FLOW,
    ),
    "6.10 CONTINUATION of nothing": (
        frame(CONTINUATION, flags=END_HEADERS, stream=BYSTANDER),
        PROTOCOL,
    ),
    "6.10 CONTINUATION after a reset": (
        begin([*CALL, ("X-Upper", "1")]) + frame(CONTINUATION, flags=END_HEADERS, stream=FAULTY),
        PROTOCOL,
    ),
    "6.10 CONTINUATION of another stream": (
        frame(HEADERS, header_block(CALL), stream=FAULTY) + frame(CONTINUATION, b"", stream=5),
        PROTOCOL,
    ),
}


def cases(table: dict[str, Any]) -> Sequence[Any]:
    return [
        pytest.param(*(row if isinstance(row, tuple) else (row,)), id=name)
        for name, row in table.items()
    ]


async def bystanders_answer(raw: Connection) -> dict[bytes, bytes]:
    """End the bystander's request; return the trailers of its answer."""
    raw.write(data(flags=END_STREAM, stream=BYSTANDER))
    return await answer(raw, BYSTANDER)


async def answer(raw: Connection, stream: int = FAULTY) -> dict[bytes, bytes]:
    """Return the headers, or the trailers, that end an answer."""
    while True:
        ended = await raw.next(HEADERS, flags=END_STREAM)
        if ended.stream == stream:
            return fields_of(ended)


def fields_of(headers: Frame) -> dict[bytes, bytes]:
    fields = Decoder().decode(headers.payload, raw=True)
    return {bytes(name): bytes(value) for name, value in fields}


@pytest.mark.parametrize(("octets", "code"), cases(OF_STREAM))
async def test_a_fault_of_one_stream_resets_it_alone(
    served: Serving, bystander: Connection, logged: Lines, octets: bytes, code: ErrorCode
) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(begin(stream=BYSTANDER) + octets)
        await raw.in_order()
        assert raw.resets == {FAULTY: code}
        assert (await bystanders_answer(raw))[b"grpc-status"] == b"0"
        assert GOAWAY not in [received.kind for received in raw.received]
    assert not served.server.connections.closed[Closing.PROTOCOL]
    assert not [line for line in logged if "exc_info" in line]


@pytest.mark.parametrize("octets", cases(HARMLESS))
async def test_frames_that_may_come_late_or_are_reserved_are_ignored(
    served: Serving, bystander: Connection, octets: bytes
) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(begin(stream=BYSTANDER) + octets)
        await raw.in_order()
        assert list(raw.resets.values()) in ([], [PROTOCOL])  # never a second one
        assert len([received for received in raw.received if received.kind == RST_STREAM]) <= 1
        assert (await bystanders_answer(raw))[b"grpc-status"] == b"0"


@pytest.mark.parametrize(("octets", "code"), cases(OF_CONNECTION))
async def test_a_fault_of_the_connection_ends_it_with_its_code(
    served: Serving, bystander: Connection, octets: bytes, code: ErrorCode
) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(begin(stream=BYSTANDER) + octets)
        assert await raw.last_goaway() is code
    assert served.server.connections.closed[Closing.PROTOCOL] == 1
    await served.wait_quiet()
    assert served.running_calls() == 0


async def test_headers_that_reuse_the_number_of_a_stream_end_the_connection(
    served: Serving,
) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(begin(end=False) + data(flags=END_STREAM))
        await answer(raw)
        raw.write(begin())
        assert await raw.last_goaway() is CLOSED


async def test_trailers_that_cross_the_reset_of_their_stream_do_not_count_as_a_stream() -> None:
    """The stream is closed, and others use up the limit: it must not count as a new one."""
    async with (
        serving(connections=ConnectionLimits(streams_max=1)) as served,
        Connection.connect(served.port, automatic=False) as raw,
    ):
        raw.write(begin([*CALL, ("X-Upper", "1")], stream=1) + begin(stream=3))
        raw.write(begin([("x-a", "b")], end=True, stream=1))
        raw.write(data(flags=END_STREAM, stream=3))
        assert (await answer(raw))[b"grpc-status"] == b"0"
        assert raw.resets == {1: PROTOCOL}


@pytest.mark.parametrize(
    "fault",
    ["8.2.1 a name in upper case", "6.9 a WINDOW_UPDATE of 0", "6.3 a PRIORITY of four bytes"],
)
async def test_faults_of_streams_are_charged_like_resets(fault: str) -> None:
    limits = ConnectionLimits(resets_burst=9, resets_per_second=1)
    octets, code = OF_STREAM[fault]
    async with (
        serving(connections=limits) as served,
        Connection.connect(served.port, automatic=False) as raw,
    ):
        for stream in range(3, 3 + 2 * 30, 2):
            raw.write(_on_stream(octets, stream))
        assert await raw.last_goaway() is ErrorCode.ENHANCE_YOUR_CALM
        assert set(raw.resets.values()) == {code}
    assert served.server.connections.closed[Closing.FLOOD] == 1


def _on_stream(octets: bytes, stream: int) -> bytes:
    """Return the same frames on another stream."""
    frames = bytearray(octets)
    at = 0
    while at < len(frames):
        frames[at + 5 : at + 9] = stream.to_bytes(4)
        at += 9 + int.from_bytes(frames[at : at + 3])
    return bytes(frames)


async def test_late_headers_of_a_reset_stream_are_charged(served: Serving) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(begin([*CALL, ("X-Upper", "1")]) + trailers(("x-a", "b")) * 20_000)
        assert await raw.last_goaway() is ErrorCode.ENHANCE_YOUR_CALM


# Header lists that are too long.


def long_list(size: int) -> Headers:
    """Return the headers of a call with so many more bytes, as RFC 9113, section 6.5.2, counts."""
    name = "x-long-{:02}"
    values = [1000] * (size // 1041) + [max(0, size % 1041 - 41)]
    return [*CALL, *((name.format(at), "x" * length) for at, length in enumerate(values))]


def split(headers: Headers, *, stream: int = FAULTY, end: bool = False) -> bytes:
    """Return a header block in frames of 16 KiB."""
    octets = header_block(headers)
    parts = [octets[at : at + 16_384] for at in range(0, len(octets), 16_384)]
    kinds = [HEADERS] + [CONTINUATION] * (len(parts) - 1)
    return b"".join(
        frame(
            kind,
            part,
            flags=(END_HEADERS if at == len(parts) - 1 else 0)
            | (END_STREAM if end and not at else 0),
            stream=stream,
        )
        for at, (kind, part) in enumerate(zip(kinds, parts, strict=True))
    )


@pytest.mark.parametrize("kilobytes", [17, 20, 40, 63])
@pytest.mark.parametrize("end", [True, False], ids=["complete", "still sending"])
async def test_long_headers_reject_only_their_call(
    served: Serving, bystander: Connection, logged: Lines, kilobytes: int, end: bool
) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(begin(stream=BYSTANDER) + split(long_list(kilobytes * 1024)))
        raw.write(data(flags=END_STREAM) if end else b"")
        headers = await answer(raw)
        assert headers[b":status"] == b"200"
        assert headers[b"grpc-status"] == str(Status.RESOURCE_EXHAUSTED.value).encode()
        sentence = headers[b"grpc-message"]
        assert b"bytes of headers, and 16384 are allowed: send less metadata" in sentence
        await raw.in_order()
        assert raw.resets in ({}, {FAULTY: ErrorCode.NO_ERROR})
        assert (await bystanders_answer(raw))[b"grpc-status"] == b"0"
    lines = [line for line in logged if line["event"] == "call" and line["method"] == PATH]
    assert Status.RESOURCE_EXHAUSTED.name in [line["status"] for line in lines]


async def test_the_limit_on_headers_is_exact(served: Serving, wire: Connection) -> None:
    base = sum(len(str(name)) + len(str(value)) + 32 for name, value in CALL)
    for more, status in ((0, Status.OK), (1, Status.RESOURCE_EXHAUSTED)):
        length = HEADER_BYTES_MAX - base - 32 - len("x-long") + more
        found = await wire.request([*CALL, ("x-long", "x" * length)], SOUND)
        assert found.status is status, found.sentence


async def test_entries_that_a_long_block_has_added_to_the_table_stay_in_it(served: Serving) -> None:
    """Later blocks refer to them, so even a block that is rejected is decoded to its end."""
    remembered = b"\x40\x07x-odd-1\x05first"
    tail = b"\x40\x0cx-request-id\x05known"
    long = header_block(CALL) + remembered + (b"\x00\x01y\x7f\x81\x7c" + b"z" * 16_000) + tail
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(
            frame(HEADERS, long[:16_000], stream=1)
            + frame(CONTINUATION, long[16_000:], flags=END_HEADERS, stream=1)
        )
        headers = await answer(raw, 1)
        assert headers[b"grpc-status"] == str(Status.RESOURCE_EXHAUSTED.value).encode()
        assert headers[b"x-request-id"] == b"known"
        # 62 is the newest entry of the table: x-request-id.
        raw.write(frame(HEADERS, header_block(CALL) + b"\xbe", flags=END_HEADERS, stream=3))
        raw.write(data(flags=END_STREAM))
        found: dict[bytes, bytes] = {}
        while b"grpc-status" not in found:
            found |= fields_of(await raw.next(HEADERS))
        assert (found[b"grpc-status"], found[b"x-request-id"]) == (b"0", b"known")


IN_A_RESET_CALL = begin([*CALL, ("X-Upper", "1")]) + frame(
    HEADERS,
    b"\x40\x01x\x7f" + b"\xa1\x1e" + b"y" * 4000 + b"\xbe" * 100,
    flags=END_HEADERS,
    stream=FAULTY,
)


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(split(long_list(80 * 1024)), id="as written"),
        # RFC 7541: one header of 4,000 bytes is indexed, and then referred to a hundred times.
        pytest.param(
            frame(
                HEADERS,
                header_block(CALL) + b"\x40\x01x\x7f" + b"\xa1\x1e" + b"y" * 4000 + b"\xbe" * 100,
                flags=END_HEADERS,
                stream=FAULTY,
            ),
            id="an HPACK bomb",
        ),
        pytest.param(IN_A_RESET_CALL, id="a bomb in a call that was reset"),
    ],
)
async def test_headers_that_cost_too_much_to_decode_end_the_connection(
    served: Serving, bystander: Connection, engine: Engine, octets: bytes
) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(octets)
        if engine is Engine.NGHTTP2 and octets == IN_A_RESET_CALL:
            # nghttp2 makes no strings of headers that it ignores, so they take no memory.
            await raw.in_order()
            assert raw.resets == {FAULTY: PROTOCOL}
        else:
            assert await raw.last_goaway() is ErrorCode.ENHANCE_YOUR_CALM


async def test_the_rejection_of_long_headers_waits_for_no_window(served: Serving) -> None:
    """The rejection has no body."""
    async with Connection.connect(
        served.port, automatic=False, greeting=PREFACE + frame(SETTINGS, struct.pack(">HI", 4, 0))
    ) as raw:
        raw.write(split(long_list(20 * 1024), end=True))
        assert (await answer(raw))[b"grpc-status"] == b"8"
