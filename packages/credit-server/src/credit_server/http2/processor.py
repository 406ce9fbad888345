"""Handles the HTTP/2 events of one connection: hands calls over, and bounds what they send."""

from collections.abc import Callable
from typing import TYPE_CHECKING

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

from credit_server.http2.frames import LongRequest, RequestRefused
from credit_server.http2.stream import server_stream

if TYPE_CHECKING:  # the connection imports this module
    from credit_server.http2.connection import ServerProtocol


class ServerProcessor(EventsProcessor):
    """Handles HTTP/2 events as grpclib does, but for those that would break a connection."""

    def __init__(self, protocol: "ServerProtocol") -> None:
        super().__init__(protocol.handler, protocol.connection)
        self.processors[LongRequest] = self.process_long_request
        self._protocol = protocol
        self._request_bytes = 0

    def process(self, event: H2Event) -> None:
        """Handle one event."""
        if isinstance(event, DataReceived) and not event.flow_controlled_length:
            return  # an empty frame, which grpclib's buffer would take for the end of the stream
        if isinstance(event, RequestRefused):
            self._protocol.note("request reset", event.reason)
            self.process_stream_reset(event)
        # RFC 9113, section 4.1: frames of unknown types are ignored. And grpclib deletes
        # `processors` when the connection is closed.
        elif type(event) in getattr(self, "processors", ()):
            super().process(event)

    def process_long_request(self, event: LongRequest) -> None:
        """Begin a call that is rejected for its long headers."""
        stream = self.connection.create_stream(stream_id=event.stream_id)
        server_stream(stream).too_long = event.reason
        release_stream = self.register(stream)
        self.handler.accept(stream, event.headers, release_stream)  # type: ignore[arg-type] # as grpclib's own

    def register(self, stream: Stream) -> Callable[[], None]:
        """Count a call in; returns what counts it out."""
        release = super().register(stream)

        def release_and_count() -> None:
            release()
            self._request_bytes -= stream.data_received
            self._protocol.call_ended()

        return release_and_count

    def process_data_received(self, event: DataReceived) -> None:
        """Take in a part of a request.

        Flow control bounds what is unread. What is read and waits for the rest of its message is
        bounded here.
        """
        super().process_data_received(event)
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            self._request_bytes += len(event.data)
            if self._request_bytes > self._protocol.request_bytes_max:
                self._protocol.end_call(stream, "the connection's requests are too long")

    def process_ping_ack_received(self, event: PingAckReceived) -> None:
        """Note that the client has read all that was sent before the PING."""
        super().process_ping_ack_received(event)
        self._protocol.ping_acknowledged(event.ping_data)

    def process_connection_terminated(self, event: ConnectionTerminated) -> None:
        """Note that the client leaves; grpclib would end its calls."""
        self._protocol.client_leaves()

    def process_window_updated(self, event: WindowUpdated) -> None:
        """Let streams send on."""
        super().process_window_updated(event)
        streams = self.streams
        for stream in (
            streams.values()
            if event.stream_id == 0
            else filter(None, [streams.get(event.stream_id)])
        ):
            server_stream(stream).moves()


def without_stillborn(events: list[H2Event]) -> list[H2Event]:
    """Leave out the calls that were begun and reset in the same slice: nothing is started for them.

    Their data stays in: grpclib gives the flow control's window back for it.
    """
    reset = {event.stream_id for event in events if isinstance(event, StreamReset)}
    if not reset:
        return events
    begun = {event.stream_id for event in events if isinstance(event, RequestReceived)}
    stillborn = reset & begun
    return [
        event
        for event in events
        if not (
            isinstance(event, RequestReceived | StreamReset)
            and not isinstance(event, RequestRefused)
            and event.stream_id in stillborn
        )
    ]
