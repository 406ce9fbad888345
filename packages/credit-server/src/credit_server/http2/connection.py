"""One connection: opens it, reads it in turns with the others, and checks its time limits.

Reading produces events. `ServerProcessor` handles them: it starts streams, and limits the data
that they hold. The server calls `check` about once a second: one timer for all connections, and
tests pass the time. How a connection ends is in `drain`.
"""

import asyncio
import contextlib
import socket
from functools import partial
from typing import cast

from credit_models.transports import abort
from grpclib.config import Configuration
from grpclib.protocol import EventsProcessor, Stream
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RequestReceived,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError as H2ProtocolError

from credit_server.http2.connections import Closing, Connections
from credit_server.http2.drain import DrainableProtocol
from credit_server.http2.engine import OpenFrames
from credit_server.http2.frames import OversizedRequest, RequestReset, ServerFrames
from credit_server.http2.header_block import without_bytes
from credit_server.http2.incoming import FloodError
from credit_server.http2.limits import ConnectionLimits, TimeLimits
from credit_server.http2.peer import ServerPeer
from credit_server.http2.stream import (
    MESSAGE_PREFIX_BYTES,
    ServerConnection,
    ServerStream,
    StreamHandler,
    ignore_read,
)

_KEEPALIVE_DATA = bytes(8)


