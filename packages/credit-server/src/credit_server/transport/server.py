"""The HTTP/2 server: grpclib's, with its connections made sound and a stop that loses nothing."""

import asyncio
import logging
from collections.abc import Collection

from grpclib._typing import IServable
from grpclib.protocol import Connection, EventsProcessor, H2Protocol
from grpclib.server import Server
from h2.config import H2Configuration
from h2.events import DataReceived
from h2.events import Event as H2Event
from h2.exceptions import ProtocolError as H2ProtocolError

from credit_server.transport.handler import CallHandler, CallLimits, Gate
from credit_server.transport.header_block import LiteralEncoder

log = logging.getLogger(__name__)


class GrpcServer(Server):
    """Serves services over HTTP/2 without TLS."""

    def __init__(self, services: Collection[IServable], *, limits: CallLimits) -> None:
        """Prepare to serve.

        Args:
            services: What to serve.
            limits: Limits on calls.
        """
        super().__init__(services)
        self._limits = limits
        self._gate = Gate(
            calls_max=limits.calls_max, loop_lag_seconds_max=limits.loop_lag_seconds_max
        )
        self._protocols: set[_Protocol] = set()
        self._h2_config = H2Configuration(
            client_side=False,
            # Any byte is a letter in it: one odd header does not end a connection's other calls.
            header_encoding="latin-1",
            validate_inbound_headers=True,
            validate_outbound_headers=False,
            normalize_inbound_headers=False,
            normalize_outbound_headers=False,
        )

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        # uvloop's server is not asyncio's, and has the same attribute.
        port: int = self._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        return port

    async def stop(self, *, grace_seconds: float) -> None:
        """Stop: refuse new calls, let running ones finish, then close every connection.

        Args:
            grace_seconds: How long running calls have. What runs after it is answered UNAVAILABLE.
        """
        assert self._server is not None  # noqa: S101 - for the type checker
        self._gate.stopping = True
        self._server.close()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._gate.wait_idle()
        except TimeoutError:
            log.warning("calls were still running after %s s and are ended", grace_seconds)
        protocols = list(self._protocols)
        for protocol in protocols:
            protocol.end_calls()
        await asyncio.gather(*(protocol.handler.wait_closed() for protocol in protocols))
        for protocol in list(self._protocols):
            protocol.say_goodbye()
        self.close()
        await self.wait_closed()

    def _protocol_factory(self) -> H2Protocol:
        self.__gc_step__()
        handler = CallHandler(self._mapping, self.__dispatch__, self._gate, self._limits)
        self._handlers.add(handler)
        return _Protocol(handler, self._config, self._h2_config, self._protocols)


class _Protocol(H2Protocol):
    """One connection."""

    handler: CallHandler

    def __init__(
        self,
        handler: CallHandler,
        config: object,
        h2_config: H2Configuration,
        registry: "set[_Protocol]",
    ) -> None:
        super().__init__(handler, config, h2_config)  # type: ignore[arg-type] # grpclib's own type
        self._registry = registry

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connection._connection.encoder = LiteralEncoder()  # noqa: SLF001 - h2 has no setting
        self.processor = _Processor(self.handler, self.connection)
        self._registry.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            events = self.connection.feed(data)
            self.connection.flush()
            for event in events:
                self.processor.process(event)
            self.connection.flush()
        except H2ProtocolError as error:
            log.debug("a connection is closed: %s", error)
            self.connection.flush()  # h2 has made a GOAWAY that says what was wrong
            self.processor.close("protocol error")
        except Exception as error:  # noqa: BLE001 - whatever a peer sends must end here
            log.warning("a connection is closed: %s", type(error).__name__)
            self.say_goodbye()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._registry.discard(self)

    def end_calls(self) -> None:
        """Cancel the calls that run."""
        for stream in list(self.processor.streams.values()):
            self.handler.cancel(stream)

    def say_goodbye(self) -> None:
        """Send GOAWAY and close the connection once it is sent."""
        connection: Connection = self.connection
        if not connection.is_closing():
            connection._connection.close_connection()  # noqa: SLF001 - grpclib has no call for it
            connection.flush()
            if not connection.write_ready.is_set():
                # The client does not read: its connection would stay open for as long as it likes.
                connection._transport.abort()  # noqa: SLF001
            self.processor.close("the server closed the connection")


class _Processor(EventsProcessor):
    """Handles HTTP/2 events as grpclib does, but for two that would break a connection."""

    def process(self, event: H2Event) -> None:
        if isinstance(event, DataReceived) and not event.flow_controlled_length:
            return  # an empty frame, which grpclib's buffer would take for the end of the stream
        try:
            super().process(event)
        except NotImplementedError:
            # RFC 9113, section 4.1: frames of unknown types are ignored.
            log.debug("ignored %s", type(event).__name__)
