"""One sound call on an open connection."""

import base64
from collections.abc import Iterable

from grpc_fuzz.model import Metadata
from grpc_fuzz.target import Target
from grpc_fuzz.wire.connection import Connection
from grpc_fuzz.wire.script import prefixed

Fields = list[tuple[bytes, bytes]]


def call(
    connection: Connection, path: str, fields: Fields, requests: Iterable[bytes], seconds: float
) -> None:
    """Makes a call, and waits for its end; the connection's exchange then tells what came back.

    Args:
        connection: An open one, with no call on it.
        path: "/package.Service/Method".
        fields: The header list without `:path`.
        requests: The serialized messages.
        seconds: How long to wait.
    """
    connection.renew(seconds)
    connection.open_stream([(b":path", path.encode()), *fields], end_stream=False)
    body = b"".join(prefixed(request) for request in requests)
    connection.send_data(body, end_stream=True)
    connection.wait()


def header_fields(target: Target, metadata: Metadata, timeout: float) -> Fields:
    """The header list of a sound call, without `:path`.

    Args:
        target: The server.
        metadata: What the caller adds.
        timeout: The deadline of the call, in seconds.
    """
    return [
        (b":method", b"POST"),
        (b":scheme", b"http" if target.tls is None else b"https"),
        (b":authority", target.authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"grpc-fuzz"),
        # PROTOCOL-HTTP2 allows eight digits; a millisecond at the least, as 0 has run out already.
        (b"grpc-timeout", b"%dm" % min(max(round(timeout * 1000), 1), 99_999_999)),
        *(header_field(name, value) for name, value in metadata),
    ]


def header_field(name: str, value: str | bytes) -> tuple[bytes, bytes]:
    """One entry of metadata as it travels: `-bin` values in base64 without padding."""
    octets = value if isinstance(value, bytes) else value.encode()
    if name.endswith("-bin"):
        octets = base64.b64encode(octets).rstrip(b"=")
    return name.encode(), octets
