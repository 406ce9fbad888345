"""One HTTP/2 connection to the server: grpclib's, with its holes closed.

What grpclib 0.4.9 does otherwise: an unknown frame type, or an informational response, kills the
connection; an empty DATA frame counts as the end of the stream; a call that waits for a free stream
or for the socket's buffer waits for ever once the connection is gone, and does not notice that the
server allows more streams; an error of the parser that is not h2's own reaches the event loop.

An answer that is complete when the connection goes is kept. After a graceful GOAWAY the calls that
the server has taken in go on, and new calls open another connection: see `Goodbye`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Literal, cast

from grpclib.client import Channel, Handler
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream
from h2.config import H2Configuration
from h2.events import DataReceived, Event, RemoteSettingsChanged
from h2.settings import SettingCodes

from credit_client.goodbye import Goodbye
from credit_client.header_log import keep_tokens_out
from credit_client.keepalive import Keepalive, KeepaliveTimes
from credit_client.tls import HandshakeRefused, Tls, check_handshake, problem_of

_log = logging.getLogger(__name__)

# RFC 9113 section 3.4: a server begins with a SETTINGS frame. h2 takes the words of another
# protocol for the head of a frame of megabytes, and waits for the rest of it.
_FRAME_TYPE_AT = 3
_SETTINGS = b"\x04"

# What a TLS server says to a client that does not speak TLS (RFC 8446 section 5.1).
_TLS_ALERT = b"\x15\x03"

_PING_DATA = bytes(8)
_CLOSE_SECONDS_MAX = 1.0


def _ignore(_: int) -> None:
    """Acknowledges nothing."""


class _Never(asyncio.Event):
    """What a call would wait for on a connection that is gone."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    async def wait(self) -> Literal[True]:
        raise StreamTerminatedError(self._reason)


class _Processor(EventsProcessor):
    def __init__(self, handler: Handler, connection: Connection, keepalive: Keepalive) -> None:
        super().__init__(handler, connection)
        self._keepalive = keepalive
        self.goodbye = Goodbye(connection, self)

    def process(self, event: Event) -> None:
        # RFC 9113 section 5.5: what is unknown is ignored. grpclib deletes `processors` on closing.
        if type(event) in getattr(self, "processors", ()):
            super().process(event)

    def process_data_received(self, event: DataReceived) -> None:
        if event.flow_controlled_length:
            super().process_data_received(event)

    def process_remote_settings_changed(self, event: RemoteSettingsChanged) -> None:
        super().process_remote_settings_changed(event)
        if SettingCodes.MAX_CONCURRENT_STREAMS in event.changed_settings:
            # Calls wait for one to end; a busy server that allows more again ends none.
            self.connection.stream_close_waiter.set()

    def register(self, stream: Stream) -> Callable[[], None]:
        release = super().register(stream)
        if self.connection.is_closing():
            stream.__terminated__("Connection lost")

        def release_and_close() -> None:
            release()
            self.goodbye.close_if_done()

        return release_and_close

    def close(self, reason: str = "Connection closed") -> None:
        self._keepalive.stop()
        for stream in self.streams.values():
            if stream.trailers_received.is_set():
                # Its answer is complete. It is read from the buffer, and there is nobody left to
                # acknowledge it to; grpclib would throw it away.
                stream.buffer._ack_callback = _ignore  # noqa: SLF001
                stream.wrapper = None
        super().close(reason)
        waited_for = self.connection.write_ready, self.connection.stream_close_waiter
        self.connection.write_ready = self.connection.stream_close_waiter = _Never(reason)
        for event in waited_for:
            event.set()


