"""What has come back on a raw connection, event by event."""

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
from grpc_fuzz.status import STATUS_NAMES

# What the PING carries that asks for a sign of life; a script may send others.
LIFE_SIGN = b"grpcfuzz"
_PREFIX = struct.Struct(">BI")


@dataclass(kw_only=True, slots=True)
class Exchange:
    """One call on a raw connection, as far as it has come.

    Attributes:
        headers: The response's headers; of a trailers-only response, the trailers too.
        trailers: The response's trailers.
        data: The concatenated DATA frames.
        trouble: Why the exchange is over without a status: an outcome and, after it, details.
        ended: Whether nothing more is waited for.
        connection_over: Whether the connection takes no further streams.
    """

    headers: list[tuple[str, str]] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    trouble: str | None = None
    ended: bool = False
    connection_over: bool = False

    def take(self, event: Event, stream_id: int) -> None:
        """Notes one event, where it belongs to the stream or to the whole connection."""
        match event:
            case ConnectionTerminated():
                # A graceful GOAWAY would let the stream finish, but h2 reads nothing after it.
                self.trouble = self.trouble or f"GOAWAY {_error_name(event.error_code)}"
                self.ended = self.connection_over = True
            case PingAckReceived(ping_data=octets) if octets == LIFE_SIGN:
                self.trouble, self.ended = "ALIVE after the call was cancelled", True
            case StreamReset(stream_id=number) if number == stream_id:
                self.trouble, self.ended = f"RST_STREAM {_error_name(event.error_code)}", True
            case StreamEnded(stream_id=number) if number == stream_id:
                self.ended = True
            case ResponseReceived(stream_id=number) if number == stream_id:
                self.headers.extend(_text(event.headers))
            case TrailersReceived(stream_id=number) if number == stream_id:
                self.trailers.extend(_text(event.headers))
            case DataReceived(stream_id=number) if number == stream_id:
                self.data.extend(event.data)

    def close(self, outcome: str) -> None:
        """Ends the exchange from outside: the connection is gone, or time is up."""
        if self.trouble is None:
            self.trouble = outcome
        self.ended = self.connection_over = True

    def reply(self, seconds: float) -> Reply:
        """Puts what came into a reply, without the error details."""
        http_status = dict(self.headers).get(":status")
        # Trailers-only: the one HEADERS frame is both.
        trailers = self.trailers or self.headers
        code = dict(trailers).get("grpc-status")
        # An answer in HTTP may carry a status for gRPC's clients too; what decides is HTTP's.
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
        if self.trouble is not None:
            return self.trouble
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
    """The bytes of a `-bin` value, or the value itself where it is not base64."""
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        return value


def _messages(data: bytes) -> Iterable[bytes]:
    """The whole messages; compressed ones and a broken rest are left out."""
    while len(data) >= _PREFIX.size:
        flag, length = _PREFIX.unpack_from(data)
        message = data[_PREFIX.size : _PREFIX.size + length]
        if len(message) < length or flag:
            return
        yield message
        data = data[_PREFIX.size + length :]
