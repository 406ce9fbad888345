"""The gRPC server: grpclib's, with limits on its connections and a stop that loses no call."""

import asyncio
import contextlib
import logging
import socket
import ssl as tls
from collections import Counter
from collections.abc import Collection
from typing import Any, cast

from credit_models.timeouts import Timeout
from grpclib._typing import IServable
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol
from grpclib.server import Server

from credit_server.admission.decision import Decision
from credit_server.admission.load import AdmissionController, WriteQueue
from credit_server.admission.stream_quota import StreamQuota
from credit_server.grpc.handler import CallHandler, CallLimits, CallServing
from credit_server.grpc.ports import Access, CallObserver, Contract
from credit_server.http2.connection import ServerProtocol
from credit_server.http2.connections import Closing, Connections
from credit_server.http2.engine import Engine, open_frames
from credit_server.http2.header_block import keep_tokens_out
from credit_server.http2.limits import ConnectionLimits
from credit_server.http2.listener import (
    BACKLOG,
    SETTLE_SECONDS_MAX,
    NotListening,
    on_failed_handshake,
    stop_listening,
)
from credit_server.http2.unix_socket import SocketFile, socket_path
from credit_server.supervision import Timers

log = logging.getLogger(__name__)

# How often connections are checked for time limits that have passed.
_SWEEP_SECONDS = 1.0
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
        contract: Contract,
        connections: ConnectionLimits = _DEFAULTS,
        observer: CallObserver | None = None,
        write_queue: WriteQueue | None = None,
        timers: Timers | None = None,
        engine: Engine = Engine.AUTO,
    ) -> None:
        """Prepare to serve.

        Args:
            services: What to serve.
            limits: Limits on calls.
            access: Decides which calls are allowed.
            contract: The properties of the contract's services that serving requires.
            connections: Limits on connections.
            observer: Observes every call; None: no call is observed.
            write_queue: Estimates how long writes wait; None: writes are admitted as reads are.
            timers: Starts the server's timers; None: their bugs are only logged.
            engine: The library for HTTP/2.

        Raises:
            EngineMissing: The library is not installed.
            LookupError: `access` has no rule for a path that is served.
        """
        # grpclib's own keepalive runs every two hours; ServerProtocol has one of its own.
        super().__init__(services, config=Configuration(_keepalive_time=None))
        access.check(self._mapping)
        keep_tokens_out()
        self._timers = timers or Timers()
        self._connection_limits = connections
        self._open_frames = open_frames(engine)
        self.connections: Connections[ServerProtocol] = Connections(connections)
        self._protocols = self.connections.members
        self._admission = AdmissionController(
            calls_max=limits.calls_max,
            loop_lag_seconds_max=limits.loop_lag_seconds_max,
            write_queue=write_queue,
            on_shed=lambda informed: self._stream_quota.note_shed(informed=informed),
            timers=self._timers,
        )
        self._stream_quota = StreamQuota(
            self._protocols,
            streams_max=limits.overload_streams_max,
            is_overdue=self._admission.is_overdue,
            timers=self._timers,
        )
        self._serving = CallServing(
            self._mapping,
            admission=self._admission,
            limits=limits,
            access=access,
            contract=contract,
            observer=observer,
        )
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._socket_file: SocketFile | None = None
        # Any: the loop's arguments for TLS.
        self._passed_tls: dict[str, Any] = {}
        self._accepting: set[asyncio.Task[None]] = set()

    @property
    def shed_total(self) -> Counter[Decision]:
        """The number of calls that were shed by their headers alone, by cause."""
        return self._admission.shed_total

    @property
    def port(self) -> int:
        """The port that the started server listens on; 0 for a Unix domain socket."""
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
            ssl: The context for TLS; None: no TLS.

        Raises:
            OSError: The server cannot listen on the address.
        """
        handshake_seconds = self._prepare_tls(ssl)
        path = socket_path(host)
        if path is None:
            self._server = await self._loop.create_server(
                self._protocol_factory,
                host,
                port,
                backlog=BACKLOG,
                ssl=ssl,
                ssl_handshake_timeout=handshake_seconds,
            )
        else:
            # The loops themselves remove any socket at the path, even one that is in use.
            self._socket_file = SocketFile(path, backlog=BACKLOG)
            self._server = await self._loop.create_unix_server(
                self._protocol_factory,
                sock=self._socket_file.socket,
                backlog=BACKLOG,
                ssl=ssl,
                ssl_handshake_timeout=handshake_seconds,
            )
        self._begin()

    def start_without_listening(self, *, ssl: tls.SSLContext | None = None) -> None:
        """Serve the connections that are passed to `accept`; it replaces `start`.

        Args:
            ssl: The context for TLS; None: no TLS.
        """
        self._server = cast(asyncio.AbstractServer, NotListening())
        self._passed_tls = {"ssl": ssl, "ssl_handshake_timeout": self._prepare_tls(ssl)}
        self._begin()

    def accept(self, connection: socket.socket) -> None:
        """Serve a connection that another process has accepted."""
        connection.setblocking(False)
        accepting = self._loop.create_task(self._serve_passed(connection))
        self._accepting.add(accepting)
        accepting.add_done_callback(self._accepting.discard)

    @property
    def open_connections(self) -> int:
        """The number of open connections, with those whose TLS handshake is under way."""
        return len(self.connections.members) + len(self._accepting)

    async def _serve_passed(self, connection: socket.socket) -> None:
        # A failed handshake is reported by `on_failed_handshake`, and the loop closes the socket.
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(
                self._protocol_factory, connection, **self._passed_tls
            )

    def _prepare_tls(self, ssl: tls.SSLContext | None) -> float | None:
        """Report failed TLS handshakes, and return how long one may take; None without TLS."""
        if ssl is None:
            return None
        on_failed_handshake(ssl, self.connections.failed_handshake)
        # grpclib's own start cannot limit the TLS handshake.
        return self._connection_limits.handshake_seconds

    def _begin(self) -> None:
        self._server_closed_fut = self._loop.create_future()
        self._sweep()

    def close(self) -> None:
        """Stop listening and cancel the running calls; `stop` loses no call."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._stream_quota.stop()
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

        For `drain_seconds` everything is served, so that load balancers learn from the health
        service that they must send new calls to another server. Then the server stops listening and
        drains each connection: see `Drain`. No call is rejected before its client can know why.

        Args:
            grace_seconds: How long running calls have after the pause. Calls that still run then
                are answered as UNAVAILABLE.
            drain_seconds: How long new connections and calls are still served.
        """
        await asyncio.sleep(drain_seconds)
        await self._stop_listening(drain_seconds)
        self.connections.draining = True
        for protocol in list(self._protocols):
            protocol.drain(Closing.SHUTDOWN)
        try:
            async with Timeout(grace_seconds):
                await self.connections.empty.wait()
        except TimeoutError:
            await self._cut_off(grace_seconds)
        self.close()
        await self.wait_closed()

    async def _stop_listening(self, settle_seconds_max: float) -> None:
        # grpclib's type is narrower; uvloop's server is not asyncio's, and has the same attributes.
        listening = cast(asyncio.Server, self._server)
        await stop_listening(listening, settle_seconds_max=settle_seconds_max)
        if self._accepting:  # connections that were passed just now; TLS handshakes are under way
            await asyncio.wait(self._accepting, timeout=SETTLE_SECONDS_MAX)
        self._remove_socket_file()

    async def _cut_off(self, grace_seconds: float) -> None:
        """End the remaining calls, and give clients a moment to read how they ended."""
        if any(protocol.busy for protocol in self._protocols):
            log.warning("calls were still running after %s s and are ended", grace_seconds)
        for protocol in list(self._protocols):
            protocol.cut_off()
        with contextlib.suppress(TimeoutError):
            async with Timeout(self._connection_limits.closing_seconds):
                await self.connections.empty.wait()
        for protocol in list(self._protocols):
            protocol.abort()

    def _protocol_factory(self) -> H2Protocol:
        self.__gc_step__()
        handler = CallHandler(self._serving, self.__dispatch__)
        self._handlers.add(handler)
        return ServerProtocol(
            handler,
            self._config,
            self._connection_limits,
            self.connections,
            self._open_frames,
        )
