"""The streams of one connection on nghttp2: their limit, how they end, and what they send.

This module keeps the limit on streams and the GOAWAY frames from nghttp2, and applies both itself:
nghttp2 would end the connection for a stream beyond the limit, and ignore streams after a GOAWAY.
`nghttp2_frames` reads what the client sends.
"""

from enum import Enum
from math import ceil
from typing import Final

import ngh2
from credit_models.nghttp2 import (
    STREAM_ID_MAX,
    EngineConnection,
    Headers,
    RawHeaders,
    with_setting,
)
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import Event
from h2.settings import SettingCodes

from credit_server.http2.frames import EARLY_STREAMS, RequestReset
from credit_server.http2.header_block import DECODED_FACTOR, ENTRY_BYTES, LiteralEncoder
from credit_server.http2.incoming import FloodBudgets
from credit_server.http2.limits import ConnectionLimits

# The longest payload of a frame (RFC 9113, section 4.2), as long as no SETTINGS allow more.
FRAME_BYTES_MAX: Final = 16_384
# The number of closed streams that are kept. A frame on an older stream counts as a frame on an
# unknown stream.
_CLOSED_MAX: Final = 1024
# The most CONTINUATION frames of a header block; h2 allows as many.
_CONTINUATIONS_MAX: Final = 64
_HEADERS, _END_STREAM, _END_HEADERS = 1, 1, 4


class ClosedBy(Enum):
    """How a stream was closed."""

    BOTH = "both"
    """Both sides have ended their halves."""
    CLIENT = "client"
    """The client has reset it."""
    SERVER = "server"
    """The server has reset it."""


