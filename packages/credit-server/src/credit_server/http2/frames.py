"""HTTP/2 frames: h2's connection, with limits on what a peer may make it do.

What h2 4.4.1 leaves open, and what is done here:

- It reads all of a buffer at once, and starts with a frame's limit when all of it has come. Here a
  buffer is read in slices, and a frame that is too long is refused by its head.
- It takes any number of resets (CVE-2023-44487), of faults that make the server reset
  (CVE-2025-8671), and of PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty and unknown frames. Here
  they are spent from budgets.
- It ends a connection, with all its calls, for one malformed request, for one call too many, and
  for most frames that are wrong on one stream. A proxy sends the calls of many clients on one
  connection. So here every fault of one stream resets that stream (RFC 9113, section 5.4.2), and
  only those end the connection for which the RFC demands it, or after which frames and header
  blocks cannot be told apart or decoded any more. `tests/server/http2/test_frame_faults.py`
  lists them all.
- It ends a connection for a header list that is too long. Here the call is rejected; a list that is
  several times too long ends the connection.
- It remembers 65,536 closed streams and any number of unknown settings.
- It sends and receives nothing more after a GOAWAY of either side. Here the calls that have begun
  go on (RFC 9113, section 6.8).
"""

from typing import NoReturn

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event, RequestReceived, StreamReset
from h2.exceptions import (
    DenialOfServiceError,
    FlowControlError,
    FrameTooLargeError,
    InvalidBodyLengthError,
    ProtocolError,
    StreamClosedError,
    StreamIDTooLowError,
    TooManyStreamsError,
)
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from h2.stream import StreamClosedBy, StreamState
from hpack import OversizedHeaderListError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from credit_server.http2.budget import Budget
from credit_server.http2.header_block import (
    DECODED_FACTOR,
    HeaderDecoder,
    LiteralEncoder,
    without_bytes,
)
from credit_server.http2.limits import ConnectionLimits

Handled = tuple[list[Frame], list[Event]]

_SLICE_FRAMES = 128
"""Frames that are read before other connections have their turn: some 5 ms of them."""
_SMALL_BYTES = 1024
"""DATA frames below it, but a request's last, cost more than they carry: they count as control."""
_EARNED_BY_DATA = 4
"""Control frames that each sent DATA frame allows for: two WINDOW_UPDATEs, a PING, one more."""
_KNOWN_SETTINGS = frozenset(SettingCodes)
_FRAME_HEAD_BYTES = 9
_FRAME_LENGTH_BYTES = 3
_FRAME_TYPE_AT = 3
_STREAM_ID_AT = slice(5, 9)
_RESERVED_BIT = 1 << 31
_PRIORITY_BYTES = 5
_WINDOW_UPDATE_BYTES = 4
_STREAM_ID_MAX = 2**31 - 1
_EARLY_STREAMS = 4
"""How many times the limit on streams a client may begin before it has acknowledged the limit. A
proxy sends what has piled up on a new connection at once: Envoy up to 1,024 calls."""


class FloodError(DenialOfServiceError):
    """A peer sends more of something than its budget allows."""


class RequestRefused(StreamReset):
    """A request was reset before any of it was served.

    Attributes:
        reason: What was wrong with it.
    """

    reason: str


class LongRequest(RequestReceived):
    """A request whose headers are too long, of which only a few are left.

    Attributes:
        reason: How long they are, and what the limit is.
    """

    reason: str


