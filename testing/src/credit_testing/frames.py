"""Make HTTP/2 frames, including frames that no library sends, and read any frame."""

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

from hpack.hpack import encode_integer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What every server accepts by default: RFC 9113, section 6.5.2.
MAX_FRAME_SIZE = 16_384

# The window of a connection, and the default one of a stream: RFC 9113, section 6.9.2.
WINDOW_BYTES = 65_535
WINDOW_BYTES_MAX = 2**31 - 1

Header = tuple[str | bytes, str | bytes]

_HEAD = struct.Struct(">HBBBI")


class Kind(IntEnum):
    """The types of frames: RFC 9113, section 6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntFlag):
    """The flags of frames: RFC 9113, section 6."""

    NONE = 0
    ACK = 1
    END_STREAM = 1
    END_HEADERS = 4
    PADDED = 8
    PRIORITY = 0x20


# For tables of frames, which would not fit their lines otherwise.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = tuple(Kind)[:6]
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = tuple(Kind)[6:]
ACK, END_STREAM, END_HEADERS = Flag.ACK, Flag.END_STREAM, Flag.END_HEADERS


class Setting(IntEnum):
    """The settings that are used here: RFC 9113, section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4


class ErrorCode(IntEnum):
    """The codes of RST_STREAM and GOAWAY: RFC 9113, section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def error_code(number: int) -> ErrorCode | int:
    """Return an error code, or the number if RFC 9113 does not define it."""
    return ErrorCode(number) if number in set(ErrorCode) else number


def code_name(number: int) -> str:
    """Return the name of an error code."""
    code = error_code(number)
    return code.name if isinstance(code, ErrorCode) else f"code {code}"


class Frame(NamedTuple):
    """A received frame. Its type and flags are numbers, because a frame may have any."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def content(self) -> bytes:
        """Return the payload of DATA or HEADERS without padding and priority.

        Raises:
            ValueError: The padding is longer than the payload.
        """
        payload = self.payload
        if self.flags & Flag.PADDED:
            if len(payload) <= payload[0]:
                raise ValueError("more padding than payload")
            payload = payload[1 : len(payload) - payload[0]]
        if self.kind == Kind.HEADERS and self.flags & Flag.PRIORITY:
            payload = payload[5:]
        return payload

    @property
    def last_stream_id(self) -> int:
        """Return the last stream id of a GOAWAY."""
        return int.from_bytes(self.payload[:4])


def take_frames(buffer: bytearray) -> Iterator[Frame]:
    """Remove the complete frames from the start of a buffer, and yield them."""
    at = 0
    try:
        while len(buffer) - at >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(buffer, at)
            begin = at + _HEAD.size
            end = begin + (high << 8 | low)
            if end > len(buffer):
                break
            at = end
            # The highest bit of the stream id is reserved: RFC 9113, section 4.1.
            yield Frame(kind, flags, stream & 0x7FFF_FFFF, bytes(buffer[begin:end]))
    finally:
        del buffer[:at]


def frame(
    kind: int, payload: bytes = b"", *, stream: int = 0, flags: int = Flag.NONE, length: int = -1
) -> bytes:
    """Make one frame.

    Args:
        kind: Its type; any number, not only those of `Kind`.
        payload: What it holds.
        stream: Its stream; 0 is the connection.
        flags: Its flags.
        length: The length in its head; -1 for the true one.
    """
    declared = len(payload) if length < 0 else length
    return struct.pack(">I", declared)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(*values: tuple[int, int]) -> bytes:
    """Make a SETTINGS frame."""
    return frame(Kind.SETTINGS, b"".join(struct.pack(">HI", *value) for value in values))


# The SETTINGS of a client that keeps all defaults.
SETTINGS_FRAME = settings()


def headers(stream: int, block: bytes, flags: int = Flag.END_HEADERS) -> bytes:
    """Make a HEADERS frame, and as many CONTINUATION frames as the block needs."""
    first, *more = _pieces(block)
    if not more:
        return frame(Kind.HEADERS, first, stream=stream, flags=flags)
    *between, last = more
    return b"".join(
        [
            frame(Kind.HEADERS, first, stream=stream, flags=flags & ~Flag.END_HEADERS),
            *(frame(Kind.CONTINUATION, piece, stream=stream) for piece in between),
            frame(Kind.CONTINUATION, last, stream=stream, flags=flags & Flag.END_HEADERS),
        ]
    )


def data(stream: int, payload: bytes, flags: int = Flag.NONE) -> bytes:
    """Make DATA frames, as many as the payload needs."""
    *first, last = _pieces(payload)
    return b"".join(frame(Kind.DATA, piece, stream=stream) for piece in first) + frame(
        Kind.DATA, last, stream=stream, flags=flags
    )


def reset(stream: int, code: int) -> bytes:
    """Make a RST_STREAM frame."""
    return frame(Kind.RST_STREAM, struct.pack(">I", code), stream=stream)


def window_update(increment: int, *, stream: int = 0) -> bytes:
    """Make a WINDOW_UPDATE frame, whether or not the increment is one that RFC 9113 allows."""
    return frame(Kind.WINDOW_UPDATE, struct.pack(">I", increment), stream=stream)


def priority(stream: int, depends_on: int) -> bytes:
    """Make a PRIORITY frame."""
    return frame(Kind.PRIORITY, struct.pack(">IB", depends_on, 15), stream=stream)


def header_block(fields: Iterable[Header]) -> bytes:
    """Write headers as HPACK literals without indexing.

    The block fits every stream: neither side stores any of it.
    """
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields)


def remembered(name: str, value: str) -> bytes:
    """Write a header as a literal that the other side stores: RFC 7541, section 6.2.1."""
    return b"\x40" + _string(name) + _string(value)


def octets(text: str | bytes) -> bytes:
    """Encode text; return bytes unchanged."""
    return text.encode() if isinstance(text, str) else text


def _pieces(payload: bytes) -> list[bytes]:
    starts = range(0, max(1, len(payload)), MAX_FRAME_SIZE)
    return [payload[at : at + MAX_FRAME_SIZE] for at in starts]


def _string(text: str | bytes) -> bytes:
    raw = octets(text)
    return bytes(encode_integer(len(raw), 7)) + raw
