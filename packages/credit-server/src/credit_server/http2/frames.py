"""HTTP/2 frames: h2's connection, with limits on what a client may make it do.

h2 4.4.1 leaves these gaps, which are closed here and in `incoming`:

- h2 reads all of a buffer at once, and checks a frame's limit when all of the frame has come. Here
  a buffer is read in slices, and a frame that is too long is rejected by its header.
- h2 accepts any number of resets (CVE-2023-44487), of faults that make the server reset
  (CVE-2025-8671), and of PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty and unknown frames. Here
  they are spent from budgets.
- h2 ends a connection, with all its streams, for one malformed request, for one stream too many,
  and for most frames that are wrong on one stream. A proxy sends the requests of many clients on
  one connection. So here every fault of one stream resets that stream (RFC 9113, section 5.4.2),
  and only those end the connection for which the RFC demands it, or after which frames and header
  blocks cannot be distinguished or decoded any more. `tests/server/http2/test_frame_faults.py`
  lists them all.
- h2 ends a connection for a header list that is too long. Here the request is rejected; a list that
  is several times too long ends the connection.
- h2 remembers 65,536 closed streams and any number of unknown settings.
- h2 sends and receives nothing more after a GOAWAY of either side. Here the streams that are open
  continue (RFC 9113, section 6.8).
"""

from typing import NoReturn

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event, RequestReceived, StreamReset
from h2.exceptions import (
    DenialOfServiceError,
    FlowControlError,
    InvalidBodyLengthError,
    ProtocolError,
    StreamClosedError,
    StreamIDTooLowError,
    TooManyStreamsError,
)
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

from credit_server.http2.header_block import (
    DECODED_FACTOR,
    HeaderDecoder,
    LiteralEncoder,
    excess,
    without_bytes,
)
from credit_server.http2.incoming import PRIORITY_BYTES, FloodBudgets, SlicedBuffer
from credit_server.http2.limits import ConnectionLimits

Handled = tuple[list[Frame], list[Event]]

H2_CONFIG = H2Configuration(
    client_side=False,
    # Every byte is a letter in it: one odd header does not end a connection's other streams.
    header_encoding="latin-1",
    validate_inbound_headers=True,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)

_KNOWN_SETTINGS = frozenset(SettingCodes)
_STREAM_ID_MAX = 2**31 - 1
# How many times the limit on streams a client may open before it has acknowledged the limit. A
# proxy sends all that has queued up on a new connection at once: Envoy up to 1,024 requests.
EARLY_STREAMS = 4


class RequestReset(StreamReset):
    """A request was reset before any of it was served.

    Attributes:
        reason: What was wrong with it.
    """

    reason: str


class OversizedRequest(RequestReceived):
    """A request whose header list is too long, with the few headers that an answer needs.

    Attributes:
        reason: How long the list is, and what the limit is.
    """

    reason: str


