"""Ordinary calls on connections that stay open.

The client uses no gRPC library: such a library invents a status (DEADLINE_EXCEEDED, UNAVAILABLE,
INTERNAL) if the server sent none, and grpc-fuzz must find out whether the server sent one.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable

from grpc_fuzz.model import Case, Limits, Metadata, Presented, Reply
from grpc_fuzz.replies import with_details
from grpc_fuzz.schema import Schema
from grpc_fuzz.target import Target
from grpc_fuzz.wire.connection import Connection
from grpc_fuzz.wire.script import header_field, prefixed

Fields = list[tuple[bytes, bytes]]

HEALTH_METHOD = "/grpc.health.v1.Health/Check"
# Field 1 (status) of grpc.health.v1.HealthCheckResponse, varint 2: NOT_SERVING.
_NOT_SERVING = b"\x08\x02"
# How a connection ends that the server closes between two calls.
_CLOSED_BETWEEN_CALLS = frozenset({"GOAWAY", "CLOSED"})


class _Channel:
    """A connection that is opened on first use, and opened again when it is lost."""

    def __init__(self, target: Target, seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        self._connection: Connection | None = None

    def call(self, path: str, fields: Fields, requests: tuple[bytes, ...]) -> Reply:
        """Make a call, and retry it once if the server had closed the connection before it."""
        was_open = self._is_open()
        reply = self._try(path, fields, requests)
        if was_open and reply.outcome in _CLOSED_BETWEEN_CALLS and not reply.responses:
            reply = self._try(path, fields, requests)
        return reply

    def close(self) -> None:
        """Close the connection. The next call opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _is_open(self) -> bool:
        return self._connection is not None and not self._connection.exchange.connection_over

    def _try(self, path: str, fields: Fields, requests: tuple[bytes, ...]) -> Reply:
        start = time.monotonic()
        try:
            connection = self._opened()
        except OSError as error:
            why = f"CLOSED: cannot connect: {error.strerror or error}"
            return Reply(status=None, transport_error=why, seconds=time.monotonic() - start)
        call(connection, path, fields, requests, self._seconds)
        return connection.exchange.reply(time.monotonic() - start)

    def _opened(self) -> Connection:
        if self._connection is None or self._connection.exchange.connection_over:
            self.close()
            self._connection = Connection(self._target, self._seconds)
            self._connection.open()
        return self._connection


class Client:
    """Makes ordinary calls to one server. Threads may share it, and each has its own connections.

    Args:
        target: The server.
        schema: The contract, which decodes the error details.
        limits: The limits on the time of a reply.
        metadata_of: Returns the metadata of every call, by the kind of its credentials.
    """

    def __init__(
        self,
        target: Target,
        schema: Schema,
        limits: Limits,
        metadata_of: Callable[[Presented], Metadata] = lambda presented: (),
    ) -> None:
        self._target = target
        self._schema = schema
        self._limits = limits
        self._metadata_of = metadata_of
        self._channels: list[_Channel] = []
        self._of_thread = threading.local()

    def close(self) -> None:
        """Close all connections."""
        for channel in self._channels:
            with contextlib.suppress(OSError):
                channel.close()

    def healthy(self) -> bool:
        """Return whether the server passes a health check."""
        return self.health_problem() is None

    def health_problem(self) -> str | None:
        """Return why the server fails a health check, or None if it passes.

        The check has a connection of its own. Any status passes, UNIMPLEMENTED too: only a server
        that reports NOT_SERVING itself, or sends no status, fails.
        """
        fields = header_fields(
            self._target, self._metadata_of("valid"), self._limits.request_timeout
        )
        reply = self._channel("health checks").call(HEALTH_METHOD, fields, (b"",))
        if reply.status is None:
            return f"the health check got no status: {reply.transport_error}"
        return "it reports NOT_SERVING" if reply.responses == (_NOT_SERVING,) else None

    def send(self, case: Case) -> Reply:
        """Make the call of a case, and wait until its end or until the deadline and its slack."""
        metadata = (*self._metadata_of(case.presented), *case.metadata)
        fields = header_fields(self._target, metadata, self._limits.request_timeout)
        reply = self._channel("calls").call(case.method.path, fields, case.requests)
        return with_details(reply, self._schema)

    def _channel(self, purpose: str) -> _Channel:
        channel: _Channel | None = getattr(self._of_thread, purpose, None)
        if channel is None:
            channel = _Channel(self._target, self._limits.request_timeout + self._limits.slack)
            setattr(self._of_thread, purpose, channel)
            # Appending is atomic.
            self._channels.append(channel)
        return channel


def call(
    connection: Connection, path: str, fields: Fields, requests: Iterable[bytes], seconds: float
) -> None:
    """Make a call and wait for its end. The connection's exchange then holds the reply.

    Args:
        connection: An open connection without a call in progress.
        path: "/package.Service/Method".
        fields: The header list without `:path`.
        requests: The serialized messages.
        seconds: The limit on the time of the call.
    """
    connection.restart_deadline(seconds)
    connection.open_stream([(b":path", path.encode()), *fields], end_stream=False)
    body = b"".join(prefixed(request) for request in requests)
    connection.send_data(body, end_stream=True)
    connection.wait()


def header_fields(target: Target, metadata: Metadata, timeout: float) -> Fields:
    """Return the header list of a valid call, without `:path`.

    Args:
        target: The server.
        metadata: The metadata of the call.
        timeout: The deadline of the call, in seconds.
    """
    return [
        (b":method", b"POST"),
        (b":scheme", b"http" if target.tls is None else b"https"),
        (b":authority", target.authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"grpc-fuzz"),
        # PROTOCOL-HTTP2 allows eight digits. At least 1 ms, because a timeout of 0 has passed.
        (b"grpc-timeout", b"%dm" % min(max(round(timeout * 1000), 1), 99_999_999)),
        *(header_field(name, value) for name, value in metadata),
    ]
