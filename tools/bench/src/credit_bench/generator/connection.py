"""A minimal HTTP/2 connection that makes unary gRPC calls with prepared bytes.

A full client costs as much CPU time per call as a server. This one implements only what a load
requires, so it can send many times the load that a server can serve on the same machine.
"""

import asyncio
import struct
from collections.abc import Callable, Mapping
from typing import cast

from grpc import StatusCode  # type: ignore[import-untyped]  # grpcio ships no types
from hpack import Decoder
from hpack.hpack import encode_integer

Ended = Callable[[str], None]

# The status of a call whose connection ended or whose stream was reset.
LOST = "LOST"

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW_MAX = 2**31 - 1
_WINDOW_INITIAL = 65535  # RFC 9113, section 6.9.2
_STREAMS_ASSUMED = 100
_FRAME = struct.Struct(">HBBBI")  # length (in two parts), type, flags, stream
_FRAME_BYTES = 9
_SETTING = struct.Struct(">HI")
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_MAX_CONCURRENT_STREAMS = 3
_STATUSES: Mapping[str, str] = {str(code.value[0]): code.name for code in StatusCode}


def header_block(path: str, authority: str, timeout: str) -> bytes:
    """Return the headers of a call as HPACK literals without indexing."""
    block = bytearray()
    for name, value in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", timeout),
    ):
        block += b"\x00"  # RFC 7541, section 6.2.2: without indexing, with a new name
        for text in (name, value):
            block += encode_integer(len(text), 7) + text.encode("ascii")
    return bytes(block)


def message_frame(message: bytes) -> bytes:
    """Return a message with gRPC's prefix."""
    return struct.pack(">BI", 0, len(message)) + message


class CallConnection(asyncio.Protocol):
    """One connection; it calls a callback when a call has ended."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._decoder = Decoder()
        self._calls: dict[int, Ended] = {}
        self._statuses: dict[int, str] = {}
        self._next_stream = 1
        self._streams_max = _STREAMS_ASSUMED
        self._window = _WINDOW_INITIAL
        self._closed = False

    def has_room(self, size: int) -> bool:
        """Return whether the server now accepts another call with a message of `size` bytes."""
        return not self._closed and len(self._calls) < self._streams_max and self._window >= size

    def call(self, block: bytes, data: bytes, ended: Ended) -> None:
        """Start a call.

        Args:
            block: The headers.
            data: The message with gRPC's prefix.
            ended: Called with the name of the status, or `LOST`.
        """
        stream = self._next_stream
        self._next_stream += 2
        self._calls[stream] = ended
        self._window -= len(data)
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, stream, block) + _frame(_DATA, _END_STREAM, stream, data)
        )

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface, and open the flow-control window for the server."""
        self._transport = cast(asyncio.Transport, transport)
        more = struct.pack(">I", _WINDOW_MAX - _WINDOW_INITIAL)
        self._transport.write(
            _PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_WINDOW_UPDATE, 0, 0, more)
        )

    def data_received(self, data: bytes) -> None:
        """Handle all complete frames."""
        received = self._received
        received += data
        begin = 0
        while len(received) - begin >= _FRAME_BYTES:
            high, low, kind, flags, stream = _FRAME.unpack_from(received, begin)
            end = begin + _FRAME_BYTES + (high << 8 | low)
            if len(received) < end:
                break
            self._handle(kind, flags, stream, bytes(received[begin + _FRAME_BYTES : end]))
            begin = end
        del received[:begin]

    def connection_lost(self, error: Exception | None) -> None:
        """End all calls."""
        self._closed = True
        self.ready.set()
        for stream in list(self._calls):
            self._end(stream, LOST)

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS:
            for name, value in self._decoder.decode(payload):
                if str(name) == "grpc-status":
                    self._statuses[stream] = _STATUSES.get(str(value), "UNKNOWN")
            if flags & _END_STREAM:
                self._end(stream, self._statuses.get(stream, LOST))
        elif kind == _RST_STREAM:
            self._end(stream, LOST)
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == _SETTINGS and not flags & _ACK:
            for identifier, value in _SETTING.iter_unpack(payload):
                if identifier == _MAX_CONCURRENT_STREAMS:
                    self._streams_max = value
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
            self.ready.set()
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            self._closed = True

    def _end(self, stream: int, status: str) -> None:
        self._statuses.pop(stream, None)
        ended = self._calls.pop(stream, None)
        if ended is not None:
            ended(status)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload
