"""One HTTP/2 connection to the server: grpclib's, with its holes closed.

What grpclib 0.4.9 does otherwise: an unknown frame type, or an informational response, kills the
connection; an empty DATA frame counts as the end of the stream; a call that waits for a free stream
or for the socket's buffer waits for ever once the connection is gone, and does not notice that the
server allows more streams; an error of the parser that is not h2's own reaches the event loop;
writes go on after the socket has failed, and asyncio logs a line for each.

An answer that is complete when the connection goes is kept. After a graceful GOAWAY the calls that
the server has taken in go on, and new calls open another connection: see `Goodbye`.
"""

import asyncio
import errno
import logging
from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

from grpclib.client import Channel, Handler
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream
from h2.config import H2Configuration
from h2.events import DataReceived, Event, RemoteSettingsChanged, ResponseReceived
from h2.settings import SettingCodes

from credit_client.addresses import Resolve, in_turn, open_socket, resolve
from credit_client.goodbye import Goodbye
from credit_client.header_log import keep_tokens_out
from credit_client.keepalive import Keepalive, KeepaliveTimes
from credit_client.target import Target
from credit_client.tls import Tls, check_handshake, problem_of

_log = logging.getLogger(__name__)

# RFC 9113 section 3.4: a server begins with a SETTINGS frame. h2 takes the words of another
# protocol for the head of a frame of megabytes, and waits for the rest of it.
_FRAME_TYPE_AT = 3
_SETTINGS = b"\x04"

# What a TLS server says to a client that does not speak TLS (RFC 8446 section 5.1).
_TLS_ALERT = b"\x15\x03"

# Half of the usual time of a call. A SYN that is lost is sent again after 1 s, and after 3 s.
CONNECT_TIMEOUT_SECONDS = 5.0

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


class Watcher(Protocol):
    """Counts what becomes of connections."""

    def answered(self) -> None:
        """Called once per connection, when the first answer to a call arrives."""

    def lost(self) -> None:
        """Called when a connection ends that was open and has never brought an answer."""


class _Unwatched:
    def answered(self) -> None:
        pass

    def lost(self) -> None:
        pass


