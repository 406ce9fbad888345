"""Ordinary calls, on connections that are kept open.

They do not go through a gRPC library: those make up statuses of their own (DEADLINE_EXCEEDED,
UNAVAILABLE, INTERNAL) where a server has sent none, and whether it has is what is to be found out.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from grpc_fuzz.call import call, header_fields
from grpc_fuzz.model import Case, Limits, Metadata, Presented, Reply
from grpc_fuzz.replies import decode_details
from grpc_fuzz.schema import Schema
from grpc_fuzz.target import Target
from grpc_fuzz.wire.connection import Connection

HEALTH_METHOD = "/grpc.health.v1.Health/Check"
# Field 1 (status) of grpc.health.v1.HealthCheckResponse, varint 2: NOT_SERVING.
_NOT_SERVING = b"\x08\x02"

# How a connection ends that the server gives up between two calls.
_GIVEN_UP = frozenset({"GOAWAY", "CLOSED"})


class _Line:
    """A connection that is opened when it is needed, and again when it is lost."""

    def __init__(self, target: Target, seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        self._connection: Connection | None = None

    def call(
        self, path: str, fields: list[tuple[bytes, bytes]], requests: tuple[bytes, ...]
    ) -> Reply:
        """Makes a call, a second time where a connection of before turns out to be given up."""
        was_open = self._is_open()
        reply = self._try(path, fields, requests)
        if was_open and reply.outcome in _GIVEN_UP and not reply.responses:
            reply = self._try(path, fields, requests)
        return reply

    def close(self) -> None:
        """Closes the connection; the next call opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _is_open(self) -> bool:
        return self._connection is not None and not self._connection.exchange.connection_over

    def _try(
        self, path: str, fields: list[tuple[bytes, bytes]], requests: tuple[bytes, ...]
    ) -> Reply:
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
    """Makes ordinary calls to one server. Safe to share between threads: each has its own lines.

    Args:
        target: The server.
        schema: What the error details are decoded with.
        limits: How long to wait.
        metadata_of: What goes with every call, by the credentials that it comes with.
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
        self._lines: list[_Line] = []
        self._own = threading.local()

    def close(self) -> None:
        """Closes all connections."""
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.close()

    def healthy(self) -> bool:
        """Whether the server answers on another connection than the calls'."""
        return self.trouble() is None

    def trouble(self) -> str | None:
        """Why the server does not answer on another connection than the calls'; None: it does.

        Any status is a sign of life, UNIMPLEMENTED too: only a server that reports NOT_SERVING
        itself, or gives no status, is not healthy.
        """
        fields = header_fields(
            self._target, self._metadata_of("valid"), self._limits.request_timeout
        )
        reply = self._line("probes").call(HEALTH_METHOD, fields, (b"",))
        if reply.status is None:
            return f"the health check got no status: {reply.transport_error}"
        return "it reports NOT_SERVING" if reply.responses == (_NOT_SERVING,) else None

    def send(self, case: Case) -> Reply:
        """Makes the call and waits for its end, until the deadline and its slack are over."""
        metadata = (*self._metadata_of(case.presented), *case.metadata)
        fields = header_fields(self._target, metadata, self._limits.request_timeout)
        reply = self._line("calls").call(case.method.path, fields, case.requests)
        details, details_error = decode_details(reply.trailers, self._schema)
        return replace(reply, details=details, details_error=details_error)

    def _line(self, purpose: str) -> _Line:
        line: _Line | None = getattr(self._own, purpose, None)
        if line is None:
            line = _Line(self._target, self._limits.request_timeout + self._limits.slack)
            setattr(self._own, purpose, line)
            # Appending is atomic.
            self._lines.append(line)
        return line
