"""What a raw connection has received, event by event."""

import base64
import binascii
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from grpc_fuzz.model import Metadata, Reply

# The status codes of https://grpc.github.io/grpc/core/md_doc_statuscodes.html.
STATUS_NAMES: dict[int, str] = dict(
    enumerate(
        (
            *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
            *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
            *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
            "UNAUTHENTICATED",
        )
    )
)
# The payload of the PING that checks whether the connection is alive. A script may send others.
LIVENESS_PING = b"grpcfuzz"
_PREFIX = struct.Struct(">BI")


@dataclass(kw_only=True, slots=True)
class Exchange:
    """One call on a raw connection, with what has been received so far.

    Attributes:
        headers: The headers of the response, and the trailers of a trailers-only response.
        trailers: The trailers of the response.
        data: The concatenated DATA frames.
        problem: Why the exchange ended without a status: an outcome, followed by details.
        ended: Whether the exchange is complete.
        connection_over: Whether the connection accepts no further streams.
    """

    headers: list[tuple[str, str]] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    problem: str | None = None
    ended: bool = False
    connection_over: bool = False

    def add(self, event: Event, stream_id: int) -> None:
        """Add one event, if it belongs to the stream or to the whole connection."""
        match event:
            case ConnectionTerminated():
                # A server may finish the stream after a graceful GOAWAY, but h2 reads no more.
                self.problem = self.problem or f"GOAWAY {_error_name(event.error_code)}"
                self.ended = self.connection_over = True
            case PingAckReceived(ping_data=octets) if octets == LIVENESS_PING:
                self.problem, self.ended = "ALIVE after the call was cancelled", True
            case StreamReset(stream_id=number) if number == stream_id:
                self.problem, self.ended = f"RST_STREAM {_error_name(event.error_code)}", True
            case StreamEnded(stream_id=number) if number == stream_id:
                self.ended = True
            case ResponseReceived(stream_id=number) if number == stream_id:
                self.headers.extend(_text(event.headers))
            case TrailersReceived(stream_id=number) if number == stream_id:
                self.trailers.extend(_text(event.headers))
            case DataReceived(stream_id=number) if number == stream_id:
                self.data.extend(event.data)

    def close(self, outcome: str) -> None:
        """End the exchange because the connection is closed, or because its time is over."""
        if self.problem is None:
            self.problem = outcome
        self.ended = self.connection_over = True

    def reply(self, seconds: float) -> Reply:
        """Return what was received as a reply, without the error details."""
        http_status = dict(self.headers).get(":status")
        # In a trailers-only response the one HEADERS frame holds both.
        trailers = self.trailers or self.headers
        code = dict(trailers).get("grpc-status")
        # A plain HTTP response may also carry a gRPC status. The HTTP status decides.
        status = _status_name(code) if http_status in {None, "200"} else None
        return Reply(
            status=status,
            message=unquote(dict(trailers).get("grpc-message", "")),
            initial_metadata=_metadata(self.headers),
            trailers=_metadata(trailers),
            responses=tuple(_messages(bytes(self.data))),
            seconds=seconds,
            transport_error=None if status is not None else self._why(http_status, code),
        )

    def _why(self, http_status: str | None, code: str | None) -> str:
        if http_status not in {None, "200"}:
            return f"HTTP_{http_status}"
        if self.problem is not None:
            return self.problem
        if code is not None:
            return f"NO_REPLY: grpc-status is {code!r}"
        return "NO_REPLY: the stream ended without grpc-status"


def _status_name(code: str | None) -> str | None:
    if code is None or not code.isascii() or not code.isdecimal():
        return None
    return STATUS_NAMES.get(int(code))


def _error_name(code: ErrorCodes | int | None) -> str:
    return code.name if isinstance(code, ErrorCodes) else str(code)


def _text(headers: Iterable[tuple[bytes | str, bytes | str]]) -> list[tuple[str, str]]:
    return [(_decode(name), _decode(value)) for name, value in headers]


def _decode(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _metadata(fields: Iterable[tuple[str, str]]) -> Metadata:
    return tuple(
        (name, _binary(value) if name.endswith("-bin") else value)
        for name, value in fields
        if not name.startswith(":")
    )


def _binary(value: str) -> bytes | str:
    """Return the bytes of a `-bin` value, or the value itself if it is not base64."""
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        return value


def _messages(data: bytes) -> Iterable[bytes]:
    """Yield the complete messages, up to the first one that is compressed or truncated."""
    while len(data) >= _PREFIX.size:
        flag, length = _PREFIX.unpack_from(data)
        message = data[_PREFIX.size : _PREFIX.size + length]
        if len(message) < length or flag:
            return
        yield message
        data = data[_PREFIX.size + length :]
