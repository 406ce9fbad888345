"""One gRPC call made by hand, header by header: what client libraries hide or will not send."""

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

_SILENCE_SECONDS_MAX = 30.0
_STREAM_ID = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Http2Answer:
    """What came back.

    Attributes:
        headers: The headers that began the answer.
        trailers: Those that ended it; empty for an answer of headers alone.
        data: What was between them.
    """

    headers: Mapping[str, str]
    trailers: Mapping[str, str]
    data: bytes


def http2_call(
    address: str, path: str, message: bytes, *, compressed: bool = False, **headers: str
) -> Http2Answer:
    """Send a request with one message and return the whole answer.

    Args:
        address: The server's host:port.
        path: The call's `:path`.
        message: The message as it goes over the wire.
        compressed: The flag before the message.
        headers: Further headers; `_` in a name stands for `-`.

    Raises:
        TimeoutError: The server stays silent.
    """
    host, _, port = address.rpartition(":")
    connection = H2Connection(H2Configuration(header_encoding="utf-8"))
    with socket.create_connection((host, int(port)), _SILENCE_SECONDS_MAX) as peer:
        connection.initiate_connection()
        connection.send_headers(_STREAM_ID, _headers(address, path, headers))
        frame = struct.pack(">BI", compressed, len(message)) + message
        connection.send_data(_STREAM_ID, frame, end_stream=True)
        peer.sendall(connection.data_to_send())
        return _answer(connection, peer)


def _headers(address: str, path: str, more: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", address),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *((name.replace("_", "-"), value) for name, value in more.items()),
    ]


def _answer(connection: H2Connection, peer: socket.socket) -> Http2Answer:
    headers: dict[str, str] = {}
    trailers: dict[str, str] = {}
    data = b""
    while received := peer.recv(65536):
        for event in connection.receive_data(received):
            match event:
                case ResponseReceived():
                    headers = _text(event.headers)
                case TrailersReceived():
                    trailers = _text(event.headers)
                case DataReceived():
                    data += event.data or b""
                case StreamEnded():
                    return Http2Answer(headers=headers, trailers=trailers, data=data)
                case StreamReset() | ConnectionTerminated():
                    raise ConnectionError(f"the server gave the call up: {event}")
                case _:  # settings and the like
                    pass
        peer.sendall(connection.data_to_send())
    raise ConnectionError("the server closed the connection")


def _text(headers: object) -> dict[str, str]:
    assert isinstance(headers, list)
    return {str(name): str(value) for name, value in headers}
