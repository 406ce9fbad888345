"""One connection: reads it in turns with the others, and ends it when its peer breaks the limits.

Its time limits are looked at by `check`, which the server calls about once a second: one timer for
all connections, and tests bring the time themselves.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable
from typing import cast

from grpclib.config import Configuration
from grpclib.protocol import H2Protocol, Stream
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import ProtocolError as H2ProtocolError

from credit_server.grpc.handler import CallHandler
from credit_server.http2.connections import Closing, Connections
from credit_server.http2.drain import PING_DATA, Drain
from credit_server.http2.frames import FloodError, ServerFrames
from credit_server.http2.header_block import without_bytes
from credit_server.http2.limits import ConnectionLimits
from credit_server.http2.peer import ServerPeer
from credit_server.http2.processor import ServerProcessor, without_stillborn
from credit_server.http2.stream import ServerConnection, server_stream

_PING_DATA = bytes(8)
_AGE_JITTER = 0.1
"""Connections that were opened together do not all come back together."""


class ServerProtocol(H2Protocol):
    """One connection.

    Attributes:
        peer: Who is at the other end, for the log.
    """

    handler: CallHandler
    processor: "ServerProcessor"
    connection: "ServerConnection"

    def __init__(
        self,
        handler: CallHandler,
        config: Configuration,
        h2_config: H2Configuration,
        limits: ConnectionLimits,
        connections: "Connections[ServerProtocol]",
    ) -> None:
        super().__init__(handler, config, h2_config)
        self.peer = self._address = ""
        self._limits = limits
        self._connections = connections
        self._closing: Closing | None = None
        self._drain: Drain | None = None
        self._reads_on = self._processing = False
        self._block_since: float | None = None
        self._pinged: float | None = None
        self._blocked_since: float | None = None
        self._close_by: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop: the socket is open, and its TLS handshake done."""
        self._transport = cast(asyncio.Transport, transport)
        peer = ServerPeer(self._transport)
        self._address, self.peer = peer.address, peer.name
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            # RFC 9113, section 3.2: over TLS, HTTP/2 is agreed on by ALPN.
            self._closing = Closing.PROTOCOL
        else:
            self._closing = self._connections.admit(self, self._address)
        if self._closing is not None:
            self._connections.count(self.peer, self._closing)
            self.handler.close()
            self._transport.abort()
            return
        self._open()

    def _open(self) -> None:
        limits, now = self._limits, self._connections.clock()
        self._opened = self._heard = self._idle_since = now
        self._age_seconds = limits.age_seconds * random.uniform(  # noqa: S311 - no secret
            1 - _AGE_JITTER, 1 + _AGE_JITTER
        )
        self._transport.set_write_buffer_limits(high=limits.write_buffer_bytes)
        _limit_unsent(self._transport, limits.write_buffer_bytes)
        self._frames = ServerFrames(self.h2_config, limits, now)
        self._frames.initiate_connection()
        more = limits.connection_window_bytes - self._frames.inbound_flow_control_window
        if more > 0:
            self._frames.increment_flow_control_window(more)
        self.connection = ServerConnection(
            self._frames,
            self._transport,
            config=self.config,
            lists_max=limits.lists_max,
            clock=self.clock,
        )
        self.connection.flush()
        self.processor = ServerProcessor(self)
        if self._connections.draining:
            self.drain(Closing.SHUTDOWN)

    @property
    def request_bytes_max(self) -> int:
        """How many bytes of requests the connection's open calls may hold."""
        return self._limits.request_bytes_max

    @property
    def clock(self) -> Callable[[], float]:
        """The time in seconds."""
        return self._connections.clock

    @property
    def busy(self) -> bool:
        """Whether it has open calls that a stop waits for."""
        return self._closing is None and self.handler.awaited > 0

    @property
    def pressing(self) -> int:
        """How many calls it has open that add to the load; see `CallHandler.lasting`."""
        return len(self.processor.streams) - self.handler.lasting

    def ration(self, streams_max: int | None) -> None:
        """Let the client have fewer streams open than usual; None: as many as usual.

        Lists and calls that watch the health are not counted: they may last longer than the load,
        and a client with a small ration could call nothing else meanwhile. Who has no call open is
        told of less, and not of more: to tell ten thousand idle ones takes 0.2 s with what they
        acknowledge, even without the sockets' part, and a round has no more than 0.25 s.
        """
        if self._closing is not None or self._transport.is_closing():
            return
        usual = self._limits.streams_max
        share = usual if streams_max is None else min(streams_max + self.handler.lasting, usual)
        if streams_max is None or self.processor.streams or share < self._frames.streams_wanted:
            self._frames.limit_streams(share)
        self.connection.flush()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: the client has sent something."""
        if self._closing is None:
            self._heard = self.clock()
            self._pinged = None
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Read a slice of what has come; the rest after the other connections' turns."""
        self._frames.refill(self.clock())
        try:
            events = self._frames.receive_data(data)
            self.connection.flush()
            self._process(without_stillborn(events))
            self.connection.flush()
        except H2ProtocolError as error:
            flood = isinstance(error, FloodError)
            # h2 has made a GOAWAY that says what was wrong.
            self._leave(Closing.FLOOD if flood else Closing.PROTOCOL, None, without_bytes(error))
        except Exception as error:  # noqa: BLE001 - whatever a peer sends must end here
            self._leave(Closing.INTERNAL, ErrorCodes.INTERNAL_ERROR, type(error).__name__)
        else:
            self._read_on()

    def _process(self, events: list[Event]) -> None:
        self._processing = True
        try:
            for event in events:
                self.processor.process(event)
        finally:
            self._processing = False
        self._end_if_drained()

    def _read_on(self) -> None:
        if not self._frames.in_header_block:
            self._block_since = None
        elif self._block_since is None:
            self._block_since = self._heard
        if self._reads_on or self._closing is not None or self._transport.is_closing():
            return
        if self._frames.has_more:
            self._reads_on = True
            self._transport.pause_reading()
            self.handler.loop.call_soon(self._read_rest)
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def _read_rest(self) -> None:
        self._reads_on = False
        if self._closing is None and not self._transport.is_closing():
            self._read(b"")

    def pause_writing(self) -> None:
        """Called by the event loop: the client does not take what it is sent."""
        super().pause_writing()
        self._blocked_since = self.clock()

    def resume_writing(self) -> None:
        """Called by the event loop: the client has taken it."""
        super().resume_writing()
        self._blocked_since = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the event loop: the socket is closed."""
        if self not in self._connections.members:
            return
        self._connections.forget(self, self._address)
        if self._closing is None:
            self._closing = Closing.CLIENT if self._drain is None else self._drain.reason
            self._connections.count(self.peer, self._closing)
        super().connection_lost(exc)

    def check(self, now: float) -> None:
        """Close the connection, or end its calls, if a time limit has passed."""
        limits = self._limits
        if self._close_by is not None:
            unsent = self._transport.get_write_buffer_size()
            if now >= self._close_by + (limits.stalled_seconds if unsent else 0.0):
                self._transport.abort()
        elif self._transport.is_closing():
            # The client has said goodbye, or the server has; it may not read what is left for it.
            if now - self._heard >= limits.stalled_seconds:
                self._transport.abort()
        elif _passed(self._blocked_since, limits.stalled_seconds, now):
            self._abort(Closing.STALLED)
        elif not self._frames.greeted and now - self._opened >= limits.handshake_seconds:
            self._leave(Closing.HANDSHAKE, ErrorCodes.PROTOCOL_ERROR)
        elif _passed(self._block_since, limits.handshake_seconds, now):
            self._leave(Closing.HEADERS, ErrorCodes.ENHANCE_YOUR_CALM)
        else:
            self._check_end(now)
            if self.processor.streams:
                self._check_calls(now)

    def _check_end(self, now: float) -> None:
        if self._drain is not None:
            if self._drain.is_overdue(now):
                self._take_no_more()
        elif self._overdue(now) >= 0:
            self.drain(Closing.AGE)
        elif not self.processor.streams and now - self._idle_since >= self._limits.idle_seconds:
            self.drain(Closing.IDLE)

    def _check_calls(self, now: float) -> None:
        limits = self._limits
        if _passed(self._pinged, limits.keepalive_timeout_seconds, now):
            self._abort(Closing.KEEPALIVE)
            return
        if self._overdue(now) >= limits.age_grace_seconds:
            self.cut_off()
            return
        if self._pinged is None and now - self._heard >= limits.keepalive_seconds:
            self._pinged = now
            self._frames.ping(_PING_DATA)
            self.connection.flush()
        for stream in list(self.processor.streams.values()):
            if _passed(server_stream(stream).stalled_since(), limits.stalled_seconds, now):
                self.end_call(stream, "the client does not take its answer")

    def _overdue(self, now: float) -> float:
        """Tell for how many seconds the connection has been too old; below 0: it is not."""
        return now - self._opened - self._age_seconds if self._age_seconds else -1.0

    def drain(self, reason: Closing) -> None:
        """Begin to end the connection without losing a call: see `Drain`."""
        if self._closing is not None or self._drain is not None or self._transport.is_closing():
            return
        self._drain = Drain(self._frames, reason, self.clock())
        self.connection.flush()

    def ping_acknowledged(self, data: bytes) -> None:
        """Note that the client has read all that was sent before a PING."""
        if self._drain is not None and data == PING_DATA:
            self._take_no_more()

    def client_leaves(self) -> None:
        """Note that the client has sent GOAWAY: its calls go on, and it closes the connection."""
        self.drain(Closing.CLIENT)

    def _take_no_more(self) -> None:
        if self._closing is None and self._drain is not None and not self._drain.final:
            self._drain.take_no_more()
            self.connection.flush()
            self._end_if_drained()

    def call_ended(self) -> None:
        """Note that a call is not open any more."""
        if not self.processor.streams:
            self._idle_since = self.clock()
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        """Close the connection once its last call has been answered.

        Calls that watch the health never end by themselves: they are ended once no other is open.
        """
        if self._closing is not None or self._drain is None or not self._drain.final:
            return
        if self._processing:  # the next event may be a call that the final GOAWAY promises to serve
            return
        if not self.processor.streams:
            self._leave(self._drain.reason, None)
        elif not self.handler.awaited:
            self._end_calls()

    def cut_off(self) -> None:
        """End the calls that still run, as UNAVAILABLE, and then the connection."""
        if self._closing is None:
            self.drain(Closing.SHUTDOWN)
            self._take_no_more()
            self._end_calls()

    def abort(self) -> None:
        """Close the connection at once; what was not sent is lost."""
        self._transport.abort()

    def end_call(self, stream: Stream, reason: str) -> None:
        """End one call without an answer; gRPC's clients see RESOURCE_EXHAUSTED."""
        self.handler.cancel(stream)
        if stream.closable:
            stream.reset_nowait(ErrorCodes.ENHANCE_YOUR_CALM)
        self.note("call ended", reason)

    def note(self, event: str, reason: str) -> None:
        """Log what the peer did."""
        self._connections.note(event, self.peer, reason)

    def _leave(self, closing: Closing, code: ErrorCodes | None, detail: str = "") -> None:
        """Send GOAWAY, end all calls, and wait a little for the client to have read it.

        A socket that is closed with bytes unread takes back what was sent last. So they are read
        and thrown away until the client closes too.

        Args:
            closing: Why.
            code: What the GOAWAY says; None where h2 has made one.
            detail: More for the log.
        """
        if self._closing is not None or self._transport.is_closing():
            return
        self._closing = closing
        self._connections.count(self.peer, closing, detail)
        if code is not None:
            self._frames.close_connection(code)
        self.connection.flush()
        self.connection.silent = True
        self.handler.close()
        drained = self._drain is not None and closing is self._drain.reason
        if not drained and not self.connection.write_ready.is_set():
            self._transport.abort()
            return
        self._close_by = self.clock() + self._limits.closing_seconds
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _abort(self, closing: Closing) -> None:
        """Close the connection of a client that would not read why."""
        self._closing = closing
        self._connections.count(self.peer, closing)
        self._transport.abort()

    def _end_calls(self) -> None:
        for stream in list(self.processor.streams.values()):
            self.handler.cut_off(stream)


def _limit_unsent(transport: asyncio.Transport, size: int) -> None:
    """Have the kernel hold no more for a client than the server does; by itself it takes megabytes.

    A client that never reads is found out after few pages of its lists instead of hundreds.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with contextlib.suppress(OSError):  # the client may have gone already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)


def _passed(since: float | None, seconds: float, now: float) -> bool:
    return since is not None and now - since >= seconds
