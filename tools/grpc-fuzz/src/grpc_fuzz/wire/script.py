"""The building blocks of wire scripts: header lists, length-prefixed messages, frames."""

import struct
from collections.abc import Mapping
from types import MappingProxyType

from grpc_fuzz.model import Case, Method, WireScript, WireStep

Fields = tuple[tuple[bytes, bytes], ...]

_PREFIX = struct.Struct(">BI")

# Every status that a service may choose for itself; the others tell of a server that has failed.
CHOSEN = frozenset(
    {
        *("OK", "CANCELLED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
        *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
        *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "UNAVAILABLE", "UNAUTHENTICATED"),
    }
)
# How a server may part from a peer that breaks HTTP/2 (RFC 9113, 5.4).
HTTP2_ERROR = frozenset({"GOAWAY", "RST_STREAM", "CLOSED", "INTERNAL", "UNAVAILABLE"})
# What cannot be parsed is INTERNAL, and no whole message is a wrong number of messages
# (statuscodes); PROTOCOL-HTTP2 lets a server reset a stream whose framing is corrupt.
CORRUPT = frozenset({"INTERNAL", "UNIMPLEMENTED", "RST_STREAM"})
# The highest field number there is, which hardly any message uses.
UNKNOWN_FIELD = 536_870_911
_NOTHING: Mapping[bytes, bytes | None] = MappingProxyType({})


def call_fields(
    method: Method, *more: tuple[bytes, bytes], replaced: Mapping[bytes, bytes | None] = _NOTHING
) -> Fields:
    """The header list of a sound call, or of one that is unsound in one place.

    Args:
        method: What is called.
        more: Fields to add at the end.
        replaced: Other values by the name of the field; None leaves the field out.
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
    """A Length-Prefixed-Message; a wrong one where asked."""
    return _PREFIX.pack(flag, len(message) if length is None else length) + message


def varint(value: int) -> bytes:
    """A varint of protobuf; the value is not negative."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def frame(kind: int, payload: bytes, *, flags: int = 0, stream_id: int = 0) -> bytes:
    """An HTTP/2 frame of any kind (RFC 9113, 4.1)."""
    header = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big")
    return header + payload


def headers(fields: Fields, *, end_stream: bool = False, frames: int = 1) -> WireStep:
    """The step that opens a stream."""
    return WireStep(action="headers", headers=fields, end_stream=end_stream, times=frames)


def data(payload: bytes, *, end_stream: bool = True) -> WireStep:
    """The step that sends DATA, and by default ends the stream."""
    return WireStep(action="data", payload=payload, end_stream=end_stream)


def raw(payload: bytes, times: int = 1) -> WireStep:
    """The step that writes to the socket as it is."""
    return WireStep(action="raw", payload=payload, times=times)


RESET = WireStep(action="reset")
HANG_UP = WireStep(action="hang_up")


def sound(method: Method, body: bytes) -> tuple[WireStep, ...]:
    """The steps of a sound call."""
    return (headers(call_fields(method)), data(body))


def wire_case(
    method: Method, description: str, *steps: WireStep, expected: frozenset[str] = CHOSEN
) -> Case:
    """A wire case.

    Args:
        method: What is called.
        description: What the case tries.
        steps: The script.
        expected: The outcomes that the documents allow; by default those of any sound call.

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
