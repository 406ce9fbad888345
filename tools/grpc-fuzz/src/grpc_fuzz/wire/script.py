"""The building blocks of wire scripts: header lists, length-prefixed messages, frames."""

import base64
import struct
from collections.abc import Mapping
from types import MappingProxyType

from grpc_fuzz.model import Case, Method, WireScript, WireStep

Fields = tuple[tuple[bytes, bytes], ...]

_PREFIX = struct.Struct(">BI")

# Every status that a service may decide to return. The others mean that the server failed.
SERVICE_STATUSES = frozenset(
    {
        *("OK", "CANCELLED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
        *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
        *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "UNAVAILABLE", "UNAUTHENTICATED"),
    }
)
# How a server may react to a peer that violates HTTP/2 (RFC 9113, 5.4).
HTTP2_ERROR = frozenset({"GOAWAY", "RST_STREAM", "CLOSED", "INTERNAL", "UNAVAILABLE"})
# By statuscodes, a parse error is INTERNAL, and a missing message is a wrong number of messages.
# PROTOCOL-HTTP2 allows a server to reset a stream whose framing is corrupt.
CORRUPT = frozenset({"INTERNAL", "UNIMPLEMENTED", "RST_STREAM"})
# The highest field number, which hardly any message uses.
UNKNOWN_FIELD = 536_870_911
_NO_FIELDS: Mapping[bytes, bytes | None] = MappingProxyType({})


def call_fields(
    method: Method, *more: tuple[bytes, bytes], replaced: Mapping[bytes, bytes | None] = _NO_FIELDS
) -> Fields:
    """Return the header list of a valid call, or of one that is invalid in one place.

    Args:
        method: The method to call.
        more: The fields to add at the end.
        replaced: Other values by the name of the field; None omits the field.
    """
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": method.path.encode(),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    kept = {name: replaced.get(name, value) for name, value in fields.items()}
    present = ((name, value) for name, value in kept.items() if value is not None)
    return (*present, *more)


def prefixed(message: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Return a Length-Prefixed-Message, with a wrong flag or length if given."""
    return _PREFIX.pack(flag, len(message) if length is None else length) + message


def header_field(name: str, value: str | bytes) -> tuple[bytes, bytes]:
    """Return one entry of metadata as it is sent: `-bin` values in base64 without padding."""
    octets = value if isinstance(value, bytes) else value.encode()
    if name.endswith("-bin"):
        octets = base64.b64encode(octets).rstrip(b"=")
    return name.encode(), octets


def frame(kind: int, payload: bytes, *, flags: int = 0, stream_id: int = 0) -> bytes:
    """Return an HTTP/2 frame of any kind (RFC 9113, 4.1)."""
    header = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big")
    return header + payload


def headers(fields: Fields, *, end_stream: bool = False, frames: int = 1) -> WireStep:
    """Return the step that opens a stream."""
    return WireStep(action="headers", headers=fields, end_stream=end_stream, times=frames)


def data(payload: bytes, *, end_stream: bool = True) -> WireStep:
    """Return the step that sends DATA, and by default ends the stream."""
    return WireStep(action="data", payload=payload, end_stream=end_stream)


def raw(payload: bytes, times: int = 1) -> WireStep:
    """Return the step that writes bytes to the socket as they are."""
    return WireStep(action="raw", payload=payload, times=times)


RESET = WireStep(action="reset")
HANG_UP = WireStep(action="hang_up")


def valid_call(method: Method, body: bytes) -> tuple[WireStep, ...]:
    """Return the steps of a valid call."""
    return (headers(call_fields(method)), data(body))


def wire_case(
    method: Method, description: str, *steps: WireStep, expected: frozenset[str] = SERVICE_STATUSES
) -> Case:
    """Return a wire case.

    Args:
        method: The method to call.
        description: What the case tests.
        steps: The script.
        expected: The outcomes that the documents allow; by default those of any valid call.

    Returns:
        A case about the gRPC runtime: no method sees what it sends, or each sees the same.
    """
    return Case(
        method=method,
        phase="wire",
        positive=None,
        requests=(),
        description=description,
        wire=WireScript(steps=steps),
        expected=expected,
        about="runtime",
    )
