"""Playing the script of a wire case."""

import base64
import contextlib
import time
from dataclasses import replace

from h2.exceptions import H2Error

from grpc_fuzz.model import Case, Limits, Metadata, Reply, WireStep
from grpc_fuzz.replies import decode_details
from grpc_fuzz.schema import Schema
from grpc_fuzz.target import Target
from grpc_fuzz.wire.connection import Connection, Headers


def play(
    case: Case, target: Target, limits: Limits, schema: Schema, metadata: Metadata = ()
) -> Reply:
    """Plays a wire case on a connection of its own.

    Args:
        case: A case that carries a script.
        target: The server.
        limits: How long to wait: `request_timeout` and `slack` together.
        schema: What the error details are decoded with.
        metadata: The run's own metadata, sent in every HEADERS frame after the script's fields.

    Returns:
        What came back for the stream that was opened last.
    """
    start = time.monotonic()
    try:
        connection = Connection(target, limits.request_timeout + limits.slack)
    except OSError as error:
        return Reply(
            status=None,
            seconds=time.monotonic() - start,
            transport_error=f"CLOSED: cannot connect: {error}",
        )
    extra = [_field(name, value) for name, value in (*metadata, *case.metadata)]
    with contextlib.closing(connection):
        connection.open()
        for step in case.wire.steps if case.wire is not None else ():
            # What the server has ended already is not gone on with; h2 would refuse to.
            with contextlib.suppress(H2Error):
                _take(connection, step, extra)
        connection.wait()
    reply = connection.exchange.reply(time.monotonic() - start)
    details, details_error = decode_details(reply.trailers, schema)
    return replace(reply, details=details, details_error=details_error)


def _take(connection: Connection, step: WireStep, extra: Headers) -> None:
    match step.action:
        case "headers":
            connection.open_stream(
                [*step.headers, *extra], end_stream=step.end_stream, frames=step.times
            )
        case "data":
            for _ in range(step.times):
                connection.send_data(step.payload, end_stream=step.end_stream)
        case "reset":
            connection.reset()
        case "raw":
            connection.send_raw(step.payload * step.times)
        case "storm":
            connection.storm([*step.headers, *extra], step.times)
        case "hang_up":
            connection.hang_up()


def _field(name: str, value: str | bytes) -> tuple[bytes, bytes]:
    if isinstance(value, bytes) or name.endswith("-bin"):
        octets = value if isinstance(value, bytes) else value.encode()
        return name.encode(), base64.b64encode(octets).rstrip(b"=")
    return name.encode(), value.encode()
