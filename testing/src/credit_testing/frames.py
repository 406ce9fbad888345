"""Make HTTP/2 frames by hand, also those that no library sends."""

import struct
from collections.abc import Iterable
from enum import IntEnum, IntFlag

from hpack.hpack import encode_integer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What every server accepts by default: RFC 9113, section 6.5.2.
MAX_FRAME_SIZE = 16_384

Header = tuple[str | bytes, str | bytes]


class Kind(IntEnum):
    """The types of frames: RFC 9113, section 6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntFlag):
    """The flags that are used here."""

    NONE = 0
    ACK = 1
    END_STREAM = 1
    END_HEADERS = 4


# For tables of frames, which would not fit their lines otherwise.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = Kind
ACK, END_STREAM, END_HEADERS = Flag.ACK, Flag.END_STREAM, Flag.END_HEADERS


class Setting(IntEnum):
    """The settings that are used here: RFC 9113, section 6.5.2."""

    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4


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
    """Make a HEADERS frame."""
    return frame(Kind.HEADERS, block, stream=stream, flags=flags)


def data(stream: int, payload: bytes, flags: int = Flag.NONE) -> bytes:
    """Make DATA frames, as many as the payload needs."""
    pieces = [payload[at : at + MAX_FRAME_SIZE] for at in range(0, len(payload), MAX_FRAME_SIZE)]
    *first, last = pieces or [b""]
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


def _string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return bytes(encode_integer(len(raw), 7)) + raw
