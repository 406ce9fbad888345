"""HTTP/2 by nghttp2, with the methods and events of h2's connection that grpclib uses.

nghttp2 is written in C and takes about a thirtieth of h2's time. The binding, `ngh2`, is an extra
of the server and of the SDK; this module is imported only where it is installed. Events and errors
are h2's own classes, which grpclib handles: h2 is always installed.

The server's and the SDK's connections are subclasses. They differ from h2 as follows:

- nghttp2 divides data into frames, so `max_outbound_frame_size` is no limit on `send_data`.
- Frames of the other side are reported once nghttp2 has handled them. Its replies are kept in order
  until `data_to_send` returns them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import ngh2
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import ChangedSetting, SettingCodes

if TYPE_CHECKING:
    from hpack.struct import Header

Headers = Iterable[tuple[str, str]]
RawHeaders = Sequence[tuple[bytes, bytes]]

STREAM_ID_MAX = 2**31 - 1
_DEFAULT_WINDOW_BYTES = 65_535
_FRAME_HEAD_BYTES = 9
_RST_STREAM, _GOAWAY = 3, 7
_SETTING_BYTES = 6


class ConnectionFault(ProtocolError):
    """The other side broke HTTP/2 in a way that ends the connection.

    Attributes:
        error_code: The code of the GOAWAY that was written.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.error_code = error_code(code)


class _State(Protocol):
    state: ConnectionState


class _Open:
    """The state of a connection, in the form in which grpclib reads it."""

    state = ConnectionState.CLIENT_OPEN


@dataclass(slots=True, eq=False)
class EngineStream:
    """One stream that is not closed.

    Attributes:
        window_left: How many bytes the other side may still send; only the server counts them.
        headers_sent: Whether the first headers were sent; the next ones are trailers.
        local_ended: Whether this side has ended its half.
        remote_ended: Whether the other side has ended its half.
    """

    window_left: int
    headers_sent: bool = False
    local_ended: bool = False
    remote_ended: bool = False

    @property
    def closed(self) -> bool:
        """Whether both sides have ended."""
        return self.local_ended and self.remote_ended

    @property
    def open(self) -> bool:
        """Whether at least one side has not ended."""
        return not self.closed


class EngineConnection:
    """One connection: the base of the server's and of the SDK's.

    Attributes:
        streams: The open streams by id.
        state_machine: Holds the state of the connection, as h2's attribute of that name does.
        max_outbound_frame_size: The most bytes that a caller passes to `send_data` at once.
    """

    max_outbound_frame_size = 1 << 20

    def __init__(self, role: ngh2.Role, configuration: ngh2.Configuration) -> None:
        self._engine = ngh2.Connection(role, configuration)
        self._out = bytearray()
        self._names: dict[str, bytes] = {}
        self._failed = False
        self.streams: dict[int, EngineStream] = {}
        self.state_machine: _State = _Open()

    # ---- receiving

    def _feed(self, data: bytes | memoryview, events: list[Event]) -> None:
        """Let nghttp2 handle whole frames.

        Raises:
            ConnectionFault: The frames end the connection; a GOAWAY is written.
        """
        if data:
            try:
                self._engine.receive_data(data)
            except ngh2.DenialOfServiceError as error:
                self._fail(ErrorCodes.ENHANCE_YOUR_CALM, str(error))
            except ngh2.NGH2Error as error:
                self._fail(ErrorCodes.PROTOCOL_ERROR, str(error))
        self._pump(events)

    def _pump(self, events: list[Event]) -> None:
        """Take the output and the events of nghttp2."""
        if self._failed:
            return
        before = len(self._out)
        self._out += self._engine.data_to_send()
        happened = self._engine.events()
        if happened and isinstance(end := happened[-1], ngh2.ConnectionClosed):
            del happened[-1]
            self._take_end(end, before)
        for event in happened:
            ended = False
            match event:
                case ngh2.DataReceived(stream_id=stream_id, data=data, end_stream=ended):
                    if data:
                        # nghttp2 returns the window of padding itself.
                        part = DataReceived(
                            stream_id=stream_id, data=data, flow_controlled_length=len(data)
                        )
                        events.append(part)
                case ngh2.RequestReceived(stream_id=stream_id, headers=headers, end_stream=ended):
                    self._take_request(stream_id, headers, events)
                case ngh2.ResponseReceived(stream_id=stream_id, headers=headers, end_stream=ended):
                    events.append(ResponseReceived(stream_id=stream_id, headers=texts(headers)))
                case ngh2.TrailersReceived(stream_id=stream_id, headers=headers):
                    self._take_trailers(stream_id, headers, events)
                    ended = True
                case ngh2.StreamClosed():
                    self._take_closed(event, events)
                case _:
                    self._take_other(event, events)
            # A stream that was reset for its headers is not among the streams any more.
            if ended and (stream := self.streams.get(stream_id)) is not None:
                stream.remote_ended = True
                events.append(StreamEnded(stream_id=stream_id))

    def _take_end(self, end: ngh2.ConnectionClosed, before: int) -> None:
        """Handle the end of the connection: nothing can be sent any more.

        Args:
            end: Why it ends.
            before: The length of the output before nghttp2's latest bytes.

        Raises:
            ConnectionFault: The other side's fault ended it.
        """
        self._failed = True
        if end.error_code:
            # nghttp2's GOAWAY may have a higher stream id than an earlier one, which RFC 9113,
            # section 6.8, forbids. So this method writes its own GOAWAY.
            del self._out[_end_of_others(self._out, before) :]
            reason = bytes(end.debug_data).decode("ascii", "replace")
            self._fail(end.error_code, reason or "a fault of HTTP/2")

    def _fail(self, code: int, reason: str) -> None:
        self._failed = True
        self.close_connection(code)
        raise ConnectionFault(code, reason)

    def _take_request(self, stream_id: int, headers: RawHeaders, events: list[Event]) -> None:
        """Report the headers of a request; only the server receives them."""
        raise NotImplementedError

    def _take_trailers(self, stream_id: int, headers: RawHeaders, events: list[Event]) -> None:
        """Report the trailers of the other side."""
        events.append(TrailersReceived(stream_id=stream_id, headers=texts(headers)))

    def _take_other(self, event: ngh2.Event, events: list[Event]) -> None:
        """Report an event that is not part of a message."""
        match event:
            case ngh2.WindowUpdated(stream_id=stream_id, increment=increment):
                events.append(WindowUpdated(stream_id=stream_id, delta=increment))
            case ngh2.StreamReset(stream_id=stream_id, error_code=code):
                if self.streams.pop(stream_id, None) is not None:
                    events.append(
                        StreamReset(
                            stream_id=stream_id, error_code=error_code(code), remote_reset=True
                        )
                    )
            case ngh2.SettingsReceived(settings=settings):
                events.append(_settings_changed(settings))
            case ngh2.SettingsAcknowledged():
                events.append(SettingsAcknowledged())
            case ngh2.PingAcknowledged(opaque_data=data):
                events.append(PingAckReceived(ping_data=data))
            case ngh2.GoAwayReceived(last_stream_id=last, error_code=code):
                terminated = ConnectionTerminated()
                terminated.error_code = error_code(code)
                terminated.last_stream_id = last
                events.append(terminated)

    def _take_closed(self, event: ngh2.StreamClosed, events: list[Event]) -> None:
        """Remove a closed stream; if nghttp2 has reset it for a fault, report that."""
        stream = self.streams.pop(event.stream_id, None)
        if stream is not None and event.error_code:
            events.append(
                StreamReset(
                    stream_id=event.stream_id,
                    error_code=error_code(event.error_code),
                    remote_reset=False,
                )
            )

    # ---- sending

    def data_to_send(self, amount: int | None = None) -> bytes:
        """Return the bytes that are ready to be sent, and remove them from the buffer.

        Args:
            amount: Not used: all bytes are returned.
        """
        if not self._failed:
            self._pump([])
        data = bytes(self._out)
        self._out.clear()
        return data

    def send_data(
        self,
        stream_id: int,
        data: bytes | memoryview,
        end_stream: bool = False,
        pad_length: int | None = None,
    ) -> None:
        """Send a part of a message.

        Raises:
            StreamClosedError: The stream is not open.
        """
        stream = self._sendable(stream_id)
        self._engine.send_data(stream_id, data, end_stream=end_stream)
        if end_stream:
            stream.local_ended = True

    def end_stream(self, stream_id: int) -> None:
        """End this side of a stream.

        Raises:
            StreamClosedError: The stream is not open.
        """
        self.send_data(stream_id, b"", end_stream=True)

    def reset_stream(self, stream_id: int, error_code: ErrorCodes | int = 0) -> None:
        """End a stream at once.

        Raises:
            StreamClosedError: The stream is not open.
        """
        if self.streams.get(stream_id) is None:
            raise StreamClosedError(stream_id)
        # nghttp2 drops what it has not written of a stream that is reset.
        self._pump([])
        if self.streams.pop(stream_id, None) is not None:
            self._engine.reset_stream(stream_id, int(error_code))

    def ping(self, opaque_data: bytes) -> None:
        """Send a PING of eight bytes."""
        if not self._failed:
            self._engine.ping(opaque_data)

    def local_flow_control_window(self, stream_id: int) -> int:
        """Return how many bytes may be sent on a stream now.

        Raises:
            StreamClosedError: The stream is not open.
        """
        if stream_id not in self.streams:
            raise StreamClosedError(stream_id)
        engine = self._engine
        try:
            return min(
                engine.remote_window_size - engine.queued_body_size(),
                engine.stream_remote_window_size(stream_id) - engine.queued_body_size(stream_id),
            )
        except ngh2.NGH2Error:
            raise StreamClosedError(stream_id) from None

    def increment_flow_control_window(self, increment: int, stream_id: int | None = None) -> None:
        """Let the other side send more on the connection than it may at the beginning."""
        assert stream_id is None  # noqa: S101 - grpclib enlarges the connection's window only
        self._engine.set_local_window_size(_DEFAULT_WINDOW_BYTES + increment)

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        """Let the other side send as many bytes as were read."""
        if not self._failed:
            self._engine.acknowledge_received_data(acknowledged_size, stream_id)

    def close_connection(self, error_code: ErrorCodes | int = 0) -> None:
        """Write a GOAWAY; nothing can be sent after it."""
        self._goaway(int(error_code), self._last_stream_id())
        self._failed = True
        self.state_machine.state = ConnectionState.CLOSED

    def _last_stream_id(self) -> int:
        """Return the id for a GOAWAY: the last stream of the other side that was handled."""
        return 0

    def _goaway(self, code: int, last_stream_id: int) -> None:
        """Write a GOAWAY without nghttp2, which would then ignore all later streams."""
        self._write_frame(_GOAWAY, 0, last_stream_id.to_bytes(4) + code.to_bytes(4))

    def _rst_stream(self, stream_id: int, code: ErrorCodes) -> None:
        """Write a RST_STREAM for a stream of which nghttp2 has no state any more."""
        self._write_frame(_RST_STREAM, stream_id, int(code).to_bytes(4))

    def _write_frame(self, kind: int, stream_id: int, payload: bytes, *, flags: int = 0) -> None:
        if not self._failed:
            self._pump([])
        head = len(payload).to_bytes(3) + bytes((kind, flags)) + stream_id.to_bytes(4)
        self._out += head + payload

    def _sendable(self, stream_id: int) -> EngineStream:
        stream = self.streams.get(stream_id)
        if stream is None or stream.local_ended or self._failed:
            raise StreamClosedError(stream_id)
        return stream

    def _encode(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return headers as bytes. Names are cached: our own code chooses them, so they are few."""
        names = self._names
        encoded = []
        for name, value in headers:
            data = names.get(name)
            if data is None:
                data = names[name] = name.encode("ascii")
            encoded.append((data, value.encode("utf-8")))
        return encoded


def texts(headers: RawHeaders) -> "list[Header]":
    """Return headers as text, with one character for each byte.

    h2's types declare bytes, but grpclib configures h2 to decode them, and requires text.
    """
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]  # type: ignore[misc] # see above


def error_code(code: int) -> ErrorCodes:
    """Return an error code; one that HTTP/2 does not define counts as an internal error."""
    try:
        return ErrorCodes(code)
    except ValueError:
        return ErrorCodes.INTERNAL_ERROR


def with_setting(frame: bytes, code: SettingCodes, value: int) -> bytes:
    """Return a SETTINGS frame with another value of one setting."""
    data = bytearray(frame)
    for at in range(_FRAME_HEAD_BYTES, len(data), _SETTING_BYTES):
        if int.from_bytes(data[at : at + 2]) == code:
            data[at + 2 : at + _SETTING_BYTES] = value.to_bytes(4)
    return bytes(data)


def _end_of_others(frames: bytearray, at: int) -> int:
    """Return where the GOAWAY at the end of the frames begins; without one, where they end."""
    while at < len(frames) and frames[at + 3] != _GOAWAY:
        at += _FRAME_HEAD_BYTES + int.from_bytes(frames[at : at + 3])
    return at


def _settings_changed(settings: Mapping[int, int]) -> RemoteSettingsChanged:
    event = RemoteSettingsChanged()
    for code, value in settings.items():
        event.changed_settings[code] = ChangedSetting(code, None, value)
    return event