class ClientProtocol(H2Protocol):
    """A connection that asks whether the server is there, and knows when it is gone itself.

    Attributes:
        lost: Done once the socket is closed.
        ended_by: What ended the connection, if it was an error.
    """

    handler: Handler
    processor: _Processor
    transport: asyncio.Transport
    ended_by: BaseException | None = None
    _beginning = b""
    _streams_started = 0

    def __init__(
        self, config: Configuration, h2_config: H2Configuration, keepalive: KeepaliveTimes
    ) -> None:
        super().__init__(Handler(), config, h2_config)
        self._keepalive_times = keepalive

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop: the socket is open."""
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self.transport = cast(asyncio.Transport, transport)
        self.lost: asyncio.Future[None] = loop.create_future()
        self._keepalive = Keepalive(self._keepalive_times, self, call_later=loop.call_later)
        self.processor = _Processor(self.handler, self.connection, self._keepalive)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: the server has sent something."""
        if self.connection.is_closing():
            return
        self._keepalive.heard()
        if len(self._beginning) <= _FRAME_TYPE_AT:
            self._beginning = (self._beginning + data)[: _FRAME_TYPE_AT + 1]
            if self._beginning.startswith(_TLS_ALERT):
                self.processor.close("The other side speaks TLS: connect with `tls`")
                return
            if self._beginning[_FRAME_TYPE_AT:] not in {b"", _SETTINGS}:
                self.processor.close("The other side does not speak HTTP/2")
                return
        try:
            super().data_received(data)
        except Exception:  # noqa: BLE001 - whatever it is, it ends this connection alone
            _log.debug("the server's bytes cannot be understood", exc_info=True)
            self.processor.close("Protocol error")

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the event loop: the socket is closed."""
        self.ended_by = exc
        if not self._beginning:
            # Many servers, asyncio's too, refuse a client certificate, or what is no TLS, without a
            # word.
            encrypted = self.transport.get_extra_info("ssl_object") is not None
            self.processor.close(
                "it was closed right after the TLS handshake, as by a server that wants a client"
                " certificate, or another one"
                if encrypted
                else "it was closed before the server said a word, as by one that speaks TLS:"
                " connect with `tls` if it does"
            )
        super().connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)

    def was_awaited(self) -> bool:
        """See `Peer.was_awaited`. A call that waits for the socket's buffer has no stream yet."""
        before, self._streams_started = self._streams_started, self.connection.streams_started
        return (
            bool(self.processor.streams)
            or self._streams_started != before
            or not self.connection.write_ready.is_set()
        )

    def ping(self) -> None:
        """See `Peer.ping`."""
        self.connection._connection.ping(_PING_DATA)  # noqa: SLF001 - grpclib has no other way
        self.connection.flush()

    def give_up(self) -> None:
        """See `Peer.give_up`."""
        self.processor.close("the server does not answer")
        # What is still in the socket's buffer would keep the socket open: nobody reads it.
        self.transport.abort()


class ClientChannel(Channel):
    """A connection that is opened by the first call, and again by the first call after its loss."""

    _protocol: ClientProtocol | None

    def __init__(
        self,
        host: str,
        port: int,
        *,
        keepalive: KeepaliveTimes,
        codec: CodecBase,
        status_details_codec: StatusDetailsCodecBase,
        tls: Tls | None = None,
    ) -> None:
        super().__init__(
            host,
            port,
            codec=codec,
            status_details_codec=status_details_codec,
            ssl=None if tls is None else tls.context(),
        )
        keep_tokens_out()
        self._keepalive_times = keepalive
        self._tls = tls
        self._handshake_error: OSError | None = None
        self._leaving: set[ClientProtocol] = set()

    @property
    def _connected(self) -> bool:
        """Whether a call can be sent now: the server has not said that it closes the connection."""
        protocol = self._protocol
        return protocol is not None and super()._connected and not protocol.processor.goodbye.said

    @property
    def tls_problem(self) -> str | None:
        """Why there is no safe connection, in a sentence that says what to do; None otherwise."""
        if self._tls is None:
            return None
        ended_by = None if self._protocol is None else self._protocol.ended_by
        return problem_of(self._handshake_error or ended_by, host=self._host)

    def _protocol_factory(self) -> H2Protocol:
        return ClientProtocol(self._config, self._h2_config, self._keepalive_times)

    async def _create_connection(self) -> H2Protocol:
        self._keep_leaving()
        if self._tls is None:
            return await super()._create_connection()
        self._handshake_error = None
        # Made for each connection: certificates are renewed while the client is open.
        self._ssl = self._tls.context()
        try:
            protocol = await super()._create_connection()
            self._check(protocol)
        except OSError as error:
            self._handshake_error = error
            raise
        return protocol

    def _keep_leaving(self) -> None:
        """Remember connections whose calls still run, so that `aclose` closes them too."""
        self._leaving = {each for each in self._leaving if not each.lost.done()}
        if self._protocol is not None and not self._protocol.lost.done():
            self._leaving.add(self._protocol)

    def _check(self, protocol: H2Protocol) -> None:
        transport = cast(ClientProtocol, protocol).transport
        try:
            check_handshake(transport.get_extra_info("ssl_object"))
        except HandshakeRefused:
            transport.abort()
            raise

    async def aclose(self) -> None:
        """Closes the connection and waits until the socket is closed."""
        self._keep_leaving()
        protocols = list(self._leaving)
        self.close()
        for protocol in protocols:
            protocol.processor.close()
        if not protocols:
            return
        await asyncio.wait([each.lost for each in protocols], timeout=_CLOSE_SECONDS_MAX)
        for protocol in protocols:
            # Where the socket's buffer cannot be sent, nobody reads at the other end.
            if not protocol.lost.done():
                protocol.transport.abort()
                await protocol.lost