class ServerFrames(H2Connection):
    """One connection's frames, on the server's side.

    Attributes:
        preface_received: Whether the client's SETTINGS have come, which end its preface (RFC 9113,
            section 3.4).
        settings_acknowledged: Whether the client has acknowledged the latest SETTINGS.
        streams_wanted: How many streams the client may have open. This limit may not have been sent
            yet.
        budgets: What the client may still send.
    """

    MAX_CLOSED_STREAMS = 1024

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        """Prepare to write the server's SETTINGS.

        Args:
            limits: What the client may do.
            now: The time in seconds, of the same clock as `FloodBudgets.now`.
        """
        super().__init__(H2_CONFIG)
        # Not an update: h2 would enforce that once the client has acknowledged it, if it ever does.
        # Only the limit on streams waits for the acknowledgement: see `initiate_connection`.
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
        self.incoming_buffer: SlicedBuffer = SlicedBuffer(DECODED_FACTOR * limits.header_bytes_max)
        self.preface_received = False
        self.settings_acknowledged = False
        self.streams_wanted = self._streams_sent = limits.streams_max
        # Whether the first limit on streams is in force.
        self._limit_in_force = False
        self._early_stream_id_max = 2 * EARLY_STREAMS * limits.streams_max
        # The last stream that is served, as in the latest GOAWAY.
        self._last_stream_id = _STREAM_ID_MAX
        self._uncharged_resets = 0
        self.budgets = FloodBudgets(limits, now)

    # ---- the limit on streams

    def initiate_connection(self) -> None:
        """Write the server's SETTINGS. The limit on streams is in force once it is acknowledged.

        A client may send requests before it has read the limit. If each was refused, a proxy would
        not retry them. A client that acknowledges nothing may send no more of such requests than
        others.
        """
        super().initiate_connection()
        limit = self.local_settings.max_concurrent_streams
        values = {SettingCodes(code): value for code, value in self.local_settings.items()}
        values[SettingCodes.MAX_CONCURRENT_STREAMS] = EARLY_STREAMS * limit
        self.local_settings = Settings(client=False, initial_values=values)
        self.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = limit

    def limit_streams(self, count: int) -> None:
        """Limit how many streams the client may have open from now on.

        One change is sent at a time: h2 enforces on a client what it has acknowledged, and takes
        the first acknowledgement for all changes that were sent before. A client that acknowledges
        nothing is sent no further change.

        Args:
            count: At least 1.
        """
        if self.state_machine.state is ConnectionState.CLOSED:
            return
        self.streams_wanted = count
        if count != self._streams_sent and self.settings_acknowledged:
            self._streams_sent = count
            self.settings_acknowledged = False
            self.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: count})

    def _enforce_limit(self) -> None:
        """Enforce the limit on streams on a client that does not acknowledge it."""
        if not self._limit_in_force:
            self._limit_in_force = True
            self.local_settings.acknowledge()

    def _receive_settings_frame(self, frame: SettingsFrame) -> Handled:
        self.preface_received = True
        if "ACK" in frame.flags:
            handled = super()._receive_settings_frame(frame)
            self._limit_in_force = True
            self.settings_acknowledged = True
            self.limit_streams(self.streams_wanted)
            return handled
        if not _KNOWN_SETTINGS.issuperset(frame.settings):  # h2 would remember each forever
            frame.settings = {
                code: value for code, value in frame.settings.items() if code in _KNOWN_SETTINGS
            }
        return super()._receive_settings_frame(frame)

    # ---- GOAWAY

    def send_shutdown_notice(self) -> None:
        """Send GOAWAY with the highest stream id: the client opens no more streams, and loses none.

        h2's `close_connection` does not do it: after that no stream continues.
        """
        self._send_goaway()

    def send_final_goaway(self) -> None:
        """Send GOAWAY with the id of the latest stream; streams that come later are refused."""
        self._last_stream_id = min(self._last_stream_id, self.highest_inbound_stream_id)
        self._send_goaway()

    def _send_goaway(self) -> None:
        if self.state_machine.state is not ConnectionState.CLOSED:
            frame = GoAwayFrame(0)
            frame.last_stream_id = self._last_stream_id
            self._prepare_for_sending([frame])

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> Handled:
        """Report a GOAWAY: the client accepts no streams of the server, which opens none."""
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]

    # ---- slices and budgets

    @property
    def has_more(self) -> bool:
        """Whether `receive_data` has stopped after a slice, with frames unread."""
        return self.incoming_buffer.has_more

    @property
    def in_header_block(self) -> bool:
        """Whether a header block has begun and not ended."""
        return self.incoming_buffer.in_header_block

    def refund_frame(self) -> None:
        """Credit the budget for a small DATA frame as for a sent one: more than it was charged."""
        self.budgets.frames_earning += 1

    def send_data(
        self,
        stream_id: int,
        data: bytes | memoryview,
        end_stream: bool = False,
        pad_length: int | None = None,
    ) -> None:
        """Send a DATA frame. The client will answer it with control frames."""
        super().send_data(stream_id, data, end_stream, pad_length)
        self.budgets.frames_earning += 1

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        for frame in frames:
            # NO_ERROR: the stream has its answer, and the reset stops its client from sending.
            if frame.__class__ is RstStreamFrame and frame.error_code:
                self._uncharged_resets += 1
            elif frame.__class__ is GoAwayFrame:  # RFC 9113, section 6.8: never a higher id
                frame.last_stream_id = min(frame.last_stream_id, self._last_stream_id)
        super()._prepare_for_sending(frames)

    def _receive_frame(self, frame: Frame) -> list[Event]:
        if not self._is_expected_ack(frame):
            self.budgets.charge_frame(frame)
        events = super()._receive_frame(frame)
        if self._uncharged_resets:
            count, self._uncharged_resets = self._uncharged_resets, 0
            self.budgets.charge_resets("faults", count)
        return events

    def _is_expected_ack(self, frame: Frame) -> bool:
        """Return whether a frame acknowledges SETTINGS of the server: the client pays nothing."""
        acknowledges = isinstance(frame, SettingsFrame) and "ACK" in frame.flags
        return acknowledges and not self.settings_acknowledged

    # ---- requests

    def _receive_headers_frame(self, frame: HeadersFrame) -> Handled:
        stream_id = frame.stream_id
        if self._stream_closed_by(stream_id) is StreamClosedBy.SEND_RST_STREAM:
            # Section 5.1: the client sent it before it knew of the reset. HPACK's state needs it.
            self.budgets.charge_control("HEADERS of closed calls")
            self._decode(frame)
            return [], []
        if stream_id > max(self._last_stream_id, self.highest_inbound_stream_id):
            return self._refuse(frame)
        if stream_id > self._early_stream_id_max:
            self._enforce_limit()
        begins = stream_id not in self.streams
        try:
            # h2 forgets the length when trailers come, and does not compare it at the end.
            short = None if begins else self._length_error(frame)
            handled, events = super()._receive_headers_frame(frame)
        except TooManyStreamsError:
            return self._refuse(frame)
        except ProtocolError as error:
            # An error of the connection has a type of its own.
            if type(error) is not ProtocolError or stream_id not in self.streams:
                raise
            return self._reset(stream_id, ErrorCodes.PROTOCOL_ERROR, without_bytes(error))
        reason = short or (self._length_error(frame) if begins else None)
        if reason is not None:
            return self._reset(stream_id, ErrorCodes.PROTOCOL_ERROR, reason)
        if self.decoder.list_bytes > self.decoder.list_bytes_max:
            return self._oversized(stream_id, handled, events)
        return handled, events

    def _length_error(self, frame: HeadersFrame) -> str | None:
        """Return how a request that ends with this frame breaks its content-length, or None."""
        if "END_STREAM" in frame.flags:
            try:
                self.streams[frame.stream_id]._track_content_length(0, end_stream=True)  # noqa: SLF001 - h2 does not do it itself
            except InvalidBodyLengthError as error:
                return str(error)
        return None

    def _oversized(self, stream_id: int, handled: list[Frame], events: list[Event]) -> Handled:
        """Replace the request by one that is answered with an error; reset it for its trailers."""
        self.incoming_buffer.end_slice()  # it took long to decode
        reason = excess(self.decoder.list_bytes, self.decoder.list_bytes_max)
        first, *others = events
        if not isinstance(first, RequestReceived):
            return self._reset(stream_id, ErrorCodes.ENHANCE_YOUR_CALM, reason)
        request = OversizedRequest(
            stream_id=stream_id, headers=first.headers, stream_ended=first.stream_ended
        )
        request.reason = reason
        return handled, [request, *others]

    def _refuse(self, frame: HeadersFrame) -> Handled:
        """Refuse a stream that its client opened before it read our SETTINGS, or our GOAWAY."""
        stream_id, highest = frame.stream_id, self.highest_inbound_stream_id
        if stream_id % 2 == 0:
            raise ProtocolError("a stream's number is not one of a client")
        self._decode(frame)
        if stream_id <= highest:
            raise StreamIDTooLowError(stream_id, highest)
        self.highest_inbound_stream_id = stream_id
        self._closed_streams[stream_id] = StreamClosedBy.SEND_RST_STREAM
        return [_rst_stream(stream_id, ErrorCodes.REFUSED_STREAM)], []

    def _decode(self, frame: HeadersFrame) -> None:
        """Decode a header block whose request is rejected: later blocks refer to it."""
        try:
            self.decoder.decode(frame.data, raw=True)
        except OversizedHeaderListError as error:
            raise DenialOfServiceError(str(error)) from error

    # ---- faults of one stream

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

    def _handle_data_on_closed_stream(
        self, events: list[Event], exc: StreamClosedError, frame: DataFrame
    ) -> Handled:
        self.budgets.charge_control("DATA frames of closed calls")
        handled, events = super()._handle_data_on_closed_stream(events, exc, frame)
        if any(isinstance(event, StreamReset) for event in events):
            return handled, events  # it was half-closed until now
        if self._stream_closed_by(frame.stream_id) is StreamClosedBy.SEND_RST_STREAM:
            # Section 5.1: what was under way when we reset it is ignored; one reset is enough.
            handled = [each for each in handled if each.__class__ is not RstStreamFrame]
        return handled, events

    def _receive_window_update_frame(self, frame: WindowUpdateFrame) -> Handled:
        if frame.window_increment:
            return super()._receive_window_update_frame(frame)
        return self._fault(frame, ErrorCodes.PROTOCOL_ERROR, "a WINDOW_UPDATE adds nothing")

    def _receive_priority_frame(self, frame: HeadersFrame | PriorityFrame) -> Handled:
        if isinstance(frame, PriorityFrame):
            # Section 5.1: idle and closed streams may have one, and cannot be reset.
            if not self._is_open(frame.stream_id):
                return [], []
            if frame.body_len != PRIORITY_BYTES:
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
        # If its block was not decoded, HPACK's state would be out of step; h2 ignores such a frame
        # on a stream that was reset.
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
        if self._is_open(frame.stream_id):
            return self._reset(frame.stream_id, code, reason)
        return [], []

    def _reset(self, stream_id: int, code: ErrorCodes, reason: str) -> Handled:
        # h2 does not reset a stream that the fault has left idle or closed.
        stream = self.streams[stream_id].state_machine
        stream.state, stream.stream_closed_by = StreamState.CLOSED, StreamClosedBy.SEND_RST_STREAM
        event = RequestReset(stream_id=stream_id, error_code=code, remote_reset=False)
        event.reason = reason
        return [_rst_stream(stream_id, code)], [event]


def _rst_stream(stream_id: int, code: ErrorCodes) -> RstStreamFrame:
    frame = RstStreamFrame(stream_id)
    frame.error_code = code
    return frame