class ServerFrames(H2Connection):
    """One connection's frames, on the server's side."""

    MAX_CLOSED_STREAMS = 1024

    def __init__(self, config: H2Configuration, limits: ConnectionLimits, now: float) -> None:
        """Prepare to write the server's SETTINGS.

        Args:
            config: h2's own configuration.
            limits: What the peer may do.
            now: The time of a clock in seconds; `refill` takes the same.
        """
        super().__init__(config)
        # Not an update: h2 would enforce that when the client has acknowledged it, if it ever does.
        # The limit on streams alone waits for that: see `initiate_connection`.
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams_max,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_bytes_max,
                SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            },
        )
        self.decoder: HeaderDecoder = HeaderDecoder(limits.header_bytes_max)
        self.encoder = LiteralEncoder()
        self.incoming_buffer: _Slices = _Slices(DECODED_FACTOR * limits.header_bytes_max)
        self.greeted = False
        """Whether the client's SETTINGS have come, which its preface ends with."""
        self.streams_wanted = self._streams_told = limits.streams_max
        """How many streams the client is to have open at most; it may not have been told yet."""
        self._limited = False
        """Whether the first limit on streams is in force."""
        self.settings_known = False
        """Whether the client has acknowledged the latest SETTINGS, and with them all it may do."""
        self._early_stream_id_max = 2 * _EARLY_STREAMS * limits.streams_max
        self._last_stream_id = _STREAM_ID_MAX
        """The last stream that is served, as the latest GOAWAY says."""
        self._server_resets = 0
        self._resets = Budget(
            per_second=limits.resets_per_second, burst=limits.resets_burst, now=now
        )
        self._control = Budget(
            per_second=limits.control_frames_per_second, burst=limits.control_frames_burst, now=now
        )

    def initiate_connection(self) -> None:
        """Write the server's SETTINGS; the limit on streams is in force once it is acknowledged.

        A client may begin calls before it has read it. Each was refused, and a proxy does not retry
        by itself. A client that acknowledges nothing has no more of such calls than others.
        """
        super().initiate_connection()
        limit = self.local_settings.max_concurrent_streams
        values = {SettingCodes(code): value for code, value in self.local_settings.items()}
        values[SettingCodes.MAX_CONCURRENT_STREAMS] = _EARLY_STREAMS * limit
        self.local_settings = Settings(client=False, initial_values=values)
        self.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = limit

    @property
    def has_more(self) -> bool:
        """Whether `receive_data` has stopped after a slice, with frames unread."""
        return self.incoming_buffer.has_more

    @property
    def in_header_block(self) -> bool:
        """Whether a header block has begun and not ended."""
        return bool(self.incoming_buffer._headers_buffer)  # noqa: SLF001 - h2 has no other sign

    def refill(self, now: float) -> None:
        """Let the budgets grow with time."""
        self._resets.refill(now)
        self._control.refill(now)

    def limit_streams(self, count: int) -> None:
        """Tell the client how many streams it may have open from now on.

        One change at a time: h2 holds a client to what it has acknowledged, and takes the first
        acknowledgement for all that was sent before. A client that acknowledges nothing is told
        nothing more.

        Args:
            count: At least 1.
        """
        if self.state_machine.state is ConnectionState.CLOSED:
            return
        self.streams_wanted = count
        if count != self._streams_told and self.settings_known:
            self._streams_told = count
            self.settings_known = False
            self.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: count})

    def announce_end(self) -> None:
        """Send GOAWAY with the highest stream id: the client begins no more calls, and loses none.

        Not by h2's `close_connection`, after which no stream goes on.
        """
        self._send_goaway()

    def end_with_latest_stream(self) -> None:
        """Send GOAWAY with the id of the latest stream; those that come later are refused."""
        self._last_stream_id = min(self._last_stream_id, self.highest_inbound_stream_id)
        self._send_goaway()

    def _send_goaway(self) -> None:
        if self.state_machine.state is not ConnectionState.CLOSED:
            frame = GoAwayFrame(0)
            frame.last_stream_id = self._last_stream_id
            self._prepare_for_sending([frame])

    def send_data(
        self,
        stream_id: int,
        data: bytes | memoryview,
        end_stream: bool = False,
        pad_length: int | None = None,
    ) -> None:
        """Send a DATA frame. The peer will answer it with control frames."""
        super().send_data(stream_id, data, end_stream, pad_length)
        self._control.earn(_EARNED_BY_DATA)

    def _receive_frame(self, frame: Frame) -> list[Event]:
        if isinstance(frame, DataFrame):
            if len(frame.data) < _SMALL_BYTES and "END_STREAM" not in frame.flags:
                self._charge(self._control, "small DATA frames")
        elif isinstance(frame, RstStreamFrame):
            self._charge(self._resets, "resets")
        elif not isinstance(frame, HeadersFrame) and not self._is_awaited(frame):
            self._charge(self._control, "control frames")
        events = super()._receive_frame(frame)
        if self._server_resets:
            count, self._server_resets = self._server_resets, 0
            self._charge(self._resets, "faults", count)
        return events

    def _is_awaited(self, frame: Frame) -> bool:
        """Say whether the server has asked for a frame: the client does not pay for that one."""
        acknowledges = isinstance(frame, SettingsFrame) and "ACK" in frame.flags
        return acknowledges and not self.settings_known

    def _charge(self, budget: Budget, what: str, count: int = 1) -> None:
        if not budget.spend(count):
            raise FloodError(f"too many {what}")

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        for frame in frames:
            # NO_ERROR: the call has its answer, and its client is told to send no more.
            if frame.__class__ is RstStreamFrame and frame.error_code:
                self._server_resets += 1
            elif frame.__class__ is GoAwayFrame:  # RFC 9113, section 6.8: never a higher id
                frame.last_stream_id = min(frame.last_stream_id, self._last_stream_id)
        super()._prepare_for_sending(frames)

    def _receive_headers_frame(self, frame: HeadersFrame) -> Handled:
        stream_id = frame.stream_id
        if self._stream_closed_by(stream_id) is StreamClosedBy.SEND_RST_STREAM:
            # Section 5.1: the client sent it before it knew of the reset. HPACK's state needs it.
            self._charge(self._control, "HEADERS of closed calls")
            self._decode(frame)
            return [], []
        if stream_id > max(self._last_stream_id, self.highest_inbound_stream_id):
            return self._refuse(frame)
        if stream_id > self._early_stream_id_max:
            self._limit_is_known()
        begins = stream_id not in self.streams
        try:
            # h2 forgets the length when trailers come, and does not compare it at the end.
            short = None if begins else self._short_body(frame)
            handled, events = super()._receive_headers_frame(frame)
        except TooManyStreamsError:
            return self._refuse(frame)
        except ProtocolError as error:
            # What is wrong with the connection has a type of its own.
            if type(error) is not ProtocolError or stream_id not in self.streams:
                raise
            return self._reset(stream_id, ErrorCodes.PROTOCOL_ERROR, without_bytes(error))
        reason = short or (self._short_body(frame) if begins else None)
        if reason is not None:
            return self._reset(stream_id, ErrorCodes.PROTOCOL_ERROR, reason)
        if self.decoder.list_bytes > self.decoder.list_bytes_max:
            return self._too_long(stream_id, handled, events)
        return handled, events

    def _short_body(self, frame: HeadersFrame) -> str | None:
        """Return how a request that ends with this frame breaks its content-length, or None."""
        if "END_STREAM" in frame.flags:
            try:
                self.streams[frame.stream_id]._track_content_length(0, end_stream=True)  # noqa: SLF001 - h2 does not do it itself
            except InvalidBodyLengthError as error:
                return str(error)
        return None

    def _too_long(self, stream_id: int, handled: list[Frame], events: list[Event]) -> Handled:
        """Replace the request by one that is answered with an error; reset it for its trailers."""
        self.incoming_buffer.end_slice()  # it took long to decode
        size, limit = self.decoder.list_bytes, self.decoder.list_bytes_max
        reason = f"the request has {size} bytes of headers, and {limit} are allowed"
        first, *others = events
        if not isinstance(first, RequestReceived):
            return self._reset(stream_id, ErrorCodes.ENHANCE_YOUR_CALM, reason)
        request = LongRequest(
            stream_id=stream_id, headers=first.headers, stream_ended=first.stream_ended
        )
        request.reason = reason
        return handled, [request, *others]

    def _limit_is_known(self) -> None:
        """Put the limit on streams in force, for a client that does not acknowledge it."""
        if not self._limited:
            self._limited = True
            self.local_settings.acknowledge()

    def _refuse(self, frame: HeadersFrame) -> Handled:
        """Refuse a call that its client began before it read our SETTINGS, or our GOAWAY."""
        stream_id, highest = frame.stream_id, self.highest_inbound_stream_id
        if stream_id % 2 == 0:
            raise ProtocolError("a stream's number is not one of a client")
        self._decode(frame)
        if stream_id <= highest:
            raise StreamIDTooLowError(stream_id, highest)
        self.highest_inbound_stream_id = stream_id
        self._closed_streams[stream_id] = StreamClosedBy.SEND_RST_STREAM
        return [_rst(stream_id, ErrorCodes.REFUSED_STREAM)], []

    def _decode(self, frame: HeadersFrame) -> None:
        """Decode a header block whose call is rejected: later blocks refer to it."""
        try:
            self.decoder.decode(frame.data, raw=True)
        except OversizedHeaderListError as error:
            raise DenialOfServiceError(str(error)) from error

    def _receive_data_frame(self, frame: DataFrame) -> Handled:
        try:
            return super()._receive_data_frame(frame)
        except InvalidBodyLengthError as error:
            code, reason = ErrorCodes.PROTOCOL_ERROR, str(error)
        except FlowControlError as error:
            if self.inbound_flow_control_window < 0:
                raise
            code, reason = ErrorCodes.FLOW_CONTROL_ERROR, str(error)
        handled = self._reset(frame.stream_id, code, reason)
        self.acknowledge_received_data(frame.flow_controlled_length, frame.stream_id)
        return handled

    def _receive_window_update_frame(self, frame: WindowUpdateFrame) -> Handled:
        if frame.window_increment:
            return super()._receive_window_update_frame(frame)
        return self._fault(frame, ErrorCodes.PROTOCOL_ERROR, "a WINDOW_UPDATE adds nothing")

    def _receive_priority_frame(self, frame: HeadersFrame | PriorityFrame) -> Handled:
        if isinstance(frame, PriorityFrame):
            # Section 5.1: idle and closed streams may have one, and cannot be reset.
            if not self._is_open(frame.stream_id):
                return [], []
            if frame.body_len != _PRIORITY_BYTES:
                reason = f"a PRIORITY of {frame.body_len} bytes"
                return self._fault(frame, ErrorCodes.FRAME_SIZE_ERROR, reason)
            if frame.depends_on == frame.stream_id:
                reason = "a stream depends on itself"
                return self._fault(frame, ErrorCodes.PROTOCOL_ERROR, reason)
        return super()._receive_priority_frame(frame)

    def _receive_rst_stream_frame(self, frame: RstStreamFrame) -> Handled:
        self._check_not_idle(frame)
        return super()._receive_rst_stream_frame(frame)

    def _receive_naked_continuation(self, frame: ContinuationFrame) -> NoReturn:
        # Not decoded, its block would put HPACK's state out of step; h2 lets one pass on a stream
        # that was reset.
        raise ProtocolError("a CONTINUATION follows no HEADERS")

    def _is_open(self, stream_id: int) -> bool:
        stream = self.streams.get(stream_id)
        return stream is not None and not stream.closed

    def _check_not_idle(self, frame: Frame) -> None:
        """Raise an error of the connection for a frame that no idle stream may have (5.1)."""
        if frame.stream_id % 2 == 0 or frame.stream_id > self.highest_inbound_stream_id:
            raise ProtocolError(f"{type(frame).__name__} on an idle stream")

    def _fault(self, frame: Frame, code: ErrorCodes, reason: str) -> Handled:
        """Reset the stream of a frame that is wrong, unless it is closed already."""
        self._check_not_idle(frame)
        return (
            self._reset(frame.stream_id, code, reason)
            if self._is_open(frame.stream_id)
            else ([], [])
        )

    def _reset(self, stream_id: int, code: ErrorCodes, reason: str) -> Handled:
        # h2 refuses to reset a stream that the fault has left idle or closed.
        stream = self.streams[stream_id].state_machine
        stream.state, stream.stream_closed_by = StreamState.CLOSED, StreamClosedBy.SEND_RST_STREAM
        event = RequestRefused(stream_id=stream_id, error_code=code, remote_reset=False)
        event.reason = reason
        return [_rst(stream_id, code)], [event]

    def _handle_data_on_closed_stream(
        self, events: list[Event], exc: StreamClosedError, frame: DataFrame
    ) -> Handled:
        self._charge(self._control, "DATA frames of closed calls")
        handled, events = super()._handle_data_on_closed_stream(events, exc, frame)
        if any(isinstance(event, StreamReset) for event in events):
            return handled, events  # it was half-closed until now
        if self._stream_closed_by(frame.stream_id) is StreamClosedBy.SEND_RST_STREAM:
            # Section 5.1: what was under way when we reset it is ignored; one reset is enough.
            handled = [each for each in handled if each.__class__ is not RstStreamFrame]
        return handled, events

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> Handled:
        """Take in a GOAWAY: the client accepts no streams of the server, which opens none."""
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]

    def _receive_settings_frame(self, frame: SettingsFrame) -> Handled:
        self.greeted = True
        if "ACK" in frame.flags:
            handled = super()._receive_settings_frame(frame)
            self._limited = True
            self.settings_known = True
            self.limit_streams(self.streams_wanted)
            return handled
        if not _KNOWN_SETTINGS.issuperset(frame.settings):  # h2 would remember each for ever
            frame.settings = {
                code: value for code, value in frame.settings.items() if code in _KNOWN_SETTINGS
            }
        return super()._receive_settings_frame(frame)


