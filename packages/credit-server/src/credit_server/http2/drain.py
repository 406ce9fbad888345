"""The end of one connection: by a drain, by GOAWAY for a fault, or at once.

A drain loses no request (RFC 9113, section 6.8):

1. The server sends GOAWAY with the highest stream id there is, and a PING. The client opens no more
   streams on this connection. Streams that cross the GOAWAY are served.
2. The client acknowledges the PING after all streams that it opened before it read the GOAWAY. The
   server sends a second GOAWAY with the id of the last one. Later streams are refused with
   REFUSED_STREAM, which guarantees that nothing happened: the client may send them to another
   server.
3. The server closes the connection once its streams have been answered.

A single GOAWAY with the last stream id would lose the requests that cross it: a proxy does not
retry a POST by itself.
"""

import asyncio

from credit_models.transports import abort
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol, Stream
from h2.errors import ErrorCodes

from credit_server.http2.connections import Closing, PeerLog
from credit_server.http2.frames import H2_CONFIG, ServerFrames
from credit_server.http2.limits import ConnectionLimits, TimeLimits
from credit_server.http2.stream import ServerConnection, StreamHandler

# Distinguishes the PING of a drain from a keepalive PING.
_PING_DATA = b"draining"
# How long a client has to acknowledge the PING. A round trip takes far less; a client that is
# suspended acknowledges nothing, and must not keep a server from stopping.
_PING_SECONDS_MAX = 5.0


class Drain:
    """How far the drain of one connection has come.

    Attributes:
        reason: Why the connection ends.
        final: Whether the GOAWAY with the last stream id was sent, so that no stream can be added.
    """

    def __init__(self, frames: ServerFrames, reason: Closing, now: float) -> None:
        """Write the first GOAWAY and the PING.

        Args:
            frames: The connection's frames; the caller flushes them.
            reason: Why the connection ends.
            now: The time in seconds.
        """
        self.reason = reason
        self.final = False
        self._frames = frames
        self._acknowledged_by = now + _PING_SECONDS_MAX
        frames.send_shutdown_notice()
        frames.ping(_PING_DATA)

    def is_overdue(self, now: float) -> bool:
        """Return whether the client has left the PING unacknowledged for too long."""
        return not self.final and now >= self._acknowledged_by

    def send_final_goaway(self) -> None:
        """Write the second GOAWAY: streams that come later are refused."""
        if not self.final:
            self.final = True
            self._frames.send_final_goaway()


class DrainableProtocol(H2Protocol):
    """A connection as far as it ends: it is drained, closed with GOAWAY, or aborted.

    Attributes:
        peer: The client's address, for the log.
    """

    handler: StreamHandler
    connection: ServerConnection
    _transport: asyncio.Transport
    _frames: ServerFrames
    _times: TimeLimits

    def __init__(
        self,
        handler: StreamHandler,
        config: Configuration,
        limits: ConnectionLimits,
        peer_log: PeerLog,
    ) -> None:
        super().__init__(handler, config, H2_CONFIG)
        self.peer = ""
        self._limits = limits
        self._peer_log = peer_log
        self._clock = peer_log.clock
        self._closing: Closing | None = None
        self._drain: Drain | None = None
        self._processing = False

    @property
    def busy(self) -> bool:
        """Whether it has open streams that a drain waits for."""
        return self._closing is None and self.handler.awaited > 0

    def drain(self, reason: Closing) -> None:
        """Begin to end the connection without losing a request."""
        if self._closing is not None or self._drain is not None or self._transport.is_closing():
            return
        self._drain = Drain(self._frames, reason, self._clock())
        self.connection.flush()
        self.connection.drain()

    def ping_acknowledged(self, data: bytes) -> None:
        """Note that the client has read all frames that were sent before a PING."""
        if self._drain is not None and data == _PING_DATA:
            self._send_final_goaway()

    def goaway_received(self) -> None:
        """Drain the connection: the client closes it once its streams are answered."""
        self.drain(Closing.CLIENT)

    def cut_off(self) -> None:
        """Answer the open streams as UNAVAILABLE, and then close the connection."""
        if self._closing is None:
            self.drain(Closing.SHUTDOWN)
            self._send_final_goaway()
            self._cut_off_streams()

    def abort(self) -> None:
        """Close the connection at once; unsent data are lost."""
        abort(self._transport)

    def reset_stream(self, stream: Stream, reason: str) -> None:
        """End one stream without an answer; gRPC's clients see RESOURCE_EXHAUSTED."""
        self.handler.cancel(stream)
        if stream.closable:
            stream.reset_nowait(ErrorCodes.ENHANCE_YOUR_CALM)
        self.note("call ended", reason)

    def note(self, event: str, reason: str) -> None:
        """Log what the client did."""
        self._peer_log.note(event, self.peer, reason)

    def _send_final_goaway(self) -> None:
        if self._closing is None and self._drain is not None and not self._drain.final:
            self._drain.send_final_goaway()
            self.connection.flush()
            self._end_if_drained()

    def _end_if_drained(self) -> None:
        """Close the connection once its last stream has been answered.

        Streams that the drain does not wait for may never end by themselves. They are cut off once
        no other is open.
        """
        if self._closing is not None or self._drain is None or not self._drain.final:
            return
        if self._processing:  # the next event may be a request that the final GOAWAY promises
            return
        if not self.processor.streams:
            self._close(self._drain.reason, None)
        elif not self.handler.awaited:
            self._cut_off_streams()

    def _cut_off_streams(self) -> None:
        for stream in list(self.processor.streams.values()):
            self.handler.cut_off(stream)

    def _close(self, closing: Closing, code: ErrorCodes | None, detail: str = "") -> None:
        """Send GOAWAY, end all streams, and give the client a moment to read the GOAWAY.

        A socket that is closed with data unread discards what was sent last. So data are read and
        dropped until the client closes its side too.

        Args:
            closing: Why the connection is closed.
            code: The GOAWAY's error code; None if h2 has written the GOAWAY.
            detail: More for the log.
        """
        if self._closing is not None or self._transport.is_closing():
            return
        self._closing = closing
        self._peer_log.count(self.peer, closing, detail)
        if code is not None:
            self._frames.close_connection(code)
        self.connection.flush()
        self.connection.output_ended = True
        self.handler.close()
        drained = self._drain is not None and closing is self._drain.reason
        if not drained and not self.connection.write_ready.is_set():
            abort(self._transport)
            return
        self._times.close_at = self._clock() + self._limits.closing_seconds
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _abort(self, closing: Closing) -> None:
        """Close the connection of a client that does not read."""
        self._closing = closing
        self._peer_log.count(self.peer, closing)
        abort(self._transport)
