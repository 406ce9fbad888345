"""A minimal HTTP/2 connection that makes gRPC calls with prepared bytes.

A full client costs as much CPU time per call as a server. This one implements only what a load
requires, so it can send many times the load that a server can serve on the same machine.
"""

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from grpc import StatusCode  # type: ignore[import-untyped]  # grpcio ships no types
from hpack import Decoder
from hpack.hpack import encode_integer

# Called with the messages that arrived, or at the end of the call with its status.
Received = Callable[[Sequence[bytes], str | None], None]

# The status of a call whose connection ended or whose stream was reset.
LOST = "LOST"

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW_MAX = 2**31 - 1
_WINDOW_LOW = 2**30
_WINDOW_INITIAL = 65535  # RFC 9113, section 6.9.2
_FRAME_BYTES_MAX = 16384  # RFC 9113, section 6.5.2
_STREAMS_ASSUMED = 100
_FRAME = struct.Struct(">HBBBI")  # length (in two parts), type, flags, stream
_FRAME_BYTES = 9
_MESSAGE_PREFIX_BYTES = 5
_SETTING = struct.Struct(">HI")
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE = 3, 4
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


@dataclass(kw_only=True, slots=True)
class _Call:
    """A call in progress: the bytes that are not sent yet, and what has arrived."""

    received: Received
    window: int
    unsent: bytes
    arrived: bytearray = field(default_factory=bytearray)
    status: str = LOST


class CallConnection(asyncio.Protocol):
    """One connection; it calls a callback when messages have arrived and when a call has ended."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._decoder = Decoder()
        self._calls: dict[int, _Call] = {}
        self._next_stream = 1
        self._streams_max = _STREAMS_ASSUMED
        self._window = _WINDOW_INITIAL
        self._stream_window = _WINDOW_INITIAL
        self._granted = _WINDOW_MAX
        self._closed = False

    def has_room(self, size: int) -> bool:
        """Return whether the server now accepts another call with a message of `size` bytes.

        A message that needs more than one frame may begin as soon as one of them has room.
        """
        return (
            not self._closed
            and len(self._calls) < self._streams_max
            and self._window >= min(size, _FRAME_BYTES_MAX)
        )

    def call(self, block: bytes, data: bytes, received: Received) -> None:
        """Start a call.

        Args:
            block: The headers.
            data: The message with gRPC's prefix.
            received: Called with the messages that have arrived and None, or, once, with none and
                the name of the status (`LOST` if there is none).
        """
        stream = self._next_stream
        self._next_stream += 2
        call = _Call(received=received, window=self._stream_window, unsent=data)
        self._calls[stream] = call
        headers = _frame(_HEADERS, _END_HEADERS, stream, block)
        self._transport.write(headers + self._sendable(stream, call))

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface, and open the flow-control windows for the server."""
        self._transport = cast(asyncio.Transport, transport)
        window = _SETTING.pack(_INITIAL_WINDOW_SIZE, _WINDOW_MAX)
        self._transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, window))
        self._grant(_WINDOW_MAX - _WINDOW_INITIAL)

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
        if kind == _DATA:
            self._on_data(stream, payload)
            if flags & _END_STREAM:
                self._end(stream, LOST)
        elif kind == _HEADERS:
            self._on_headers(stream, payload)
            if flags & _END_STREAM:
                self._end(stream, None)
        elif kind == _RST_STREAM:
            self._end(stream, LOST)
        elif kind == _WINDOW_UPDATE:
            self._on_window(stream, int.from_bytes(payload, "big"))
        elif kind == _SETTINGS and not flags & _ACK:
            self._on_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            self._closed = True

    def _on_data(self, stream: int, payload: bytes) -> None:
        self._granted -= len(payload)
        if self._granted < _WINDOW_LOW:
            self._grant(_WINDOW_MAX - self._granted)
            self._granted = _WINDOW_MAX
        call = self._calls.get(stream)
        if call is None:
            return
        arrived = call.arrived
        arrived += payload
        begin = 0
        messages = []
        while len(arrived) - begin >= _MESSAGE_PREFIX_BYTES:
            size = int.from_bytes(arrived[begin + 1 : begin + _MESSAGE_PREFIX_BYTES], "big")
            if len(arrived) - begin < _MESSAGE_PREFIX_BYTES + size:
                break
            end = begin + _MESSAGE_PREFIX_BYTES + size
            messages.append(bytes(arrived[begin + _MESSAGE_PREFIX_BYTES : end]))
            begin = end
        del arrived[:begin]
        if messages:
            call.received(messages, None)

    def _on_headers(self, stream: int, payload: bytes) -> None:
        # Headers of an unknown stream are decoded too, because they change the decoder's state.
        for name, value in self._decoder.decode(payload):
            if str(name) == "grpc-status" and stream in self._calls:
                self._calls[stream].status = _STATUSES.get(str(value), "UNKNOWN")

    def _on_settings(self, payload: bytes) -> None:
        for identifier, value in _SETTING.iter_unpack(payload):
            if identifier == _MAX_CONCURRENT_STREAMS:
                self._streams_max = value
            elif identifier == _INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._stream_window
                self._stream_window = value
        self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        self.ready.set()

    def _on_window(self, stream: int, more: int) -> None:
        if stream == 0:
            self._window += more
            waiting = [stream for stream, call in self._calls.items() if call.unsent]
        else:
            if stream in self._calls:
                self._calls[stream].window += more
            waiting = [stream] if stream in self._calls else []
        for number in waiting:
            self._transport.write(self._sendable(number, self._calls[number]))

    def _sendable(self, stream: int, call: _Call) -> bytes:
        """Take what the windows allow from the unsent bytes of a call, as frames."""
        frames = b""
        while call.unsent:
            size = min(len(call.unsent), call.window, self._window, _FRAME_BYTES_MAX)
            if size <= 0:
                break
            part, call.unsent = call.unsent[:size], call.unsent[size:]
            call.window -= size
            self._window -= size
            frames += _frame(_DATA, 0 if call.unsent else _END_STREAM, stream, part)
        return frames

    def _grant(self, more: int) -> None:
        self._transport.write(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", more)))

    def _end(self, stream: int, status: str | None) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            call.received((), status or call.status)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload
