"""A raw HTTP/2 connection that also sends what is invalid."""

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived
from h2.exceptions import ProtocolError
from hpack import Encoder

from grpc_fuzz.target import Target, Tls
from grpc_fuzz.wire.exchange import LIVENESS_PING, Exchange

_READ_BYTES_MAX = 65536
_FRAME_HEADER_BYTES = 9
_CONTINUATION = 0x9
_END_HEADERS = 0x4

# hpack's Huffman coder takes quadratic time: 0.25 s for a value of 64 KiB (2-core machine).
_HUFFMAN_BYTES_MAX = 4096

Headers = Sequence[tuple[bytes, bytes]]


class Connection:
    """One connection to the server under test. Threads must not share it.

    Args:
        target: The server.
        seconds: The limit on the time of connecting, and then of the whole exchange.

    Raises:
        OSError: The server cannot be reached.
    """

    def __init__(self, target: Target, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._socket = connect(target, seconds)
        self._http = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._http.encoder = _Encoder()
        self._stream_id = -1
        self._reset = False
        self._unread = b""
        self.exchange = Exchange()

    def open(self) -> None:
        """Send the connection preface, and wait for the server's settings."""
        self._http.initiate_connection()
        self._flush()
        self._receive_once()

    def restart_deadline(self, seconds: float) -> None:
        """Set the limit on the time of the next exchange, in seconds."""
        self._deadline = time.monotonic() + seconds

    def close(self) -> None:
        """Close the socket without a GOAWAY."""
        self._socket.close()

    def open_stream(self, headers: Headers, *, end_stream: bool, frames: int = 1) -> None:
        """Send a header list on the next stream, in one HEADERS frame or split into several."""
        if self.exchange.connection_over:
            return
        self._stream_id += 2
        self._reset = False
        self.exchange = Exchange()
        self._http.send_headers(self._stream_id, list(headers), end_stream=end_stream)
        encoded = self._http.data_to_send()
        self._send(encoded if frames == 1 else split_headers(encoded, frames))

    def send_data(self, data: bytes, *, end_stream: bool) -> None:
        """Send DATA frames as flow control allows, until the server has answered."""
        while not self.exchange.ended:
            room = min(
                self._http.local_flow_control_window(self._stream_id),
                self._http.max_outbound_frame_size,
            )
            if room <= 0:
                self._receive_once()
                continue
            part, data = data[:room], data[room:]
            self._http.send_data(self._stream_id, part, end_stream=end_stream and not data)
            self._flush()
            if not data:
                return

    def reset(self) -> None:
        """Cancel the call."""
        if not self.exchange.ended:
            self._http.reset_stream(self._stream_id, ErrorCodes.CANCEL)
            self._flush()
        self._reset = True

    def storm(self, headers: Headers, times: int) -> None:
        """Open streams, and reset each at once."""
        for _ in range(times):
            self.open_stream(headers, end_stream=False)
            self.reset()
            self._receive_ready()

    def send_raw(self, payload: bytes) -> None:
        """Write bytes to the socket as they are."""
        self._send(payload)

    def hang_up(self) -> None:
        """Close the client's side of the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def wait(self) -> None:
        """Wait for the end of the exchange, or for the answer to a PING after a reset."""
        if self._reset and not self.exchange.ended:
            self.exchange = Exchange()
            self._http.ping(LIVENESS_PING)
            self._flush()
        while not self.exchange.ended:
            self._receive_once()

    def _flush(self) -> None:
        self._send(self._http.data_to_send())

    def _send(self, data: bytes) -> None:
        if not data or self.exchange.connection_over:
            return
        try:
            self._socket.settimeout(self._time_left())
            self._socket.sendall(data)
        except OSError:
            # The server may have sent a reason before it closed the connection.
            self._drain()

    def _drain(self) -> None:
        while not self.exchange.ended:
            self._receive_once()

    def _receive_once(self) -> None:
        try:
            self._socket.settimeout(self._time_left())
            data = self._socket.recv(_READ_BYTES_MAX)
        except TimeoutError:
            self.exchange.close("NO_REPLY in time")
            return
        except OSError as error:
            self.exchange.close(f"CLOSED {type(error).__name__}")
            return
        if not data:
            self.exchange.close("CLOSED")
            return
        self._process(data)

    def _receive_ready(self) -> None:
        """Process what has been received, because the server may have ended the connection."""
        while not self.exchange.connection_over and select.select([self._socket], [], [], 0)[0]:
            self._receive_once()

    def _process(self, data: bytes) -> None:
        """Pass frames to h2 one at a time, because h2 drops what it received with a GOAWAY."""
        self._unread += data
        while (length := _frame_length(self._unread)) is not None:
            octets, self._unread = self._unread[:length], self._unread[length:]
            if not self.exchange.connection_over:
                self._process_frame(octets)
        self._flush()

    def _process_frame(self, octets: bytes) -> None:
        try:
            events = self._http.receive_data(octets)
        except ProtocolError as error:
            self.exchange.close(f"NO_REPLY: the server broke HTTP/2: {error}")
            return
        for event in events:
            if isinstance(event, DataReceived) and event.flow_controlled_length:
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.exchange.add(event, self._stream_id)

    def _time_left(self) -> float:
        # A timeout of zero would make the socket non-blocking.
        return max(self._deadline - time.monotonic(), 0.001)


class _Encoder(Encoder):
    """HPACK that sends long header lists without Huffman coding."""

    # Any: hpack's own type of a header list, which it does not export.
    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        size = sum(len(value) for _, value in headers)
        return super().encode(headers, huffman and size <= _HUFFMAN_BYTES_MAX)


def _frame_length(data: bytes) -> int | None:
    """Return the length of the first frame with its header, or None if it is incomplete."""
    length = _FRAME_HEADER_BYTES + int.from_bytes(data[:3], "big")
    return length if len(data) >= max(length, _FRAME_HEADER_BYTES) else None


def split_headers(frame: bytes, frames: int) -> bytes:
    """Split an encoded HEADERS frame into one HEADERS frame and CONTINUATION frames."""
    flags, stream = frame[4], frame[5:_FRAME_HEADER_BYTES]
    block = frame[_FRAME_HEADER_BYTES:]
    size = max(-(-len(block) // frames), 1)
    parts = [block[start : start + size] for start in range(0, len(block), size)]
    split = bytearray()
    for index, part in enumerate(parts):
        kind = frame[3] if index == 0 else _CONTINUATION
        kept = flags & ~_END_HEADERS if index == 0 else 0
        ends = _END_HEADERS if index == len(parts) - 1 else 0
        split += len(part).to_bytes(3, "big") + bytes((kind, kept | ends)) + stream + part
    return bytes(split)


def connect(target: Target, seconds: float) -> socket.socket:
    """Open a connection, with TLS if the target has TLS settings.

    Args:
        target: The server.
        seconds: The limit on the time of connecting, and then of each socket operation.

    Raises:
        OSError: The server cannot be reached, or the TLS handshake fails.
    """
    raw = _connect_raw(target, seconds)
    if target.tls is None:
        return raw
    name = target.tls.server_name or target.host
    try:
        return _tls_context(target.tls).wrap_socket(raw, server_hostname=name)
    except OSError:
        raw.close()
        raise


def _connect_raw(target: Target, seconds: float) -> socket.socket:
    if target.socket is None:
        raw = socket.create_connection((target.host, target.port), timeout=seconds)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return raw
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(seconds)
    try:
        raw.connect(target.socket)
    except OSError:
        raw.close()
        raise
    return raw


def _tls_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    context.set_alpn_protocols(["h2"])
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context
