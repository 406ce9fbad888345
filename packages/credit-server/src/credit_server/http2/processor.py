"""Handles the HTTP/2 events of one connection: starts streams, and bounds what they hold."""

from functools import partial
from typing import cast

from grpclib.protocol import EventsProcessor, Stream
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    RequestReceived,
    StreamReset,
    WindowUpdated,
)
from h2.events import Event as H2Event

from credit_server.http2.drain import DrainableProtocol
from credit_server.http2.frames import OversizedRequest, RequestReset, ServerFrames
from credit_server.http2.stream import MESSAGE_PREFIX_BYTES, ServerStream, ignore_read


class ServerProcessor(EventsProcessor):
    """Handles events as grpclib does, except for those that would break a connection."""

    def __init__(
        self, protocol: DrainableProtocol, frames: ServerFrames, *, request_bytes_max: int
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

    def process_slice(self, events: list[H2Event]) -> None:
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
        """Begin a stream, also one that is rejected for its long headers."""
        stream = self._protocol.connection.begin_stream(event.stream_id)
        if isinstance(event, OversizedRequest):
            stream.too_long = event.reason
        self.streams[event.stream_id] = stream
        self.handler.accept(stream, event.headers, partial(self._release, stream))  # type: ignore[arg-type] # as grpclib's own

    def _release(self, stream: ServerStream) -> None:
        """Count a stream as closed, and return to the client's window what was not read of it."""
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
        # than the prefix of a message is not given back.
        if stream.takes_messages and len(event.data) >= MESSAGE_PREFIX_BYTES:
            self._frames.refund_frame()
        self._request_bytes += len(event.data)
        if self._request_bytes > self._request_bytes_max:
            self._protocol.reset_stream(stream, "the connection's requests are too long")

    def _note_read(self, stream: Stream, size: int) -> None:
        """Release the bytes of a message that a call has read of a stream of messages."""
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


def _without_begun(events: list[H2Event], reset: set[int]) -> list[H2Event]:
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