class _Slices(FrameBuffer):
    """h2's buffer of bytes, which gives a slice of its frames at a time."""

    def __init__(self, block_bytes_max: int) -> None:
        super().__init__(server=True)
        self._block_bytes_max = block_bytes_max
        self._left = 0

    @property
    def has_more(self) -> bool:
        return not self._left and len(self._data) >= _FRAME_HEAD_BYTES

    def end_slice(self) -> None:
        """Leave the frames after the current one for later."""
        self._left = 0

    def __iter__(self) -> "_Slices":
        self._left = _SLICE_FRAMES
        return self

    def __next__(self) -> Frame:
        if not self._left:
            raise StopIteration
        if len(self._data) >= _FRAME_HEAD_BYTES:
            self._left -= 1
            length = int.from_bytes(self._data[:_FRAME_LENGTH_BYTES])
            if length > self.max_frame_size:
                raise FrameTooLargeError(f"a frame of {length} bytes")
            if len(self._data) >= _FRAME_HEAD_BYTES + length and not self._headers_buffer:
                odd = self._take_odd(length)
                if odd is not None:
                    return odd
        return super().__next__()

    def _take_odd(self, length: int) -> Frame | None:
        """Take a frame that is an error of its stream; hyperframe makes it one of the connection.

        `ServerFrames` knows a PRIORITY of a wrong length by its `body_len`, and a WINDOW_UPDATE
        that adds nothing by its increment.
        """
        kind, stream_id = self._data[_FRAME_TYPE_AT], int.from_bytes(self._data[_STREAM_ID_AT])
        stream_id &= ~_RESERVED_BIT
        frame: Frame
        if kind == WindowUpdateFrame.type and length == _WINDOW_UPDATE_BYTES:
            self._data[_FRAME_HEAD_BYTES] &= 0x7F  # section 6.9: the reserved bit is ignored
            if any(self._data[_FRAME_HEAD_BYTES : _FRAME_HEAD_BYTES + length]) or not stream_id:
                return None
            frame = WindowUpdateFrame(stream_id)
        elif kind == PriorityFrame.type and length != _PRIORITY_BYTES and stream_id:
            frame = PriorityFrame(stream_id)
            frame.body_len = length
        else:
            return None
        del self._data[: _FRAME_HEAD_BYTES + length]
        return frame

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        frame = super()._update_header_buffer(f)
        if sum(len(part.data) for part in self._headers_buffer) > self._block_bytes_max:
            raise DenialOfServiceError("a header block is too long")
        return frame


def _rst(stream_id: int, code: ErrorCodes) -> RstStreamFrame:
    frame = RstStreamFrame(stream_id)
    frame.error_code = code
    return frame