class Nghttp2Streams(EngineConnection):
    """One connection's streams, on the server's side.

    Attributes:
        budgets: See `ServerFrames`, for this and the other attributes.
    """

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        """Prepare to write the server's SETTINGS.

        Args:
            limits: What the client may do.
            now: The time in seconds, of the same clock as `FloodBudgets.now`.
        """
        super().__init__(
            ngh2.Role.SERVER,
            ngh2.Configuration(
                auto_window_update=False,
                # Most headers of an answer have a new value each time: a request id, a receipt.
                max_deflate_dynamic_table_size=0,
                max_continuations=_CONTINUATIONS_MAX,
                max_inbound_header_list_size=DECODED_FACTOR * limits.header_bytes_max,
                max_inbound_header_count=DECODED_FACTOR * limits.header_bytes_max // ENTRY_BYTES,
                stream_reset_rate_limit=(2 * limits.resets_burst, 2 * limits.resets_per_second),
                glitch_rate_limit=(
                    2 * limits.control_frames_burst,
                    2 * limits.control_frames_per_second,
                ),
            ),
        )
        self._limits = limits
        self.budgets = FloodBudgets(limits, now)
        self.settings_acknowledged = False
        self.streams_wanted = self._streams_sent = limits.streams_max
        # How many streams may be open now. Beyond the stream id, the first limit is in force even
        # if it was not acknowledged.
        self._open_max = EARLY_STREAMS * limits.streams_max
        self._early_stream_id_max = 2 * EARLY_STREAMS * limits.streams_max
        self._uncharged_resets = 0
        self._acknowledgements_due = 0
        self._highest = 0
        self._served_max = STREAM_ID_MAX
        self._closed: dict[int, ClosedBy] = {}

    # ---- the limit on streams

    def initiate_connection(self) -> None:
        """Write the server's SETTINGS; see `ServerFrames.initiate_connection` for the limit."""
        limits = self._limits
        self._engine.initiate_connection(
            {
                ngh2.Setting.MAX_CONCURRENT_STREAMS: STREAM_ID_MAX,
                ngh2.Setting.MAX_HEADER_LIST_SIZE: limits.header_bytes_max,
                ngh2.Setting.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            }
        )
        self._write_limit(limits.streams_max)

    def limit_streams(self, count: int) -> None:
        """Limit how many streams the client may have open; see `ServerFrames.limit_streams`."""
        if self.state_machine.state is ConnectionState.CLOSED:
            return
        self.streams_wanted = count
        if count != self._streams_sent and self.settings_acknowledged:
            self._streams_sent = count
            self.settings_acknowledged = False
            self._pump([])
            self._engine.update_settings({ngh2.Setting.MAX_CONCURRENT_STREAMS: STREAM_ID_MAX})
            self._write_limit(count)

    def _write_limit(self, count: int) -> None:
        """Write nghttp2's SETTINGS frame with the limit for the client."""
        self._acknowledgements_due += 1
        frame = self._engine.data_to_send()
        self._out += with_setting(frame, SettingCodes.MAX_CONCURRENT_STREAMS, count)

    def _acknowledged(self) -> None:
        self._enforce_limit(self._streams_sent)
        self.settings_acknowledged = True
        self.limit_streams(self.streams_wanted)

    def _enforce_limit(self, count: int) -> None:
        """Enforce a limit on streams; from now on only acknowledgements change it."""
        self._open_max = count
        self._early_stream_id_max = STREAM_ID_MAX

    # ---- GOAWAY

    def send_shutdown_notice(self) -> None:
        """Send GOAWAY with the highest stream id; see `ServerFrames.send_shutdown_notice`."""
        if self.state_machine.state is not ConnectionState.CLOSED:
            self._goaway(0, self._served_max)

    def send_final_goaway(self) -> None:
        """Send GOAWAY with the id of the latest stream; streams that come later are refused."""
        self._served_max = min(self._served_max, self._highest)
        self.send_shutdown_notice()

    def _last_stream_id(self) -> int:
        return min(self._served_max, self._highest)

    # ---- faults and resets

    def _fault(self, stream_id: int, code: ErrorCodes, reason: str, events: list[Event]) -> None:
        """Reset a stream for its client's fault, unless it is closed already."""
        if stream_id in self.streams:
            self._engine.reset_stream(stream_id, int(code))
            self._reset_by_server(stream_id, code, reason, events)
            self._pump(events)

    def _reset_by_server(
        self, stream_id: int, code: ErrorCodes, reason: str, events: list[Event]
    ) -> None:
        self.streams.pop(stream_id, None)
        self._note_closed(stream_id, ClosedBy.SERVER)
        if code is not ErrorCodes.REFUSED_STREAM or reason:
            event = RequestReset(stream_id=stream_id, error_code=code, remote_reset=False)
            event.reason = reason
            events.append(event)
        self.budgets.charge_resets("faults")

    def refund_frame(self) -> None:
        """Credit the budget for a small DATA frame as for a sent one: more than it was charged."""
        self.budgets.frames_earning += 1

    def _note_closed(self, stream_id: int, how: ClosedBy) -> None:
        closed = self._closed
        closed[stream_id] = how
        if len(closed) > _CLOSED_MAX:
            del closed[next(iter(closed))]

    # ---- answers

    def send_headers(self, stream_id: int, headers: Headers, end_stream: bool = False) -> None:
        """Send the headers of an answer, or its trailers, which end it.

        Raises:
            StreamClosedError: The stream is not open.
        """
        stream = self._sendable(stream_id)
        encoded = self._encode(headers)
        if stream.headers_sent:
            if self.local_flow_control_window(stream_id) > 0:
                self._engine.send_trailers(stream_id, encoded)
            else:
                self._send_past_window(stream_id, encoded)
        else:
            stream.headers_sent = True
            self._engine.send_response(stream_id, encoded, end_stream=end_stream)
        if end_stream:
            stream.local_ended = True

    def _send_past_window(self, stream_id: int, trailers: RawHeaders) -> None:
        """Send trailers to a client that has closed its window; nghttp2 would wait for the window.

        The trailers are encoded as literals, and nghttp2 has no HPACK table for what it sends, so
        its state needs no change. The reset that follows makes nghttp2 forget the stream; by then
        the client has the whole answer (RFC 9113, section 8.1).
        """
        block = LiteralEncoder().encode(trailers)
        flags = _END_STREAM | _END_HEADERS
        self._write_frame(_HEADERS, stream_id, block, flags=flags)
        self._engine.reset_stream(stream_id, int(ErrorCodes.NO_ERROR))
        self.streams.pop(stream_id, None)
        self._note_closed(stream_id, ClosedBy.SERVER)

    def send_data(
        self,
        stream_id: int,
        data: bytes | memoryview,
        end_stream: bool = False,
        pad_length: int | None = None,
    ) -> None:
        """Send a part of an answer. The client will answer it with control frames."""
        super().send_data(stream_id, data, end_stream, pad_length)
        self.budgets.frames_earning += ceil(len(data) / FRAME_BYTES_MAX)

    def reset_stream(self, stream_id: int, error_code: ErrorCodes | int = 0) -> None:
        """End a stream at once.

        Raises:
            StreamClosedError: The stream is not open.
        """
        super().reset_stream(stream_id, error_code)
        self._note_closed(stream_id, ClosedBy.SERVER)
        if error_code:  # NO_ERROR means: the answer is complete, and the client should stop sending
            self._uncharged_resets += 1