class ServerProtocol(DrainableProtocol):
    """One connection."""

    processor: "ServerProcessor"

    def __init__(
        self,
        handler: StreamHandler,
        config: Configuration,
        limits: ConnectionLimits,
        connections: "Connections[ServerProtocol]",
        open_frames: OpenFrames = ServerFrames,
    ) -> None:
        super().__init__(handler, config, limits, connections)
        self._open_frames = open_frames
        self._connections = connections
        self._address = ""
        self._reads_on = False

    # ---- opening

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the connection: the socket is connected, and its TLS handshake complete."""
        self._transport = cast(asyncio.Transport, transport)
        peer = ServerPeer(self._transport)
        self._address, self.peer = peer.address, peer.name
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            # RFC 9113, section 3.2: over TLS, HTTP/2 is negotiated by ALPN.
            self._closing = Closing.PROTOCOL
        else:
            self._closing = self._connections.admit(self, self._address)
        if self._closing is not None:
            self._connections.count(self.peer, self._closing)
            self.handler.close()
            abort(self._transport)
            return
        self._open(peer)

    def _open(self, peer: ServerPeer) -> None:
        limits, now = self._limits, self._clock()
        self._times = TimeLimits(limits, now)
        self._transport.set_write_buffer_limits(high=limits.write_buffer_bytes)
        _limit_unsent(self._transport, limits.write_buffer_bytes)
        self._frames = self._open_frames(limits, now)
        self._frames.initiate_connection()
        more = limits.connection_window_bytes - self._frames.inbound_flow_control_window
        if more > 0:
            self._frames.increment_flow_control_window(more)
        self.connection = ServerConnection(
            self._frames,
            self._transport,
            config=self.config,
            peer=peer,
            lists_max=limits.lists_max,
            clock=self._clock,
        )
        self.connection.flush()
        self.processor = ServerProcessor(
            self, self._frames, request_bytes_max=limits.request_bytes_max
        )
        if self._connections.draining:
            self.drain(Closing.SHUTDOWN)

    # ---- reading

    def data_received(self, data: bytes) -> None:
        """Read what the client has sent."""
        if self._closing is None:
            self._times.received_at = self._clock()
            self._times.ping_sent_at = None
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Read one slice of the data; the rest is read after the other connections' turns."""
        frames, times = self._frames, self._times
        frames.budgets.now = self._clock()
        try:
            events = frames.receive_data(data)
            self.connection.flush()
            # If an exception below closes the connection, the end of its drain must not close it
            # too.
            self._processing = True
            self.processor.process_slice(events)
            self._processing = False
            if self._drain is not None:
                self._end_if_drained()
            self.connection.flush()
        except H2ProtocolError as error:
            flood = isinstance(error, FloodError)
            # h2 has written a GOAWAY with the error's code.
            self._close(Closing.FLOOD if flood else Closing.PROTOCOL, None, without_bytes(error))
            return
        except Exception as error:  # noqa: BLE001 - nothing that a client sends may go beyond this
            self._close(Closing.INTERNAL, ErrorCodes.INTERNAL_ERROR, type(error).__name__)
            return
        if not frames.in_header_block:
            times.header_block_since = None
        elif times.header_block_since is None:
            times.header_block_since = times.received_at
        if self._reads_on or self._closing is not None or self._transport.is_closing():
            return
        if frames.has_more:
            self._reads_on = True
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_rest)
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def _read_rest(self) -> None:
        self._reads_on = False
        if self._closing is None and not self._transport.is_closing():
            self._read(b"")

    def stream_closed(self) -> None:
        """Record that a stream has closed."""
        if not self.processor.streams:
            self._times.idle_since = self._clock()
        if self._drain is not None:
            self._end_if_drained()

    # ---- writing

    def pause_writing(self) -> None:
        """Stop writing: the client does not read what it is sent."""
        super().pause_writing()
        self._times.write_blocked_since = self._clock()

    def resume_writing(self) -> None:
        """Write again: the client has read what it was sent."""
        super().resume_writing()
        self._times.write_blocked_since = None

    @property
    def short_streams(self) -> int:
        """The number of open streams that do not last; see `StreamHandler.lasting`."""
        return len(self.processor.streams) - self.handler.lasting

    def limit_streams(self, streams_max: int | None) -> None:
        """Allow the client fewer open streams than usual; None: as many as usual.

        Lasting streams are not counted: they may last longer than the load, and a client with a
        small quota could open no other stream meanwhile. A client without an open stream is sent
        only a lower limit, not a higher one: to send one to ten thousand idle clients takes 0.2 s
        with their acknowledgements, even without the sockets' part, and a round has only 0.25 s.
        """
        if self._closing is not None or self._transport.is_closing():
            return
        usual = self._limits.streams_max
        share = usual if streams_max is None else min(streams_max + self.handler.lasting, usual)
        if streams_max is None or self.processor.streams or share < self._frames.streams_wanted:
            self._frames.limit_streams(share)
        self.connection.flush()

    # ---- time limits

    def check(self, now: float) -> None:
        """Close the connection, or end its streams, if a time limit has passed."""
        times = self._times
        if times.close_at is not None:
            if times.is_close_due(now, unsent=self._transport.get_write_buffer_size() > 0):
                abort(self._transport)
        elif self._transport.is_closing():
            # The client or the server has closed its side. The client may not read what is left.
            if times.is_silent(now):
                abort(self._transport)
        elif times.is_stalled(now, times.write_blocked_since):
            self._abort(Closing.STALLED)
        elif not self._frames.preface_received and times.is_preface_late(now):
            self._close(Closing.HANDSHAKE, ErrorCodes.PROTOCOL_ERROR)
        elif times.is_header_block_late(now):
            self._close(Closing.HEADERS, ErrorCodes.ENHANCE_YOUR_CALM)
        else:
            self._check_end(now)
            if self.processor.streams:
                self._check_streams(now)

    def _check_end(self, now: float) -> None:
        if self._drain is not None:
            if self._drain.is_overdue(now):
                self._send_final_goaway()
        elif self._times.is_old(now):
            self.drain(Closing.AGE)
        elif not self.processor.streams and self._times.is_idle(now):
            self.drain(Closing.IDLE)

    def _check_streams(self, now: float) -> None:
        times = self._times
        if times.is_keepalive_unanswered(now):
            self._abort(Closing.KEEPALIVE)
            return
        if times.is_old(now, grace=True):
            self.cut_off()
            return
        if times.is_keepalive_due(now):
            times.ping_sent_at = now
            self._frames.ping(_KEEPALIVE_DATA)
            self.connection.flush()
        for stream in list(self.processor.streams.values()):
            if times.is_stalled(now, cast(ServerStream, stream).stalled_since()):
                self.reset_stream(stream, "the client does not take its answer")

    # ---- the end of the socket

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection: the socket is closed."""
        if self not in self._connections.members:
            return
        self._connections.forget(self, self._address)
        if self._closing is None:
            self._closing = Closing.CLIENT if self._drain is None else self._drain.reason
            self._connections.count(self.peer, self._closing)
        super().connection_lost(exc)


class ServerProcessor(EventsProcessor):
    """Handles events as grpclib does, except for those that would break a connection."""

    def __init__(
        self, protocol: ServerProtocol, frames: ServerFrames, *, request_bytes_max: int
    ) -> None:
        """Create the processor of a connection.

        Args:
            protocol: The connection.
            frames: Its frames.
            request_bytes_max: The bytes of requests that all of its open streams may hold.
        """
        super().__init__(protocol.handler, protocol.connection)
        self.processors[OversizedRequest] = self.process_request_received
        self.processors[RequestReset] = self.process_request_reset
        self._protocol = protocol
        self._frames = frames
        self._closed = False
        protocol.connection.note_read = self._note_read
        self._request_bytes_max = request_bytes_max
        self._request_bytes = 0

    def process_slice(self, events: list[Event]) -> None:
        """Handle the events of one slice; requests that are begun and reset in it are not started.

        An event without a handler is ignored: RFC 9113, section 4.1, requires it for frames of
        unknown types, and grpclib deletes `processors` when the connection is closed.
        """
        reset = {event.stream_id for event in events if isinstance(event, StreamReset)}
        for event in _without_begun(events, reset) if reset else events:
            process = getattr(self, "processors", {}).get(type(event))
            if process is not None:
                process(event)

    def close(self, reason: str = "Connection closed") -> None:
        """End all streams, and remove the cyclic references, as grpclib removes its own.

        A closed connection is then freed without the garbage collector, which runs seldom.
        """
        super().close(reason)
        self._closed = True
        self._protocol.connection.note_read = ignore_read
        del self._protocol

    def process_request_reset(self, event: RequestReset) -> None:
        """Note why a request was reset, and end its stream if it has begun."""
        self._protocol.note("request reset", event.reason)
        self.process_stream_reset(event)

    def process_request_received(self, event: RequestReceived) -> None:
        """Begin a stream, even if its headers are too long and it will be rejected."""
        stream = self._protocol.connection.begin_stream(event.stream_id)
        if isinstance(event, OversizedRequest):
            stream.too_long = event.reason
        self.streams[event.stream_id] = stream
        release = partial(self._release, stream)
        self.handler.accept(stream, event.headers, release)  # type: ignore[arg-type] # as in grpclib

    def _release(self, stream: ServerStream) -> None:
        """Count a stream as closed, and return its unread bytes to the client's window."""
        assert stream.id is not None  # noqa: S101 - for the type checker
        del self.streams[stream.id]
        if stream.buffer.untaken and not self.connection.is_closing():
            self.connection.ack(stream.id, stream.buffer.unacked_size())
        self._request_bytes -= stream.data_received
        if not self._closed:
            self._protocol.stream_closed()

    def process_data_received(self, event: DataReceived) -> None:
        """Buffer a part of a request.

        Flow control bounds the data that is unread. Data that is read and waits for the rest of its
        message is bounded here.
        """
        if not event.flow_controlled_length:
            return  # an empty frame
        super().process_data_received(event)
        stream = cast(ServerStream | None, self.streams.get(event.stream_id))
        if stream is None:
            return
        # gRPC's clients send each message of a stream in a frame of its own, and small frames count
        # as a flood. Flow control bounds how many messages are unread. A frame that carries less
        # than the prefix of a message is not refunded.
        if stream.takes_messages and len(event.data) >= MESSAGE_PREFIX_BYTES:
            self._frames.refund_frame()
        self._request_bytes += len(event.data)
        if self._request_bytes > self._request_bytes_max:
            self._protocol.reset_stream(stream, "the connection's requests are too long")

    def _note_read(self, stream: Stream, size: int) -> None:
        """Release the bytes of a message that a call has read from a stream of messages."""
        stream.data_received -= size
        self._request_bytes -= size

    def process_ping_ack_received(self, event: PingAckReceived) -> None:
        """Note that the client has read all frames that were sent before the PING."""
        super().process_ping_ack_received(event)
        self._protocol.ping_acknowledged(event.ping_data)

    def process_connection_terminated(self, event: ConnectionTerminated) -> None:
        """Drain the connection after the client's GOAWAY; grpclib would end its streams."""
        self._protocol.goaway_received()

    def process_window_updated(self, event: WindowUpdated) -> None:
        """Let streams continue to send.

        A client sends a WINDOW_UPDATE for nearly every call, and may have hundreds of calls open:
        only the streams that are sending are checked, not all of them as in grpclib.
        """
        connection = self._protocol.connection
        connection.progressed_at = now = connection.clock()
        for stream in list(connection.sending):
            if event.stream_id in (0, stream.id):
                stream.note_progress(now)


def _without_begun(events: list[Event], reset: set[int]) -> list[Event]:
    """Remove the requests that were begun and reset in one slice: none is started.

    Their data stays in: grpclib returns the flow-control window for it.

    Args:
        events: The events of the slice.
        reset: The streams that are reset in it.
    """
    begun = {event.stream_id for event in events if isinstance(event, RequestReceived)}
    begun_and_reset = reset & begun
    return [
        event
        for event in events
        if not (
            isinstance(event, RequestReceived | StreamReset)
            and not isinstance(event, RequestReset)
            and event.stream_id in begun_and_reset
        )
    ]


def _limit_unsent(transport: asyncio.Transport, size: int) -> None:
    """Make the kernel buffer no more for a client than the server does; its default is megabytes.

    A client that never reads is detected after few pages of its lists instead of hundreds.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with contextlib.suppress(OSError):  # the client may have disconnected already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)
