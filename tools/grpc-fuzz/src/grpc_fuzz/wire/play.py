"""The player of a wire case's script."""

import contextlib
import time

from h2.exceptions import H2Error

from grpc_fuzz.model import Case, Limits, Metadata, Reply, WireStep
from grpc_fuzz.replies import with_details
from grpc_fuzz.schema import Schema
from grpc_fuzz.target import Target
from grpc_fuzz.wire.connection import Connection, Headers
from grpc_fuzz.wire.script import header_field


def play(
    case: Case, target: Target, limits: Limits, schema: Schema, metadata: Metadata = ()
) -> Reply:
    """Play a wire case on a connection of its own.

    Args:
        case: A case with a script.
        target: The server.
        limits: The sum of `request_timeout` and `slack` limits the time of the whole script.
        schema: The contract, which decodes the error details.
        metadata: The metadata of the run, which every HEADERS frame sends after its own fields.

    Returns:
        The reply on the stream that was opened last.
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
    extra = [header_field(name, value) for name, value in (*metadata, *case.metadata)]
    with contextlib.closing(connection):
        connection.open()
        for step in case.wire.steps if case.wire is not None else ():
            # h2 raises an error for a stream that the server has ended.
            with contextlib.suppress(H2Error):
                _run_step(connection, step, extra)
        connection.wait()
    return with_details(connection.exchange.reply(time.monotonic() - start), schema)


def _run_step(connection: Connection, step: WireStep, extra: Headers) -> None:
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
