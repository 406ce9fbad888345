"""The HTTP/2 server: grpclib's, with its connections made sound and a stop that loses nothing."""

import asyncio
import contextlib
import logging
import ssl as tls
from collections import Counter
from collections.abc import Collection
from typing import cast

from grpclib._typing import IServable
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol
from grpclib.server import Server

from credit_server.access.authorize import Access
from credit_server.admission.controller import Gate, Writes
from credit_server.admission.stream_quota import Backpressure
from credit_server.grpc.handler import CallHandler, CallLimits
from credit_server.grpc.observer import UNOBSERVED, CallObserver
from credit_server.http2.connection import ServerProtocol
from credit_server.http2.connections import Closing, Connections
from credit_server.http2.header_block import keep_tokens_out
from credit_server.http2.limits import ConnectionLimits
from credit_server.http2.listener import on_failed_handshake, stop_listening
from credit_server.http2.unix_socket import SocketFile, socket_path
from credit_server.supervision import Timers

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 1.0
"""How often connections are looked at for time limits that have passed."""
_BACKLOG = 1024
"""Connections that the kernel holds until they are accepted; at most its own limit."""
_DEFAULTS = ConnectionLimits()


class GrpcServer(Server):
    """Serves services over HTTP/2; with TLS where `start` is given a context for it.

    Attributes:
        connections: The connections that are open, and why others were closed.
    """

    def __init__(
        self,
        services: Collection[IServable],
        *,
        limits: CallLimits,
        access: Access,
        connections: ConnectionLimits = _DEFAULTS,
        observer: CallObserver = UNOBSERVED,
        writes: Writes | None = None,
        timers: Timers | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            services: What to serve.
            limits: Limits on calls.
            access: Who may make which call.
            connections: Limits on connections.
            observer: Is told of every call.
            writes: Knows how long writes wait; None where nobody does.
            timers: Starts the server's timers; None: their bugs are only logged.

        Raises:
            LookupError: Something is served of which `access` does not know who may call it.
        """
        # grpclib's own keepalive asks every two hours; ServerProtocol has one of its own.
        super().__init__(services, config=Configuration(_keepalive_time=None))
        access.check(self._mapping)
        keep_tokens_out()
        self._timers = timers or Timers()
        self._access = access
        self._limits = limits
        self._connection_limits = connections
        self._observer = observer
        self.connections: Connections[ServerProtocol] = Connections(connections)
        self._protocols = self.connections.members
        self._gate = Gate(
            calls_max=limits.calls_max,
            loop_lag_seconds_max=limits.loop_lag_seconds_max,
            writes=writes,
            on_overload=lambda informed: self._backpressure.refused(informed=informed),
            timers=self._timers,
        )
        self._backpressure = Backpressure(
            self._protocols,
            streams_max=limits.overload_streams_max,
            overdue=self._gate.overdue,
            timers=self._timers,
        )
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._socket_file: SocketFile | None = None

    @property
    def shed_total(self) -> Counter[str]:
        """How many calls were refused before they were looked at, by cause."""
        return self._gate.shed_total

    @property
    def port(self) -> int:
        """The port that is listened on, once started; 0 for a Unix domain socket."""
        # uvloop's server is not asyncio's, and has the same attribute.
        name = self._server.sockets[0].getsockname()  # type: ignore[union-attr]
        return name[1] if isinstance(name, tuple) else 0

    async def start(  # type: ignore[override] # of grpclib's many arguments only those in use
        self, host: str, port: int, *, ssl: tls.SSLContext | None = None
    ) -> None:
        """Listen.

        Args:
            host: The address to listen on, or `unix:path`.
            port: The port; 0 for one that is free. Not used for a Unix domain socket.
            ssl: What TLS is spoken with; None: none is.

        Raises:
            OSError: The address cannot be listened on.
        """
        # grpclib's own start cannot limit the TLS handshake.
        handshake_seconds = self._connection_limits.handshake_seconds if ssl else None
        if ssl is not None:
            on_failed_handshake(ssl, self.connections.failed_handshake)
        path = socket_path(host)
        if path is None:
            self._server = await self._loop.create_server(
                self._protocol_factory,
                host,
                port,
                backlog=_BACKLOG,
                ssl=ssl,
                ssl_handshake_timeout=handshake_seconds,
            )
        else:
            # The loops' own way removes any socket at the path, also one that is listened on.
            self._socket_file = SocketFile(path, backlog=_BACKLOG)
            self._server = await self._loop.create_unix_server(
                self._protocol_factory,
                sock=self._socket_file.socket,
                backlog=_BACKLOG,
                ssl=ssl,
                ssl_handshake_timeout=handshake_seconds,
            )
        self._server_closed_fut = self._loop.create_future()
        self._sweep()

    def close(self) -> None:
        """Stop listening and cancel the calls that run; `stop` is the kind way."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._backpressure.stop()
        self._remove_socket_file()
        super().close()

    def _remove_socket_file(self) -> None:
        if self._socket_file is not None:
            self._socket_file.remove()

    def _sweep(self) -> None:
        self._sweep_timer = self._timers.later(
            _SWEEP_SECONDS, "the check of connections", self._sweep
        )
        self.connections.sweep(self.connections.clock())

    async def stop(self, *, grace_seconds: float, drain_seconds: float = 0.0) -> None:
        """Stop without losing a call.

        For `drain_seconds` all goes on, so that load balancers learn from the health service that
        they must send new calls to another server. Then the server stops listening and drains each
        connection: see `Drain`. No call is refused before its client can know that it has to be.

        Args:
            grace_seconds: How long running calls have after the pause. Calls that run after it are
                answered as UNAVAILABLE.
            drain_seconds: How long new connections and calls are still served.
        """
        await asyncio.sleep(drain_seconds)
        await self._stop_listening(drain_seconds)
        self.connections.draining = True
        for protocol in list(self._protocols):
            protocol.drain(Closing.SHUTDOWN)
        try:
            async with asyncio.timeout(grace_seconds):
                await self.connections.empty.wait()
        except TimeoutError:
            await self._cut_off(grace_seconds)
        self.close()
        await self.wait_closed()

    async def _stop_listening(self, settle_seconds_max: float) -> None:
        # grpclib knows less of its server; uvloop's is not asyncio's, and has the same attributes.
        listening = cast(asyncio.Server, self._server)
        await stop_listening(listening, settle_seconds_max=settle_seconds_max)
        self._remove_socket_file()

    async def _cut_off(self, grace_seconds: float) -> None:
        """End what is left, and give clients a moment to read how their calls ended."""
        if any(protocol.busy for protocol in self._protocols):
            log.warning("calls were still running after %s s and are ended", grace_seconds)
        for protocol in list(self._protocols):
            protocol.cut_off()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._connection_limits.closing_seconds):
                await self.connections.empty.wait()
        for protocol in list(self._protocols):
            protocol.abort()

    def _protocol_factory(self) -> H2Protocol:
        self.__gc_step__()
        handler = CallHandler(
            self._mapping,
            self.__dispatch__,
            self._gate,
            self._limits,
            self._access,
            self._observer,
        )
        self._handlers.add(handler)
        return ServerProtocol(handler, self._config, self._connection_limits, self.connections)