class _Wire(asyncio.Transport):
    """The socket, for writers that do not ask whether it is still there.

    Calls notice the end of their connection when they run next. asyncio logs "socket.send() raised
    exception." for most of what they write until then; here it is dropped.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        # Until Python 3.14 an encrypted transport does not report that the socket beneath it fails.
        tls = getattr(transport, "_ssl_protocol", None)
        self._beneath: asyncio.Transport = getattr(tls, "_transport", None) or transport

    # Any: the standard library's own type for what a socket can be asked.
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._transport.is_closing() or self._beneath.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._transport.close()


class _Processor(EventsProcessor):
    def __init__(
        self, handler: Handler, connection: Connection, keepalive: Keepalive, watcher: Watcher
    ) -> None:
        super().__init__(handler, connection)
        self._keepalive = keepalive
        self.goodbye = Goodbye(connection, self)
        self._watcher = watcher
        self.answered = False
        # None once the server has greeted, with its SETTINGS; before that, why it never will.
        self.greeted: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def process(self, event: Event) -> None:
        # RFC 9113 section 5.5: what is unknown is ignored. grpclib deletes `processors` on closing.
        if type(event) in getattr(self, "processors", ()):
            super().process(event)

    def process_data_received(self, event: DataReceived) -> None:
        if event.flow_controlled_length:
            super().process_data_received(event)

    def process_response_received(self, event: ResponseReceived) -> None:
        if not self.answered:
            self.answered = True
            self._watcher.answered()
        super().process_response_received(event)

    def process_remote_settings_changed(self, event: RemoteSettingsChanged) -> None:
        super().process_remote_settings_changed(event)
        if not self.greeted.done():
            self.greeted.set_result(None)
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
        if not self.greeted.done():
            self.greeted.set_result(reason)
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
        self,
        config: Configuration,
        h2_config: H2Configuration,
        keepalive: KeepaliveTimes,
        watcher: Watcher | None = None,
    ) -> None:
        super().__init__(Handler(), config, h2_config)
        self._keepalive_times = keepalive
        self._watcher = watcher or _Unwatched()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop: the socket is open."""
        self.transport = cast(asyncio.Transport, transport)
        super().connection_made(_Wire(self.transport))
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._keepalive = Keepalive(self._keepalive_times, self, call_later=loop.call_later)
        self.processor = _Processor(self.handler, self.connection, self._keepalive, self._watcher)

    async def greeted(self) -> None:
        """Wait until the server has greeted: only then is it a server, and does it live.

        Raises:
            ConnectionAbortedError: The connection ended before.
        """
        # Others wait for it too, and one of them may be cancelled.
        await asyncio.wait([self.processor.greeted])
        reason = self.processor.greeted.result()
        if reason is not None:
            raise ConnectionAbortedError(errno.ECONNABORTED, reason)

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
            events = self.connection.feed(data)
        except Exception:  # noqa: BLE001 - hostile bytes make h2 raise more than its own errors
            _log.debug("the server's bytes cannot be understood", exc_info=True)
            self.processor.close("Protocol error")
            return
        # What fails from here on is a fault of this package: the event loop reports it.
        self.connection.flush()
        for event in events:
            self.processor.process(event)
        self.connection.flush()

    def eof_received(self) -> None:
        """Called by the event loop: the server sends no more.

        An encrypted connection still takes writes now, and loses them.
        """
        if self._beginning:
            self.processor.close("Connection lost")

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
            if not self.processor.answered and self.processor.greeted.result() is None:
                self._watcher.lost()

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
    """One connection to the server, opened when `connect` is called, and again after its loss."""

    _protocol: ClientProtocol | None

    def __init__(
        self,
        target: Target,
        *,
        turn: int,
        connect_timeout_seconds: float,
        keepalive: KeepaliveTimes,
        codec: CodecBase,
        status_details_codec: StatusDetailsCodecBase,
        tls: Tls | None = None,
        resolver: Resolve = resolve,
    ) -> None:
        """Open nothing yet.

        Args:
            target: The server.
            turn: Which channel of the client this is: see `addresses.in_turn`.
            connect_timeout_seconds: The time to open a connection, from the name's look-up to the
                server's greeting.
            keepalive: When the server is asked whether it is still there.
            codec: Reads and writes messages.
            status_details_codec: Reads the details of a status.
            tls: What connections are encrypted with; None: not at all.
            resolver: Finds the addresses of the target's host.
        """
        super().__init__(
            target.host,
            target.port,
            codec=codec,
            status_details_codec=status_details_codec,
            ssl=None if tls is None else tls.context(),
        )
        self._authority = target.authority
        keep_tokens_out()
        self._target = target
        self._turn = turn
        self._connect_timeout_seconds = connect_timeout_seconds
        self._keepalive_times = keepalive
        self._tls = tls
        self._resolver = resolver
        self._failures = 0
        self._connect_error: BaseException | None = None
        self._leaving: set[ClientProtocol] = set()
        self._watcher: Watcher = _Unwatched()

    @property
    def _connected(self) -> bool:
        """Whether a call can be sent now: the server has not announced the connection's end."""
        protocol = self._protocol
        return protocol is not None and super()._connected and not protocol.processor.goodbye.said

    @property
    def connected(self) -> bool:
        """Whether a call can be sent now."""
        return self._connected

    @property
    def tls_problem(self) -> str | None:
        """Why there is no safe connection, in a sentence that says what to do; None otherwise."""
        if self._tls is None:
            return None
        ended_by = None if self._protocol is None else self._protocol.ended_by
        return problem_of(self._connect_error or ended_by, host=self._host)

    def is_leaving(self, connection: Connection) -> bool:
        """Return whether the server has announced the end of a connection of this channel."""
        known = self._leaving if self._protocol is None else {*self._leaving, self._protocol}
        return any(
            protocol.connection is connection and protocol.processor.goodbye.said
            for protocol in known
        )

    def watch(self, watcher: Watcher) -> None:
        """Report this channel's connections to a watcher."""
        self._watcher = watcher

    def answered(self) -> None:
        """See `Watcher.answered`."""
        self._failures = 0
        self._watcher.answered()

    def lost(self) -> None:
        """See `Watcher.lost`."""
        self._failures += 1
        self._watcher.lost()

    async def connect(self) -> None:
        """Open a connection, unless there is one.

        Must not be called again before it has returned.

        Raises:
            OSError: There is none: no address answers, the handshake fails, or time is up.
        """
        if self.connected:
            return
        self._keep_leaving()
        self._connect_error = None
        try:
            self._protocol = await self._in_time()
        except OSError as error:
            self._failures += 1
            if self._connect_error is None:
                self._connect_error = error
            raise

    async def __connect__(self) -> H2Protocol:
        """Called by grpclib before it sends a call."""
        await self.connect()
        return cast(H2Protocol, self._protocol)

    async def _in_time(self) -> ClientProtocol:
        try:
            async with asyncio.timeout(self._connect_timeout_seconds) as limit:
                protocol = await self._opened()
                try:
                    self._check(protocol)
                    await protocol.greeted()
                except BaseException:
                    protocol.transport.abort()
                    self._connect_error = protocol.ended_by
                    raise
                return protocol
        except TimeoutError as error:
            if not limit.expired():
                raise  # the operating system's own: ETIMEDOUT
            raise TimeoutError(
                errno.ETIMEDOUT, f"no greeting within {self._connect_timeout_seconds:g} s"
            ) from error

    async def _opened(self) -> ClientProtocol:
        loop = asyncio.get_running_loop()
        # Made for each connection: certificates are renewed while the client is open.
        context = None if self._tls is None else self._tls.context()
        name = None if context is None else self._host
        if self._target.path is not None:
            _, protocol = await loop.create_unix_connection(
                self._protocol_factory, self._target.path, ssl=context, server_hostname=name
            )
        else:
            found = await self._resolver(self._target.host, self._target.port)
            sock = await open_socket(in_turn(found, turn=self._turn, failures=self._failures))
            _, protocol = await loop.create_connection(
                self._protocol_factory, sock=sock, ssl=context, server_hostname=name
            )
        return protocol

    def _protocol_factory(self) -> ClientProtocol:
        return ClientProtocol(self._config, self._h2_config, self._keepalive_times, self)

    def _check(self, protocol: ClientProtocol) -> None:
        if self._tls is not None:
            check_handshake(protocol.transport.get_extra_info("ssl_object"))

    def _keep_leaving(self) -> None:
        """Remember connections whose calls still run, so that `aclose` closes them too."""
        self._leaving = {each for each in self._leaving if not each.lost.done()}
        if self._protocol is not None and not self._protocol.lost.done():
            self._leaving.add(self._protocol)

    async def aclose(self) -> None:
        """Close all connections, also those that leave, and wait until their sockets are closed."""
        self._keep_leaving()
        protocols = list(self._leaving)
        self.close()
        for protocol in protocols:
            protocol.processor.close()
        if not protocols:
            return
        _, unsent = await asyncio.wait(
            [protocol.lost for protocol in protocols], timeout=_CLOSE_SECONDS_MAX
        )
        for protocol in protocols:
            if protocol.lost in unsent:
                # The socket's buffer cannot be sent: the other end does not read.
                protocol.transport.abort()
                await protocol.lost
