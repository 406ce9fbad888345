"""One HTTP/2 connection to the server: grpclib's, with its gaps closed.

What grpclib 0.4.9 does otherwise: an unknown frame type, or an informational response, kills the
connection; an empty DATA frame counts as the end of the stream; a call that waits for a free stream
or for the socket's buffer waits forever once the connection is gone, and does not notice that the
server allows more streams; an error of the parser that is not h2's own reaches the event loop;
writes go on after the socket has failed, and asyncio logs a line for each.

An answer that is complete when the connection ends is kept. After a graceful GOAWAY (RFC 9113
section 6.8) the calls that the server has accepted continue, and new calls open another connection:
see `frames`.
"""

import asyncio
import errno
import logging
from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

from credit_models.http2_engine import Engine
from credit_models.transports import abort
from grpclib.client import Handler
from grpclib.config import Configuration
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
)
from h2.settings import SettingCodes

from credit_client.frames import NOT_ACCEPTED, ClientFrames, open_frames
from credit_client.keepalive import Keepalive, KeepaliveTimes

_log = logging.getLogger(__name__)

# RFC 9113 section 3.4: a server begins with a SETTINGS frame. h2 reads the text of another
# protocol as the head of a frame of megabytes, and waits for the rest of it.
_FRAME_TYPE_AT = 3
_SETTINGS = b"\x04"

# What a TLS server sends to a client that does not use TLS (RFC 8446 section 5.1).
_TLS_ALERT = b"\x15\x03"

_PING_DATA = bytes(8)


class Watcher(Protocol):
    """Counts which connections answer and which are lost."""

    def answered(self) -> None:
        """Called once per connection, when the first answer to a call arrives."""

    def lost(self) -> None:
        """Called when a connection that was open ends without having brought an answer."""


class _Unwatched:
    def answered(self) -> None:
        pass

    def lost(self) -> None:
        pass


class _Never(asyncio.Event):
    """Replaces the events of a connection that is gone: whatever waits for one fails."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    async def wait(self) -> Literal[True]:
        raise StreamTerminatedError(self._reason)


class _Wire(asyncio.Transport):
    """The socket, for writers that do not check whether it is still open.

    Calls notice the end of their connection when they run next. asyncio logs "socket.send() raised
    exception." for most of what they write until then; here it is dropped.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        # Until Python 3.14 an encrypted transport does not report that the socket beneath it fails.
        tls = getattr(transport, "_ssl_protocol", None)
        self._beneath: asyncio.Transport = getattr(tls, "_transport", None) or transport

    # Any: the standard library's own type for what a socket returns.
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
    """The open calls of a connection, and what the server's frames mean for them.

    Attributes:
        answered: Whether the server has answered a call.
        goaway_received: Whether a graceful GOAWAY has come. New calls need another connection.
        greeted: Done when the server has sent its SETTINGS, with None; or when the connection ends
            before that, with the reason.
    """

    def __init__(
        self, handler: Handler, connection: Connection, keepalive: Keepalive, watcher: Watcher
    ) -> None:
        super().__init__(handler, connection)
        self._keepalive = keepalive
        self._watcher = watcher
        self.answered = False
        self.goaway_received = False
        self.greeted: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._frames = cast(ClientFrames, connection._connection)  # noqa: SLF001 - grpclib has no other way

    def process(self, event: Event) -> None:
        # RFC 9113 section 5.5: what is unknown is ignored. grpclib deletes `processors` on closing.
        process = getattr(self, "processors", {}).get(type(event))
        if process is None:
            return
        if isinstance(event, DataReceived) and not event.flow_controlled_length:
            return
        if isinstance(event, ResponseReceived) and not self.answered:
            self.answered = True
            self._watcher.answered()
        process(event)

    def process_remote_settings_changed(self, event: RemoteSettingsChanged) -> None:
        super().process_remote_settings_changed(event)
        if not self.greeted.done():
            self.greeted.set_result(None)
        if SettingCodes.MAX_CONCURRENT_STREAMS in event.changed_settings:
            # Calls wait for a stream to end; a busy server that allows more streams again ends
            # none.
            self.connection.stream_close_waiter.set()

    def register(self, stream: Stream) -> Callable[[], None]:
        release = super().register(stream)
        if self.connection.is_closing():
            stream.__terminated__("Connection lost")

        def release_and_close() -> None:
            release()
            if self.goaway_received:
                self._close_if_done()

        return release_and_close

    def close(self, reason: str = "Connection closed") -> None:
        self._keepalive.stop()
        if not self.greeted.done():
            self.greeted.set_result(reason)
        for stream in self.streams.values():
            if stream.trailers_received.is_set():
                # Its answer is complete and is read from the buffer. No acknowledgement is sent
                # any more. grpclib would drop the answer.
                stream.buffer._ack_callback = _ignore  # noqa: SLF001
                stream.wrapper = None
        super().close(reason)
        waited_for = self.connection.write_ready, self.connection.stream_close_waiter
        self.connection.write_ready = self.connection.stream_close_waiter = _Never(reason)
        for event in waited_for:
            event.set()

    def process_connection_terminated(self, event: ConnectionTerminated) -> None:
        if event.error_code != ErrorCodes.NO_ERROR:
            super().process_connection_terminated(event)
            return
        if not self.goaway_received:
            self.goaway_received = True
            self._frames.refuse_streams()
            self.connection.stream_close_waiter.set()
        last_stream_id = event.last_stream_id or 0
        for stream_id, stream in list(self.streams.items()):
            if stream_id > last_stream_id:
                stream.__terminated__(NOT_ACCEPTED)
        # Not at once: received data must be read first, and the server waits for its PING's ACK.
        asyncio.get_running_loop().call_soon(self._close_if_done)

    def _close_if_done(self) -> None:
        """Close a connection that the server wants to close, once no call is open on it."""
        if not self.streams and not self.connection.is_closing():
            self.close("the server has closed the connection")


def _ignore(_: int) -> None:
    """Acknowledge nothing."""


class ClientProtocol(H2Protocol):
    """A connection that checks whether the server is alive, and notices its own end.

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
        engine: Engine = Engine.AUTO,
    ) -> None:
        super().__init__(Handler(), config, h2_config)
        self._engine = engine
        self._keepalive_times = keepalive
        self._watcher = watcher or _Unwatched()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop: the socket is open."""
        self.transport = cast(asyncio.Transport, transport)
        self.connection = Connection(
            open_frames(self._engine, self.config, self.h2_config),
            _Wire(self.transport),
            config=self.config,
        )
        self.connection.flush()
        self.connection.initialize()
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._keepalive = Keepalive(self._keepalive_times, self, call_later=loop.call_later)
        self.processor = _Processor(self.handler, self.connection, self._keepalive, self._watcher)

    async def greeted(self) -> None:
        """Wait for the server's greeting, which shows that it is an HTTP/2 server and is alive.

        Raises:
            ConnectionAbortedError: The connection ended before.
        """
        # Other tasks wait for it too, and one of them may be cancelled.
        await asyncio.wait([self.processor.greeted])
        reason = self.processor.greeted.result()
        if reason is not None:
            raise ConnectionAbortedError(errno.ECONNABORTED, reason)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: the server has sent something."""
        if self.connection.is_closing():
            return
        if self._keepalive.overdue is not None:
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

        An encrypted connection still accepts writes now, and loses them.
        """
        if self._beginning:
            self.processor.close("Connection lost")

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the event loop: the socket is closed."""
        self.ended_by = exc
        if not self._beginning:
            # Many servers, asyncio's too, close the connection without any bytes where they reject
            # a client certificate, or where they expect TLS.
            encrypted = self.transport.get_extra_info("ssl_object") is not None
            self.processor.close(
                "it was closed right after the TLS handshake, as by a server that requires a client"
                " certificate, or another one"
                if encrypted
                else "it was closed before the server sent anything, as by a server that expects"
                " TLS: connect with `tls` if it does"
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
        # What is still in the socket's buffer would keep the socket open: the server reads nothing.
        abort(self.transport)
