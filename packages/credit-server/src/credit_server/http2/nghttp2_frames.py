"""HTTP/2 frames by nghttp2, with the same limits as `frames`, which uses h2.

nghttp2 ends a connection, with all its streams, for many faults of a single stream, and does not
count what a client sends. So this module inspects each frame before nghttp2 gets it: the nine bytes
of its head, and whether its stream is open. That takes about a microsecond a frame. In detail:

- A buffer is read in slices, and a frame that is too long is rejected by its head.
- Frames that cost the server more than the client are spent from budgets (CVE-2023-44487,
  CVE-2025-8671). nghttp2's own limits are set to twice as much, because they end a connection with
  INTERNAL_ERROR.
- A fault of one stream resets it alone (RFC 9113, section 5.4.2). nghttp2 makes these an error of
  the connection: DATA or HEADERS after the end, DATA beyond the stream's window, a WINDOW_UPDATE of
  0, a PRIORITY of a wrong length, HEADERS that depend on themselves, one stream too many.
  `tests/server/http2/test_frame_faults.py` lists all faults, for both engines.

nghttp2 itself does HPACK, the validation of headers, flow control, and the states of streams.
"""

import struct
from typing import Final

import ngh2
from credit_models.nghttp2 import EngineStream, RawHeaders, texts
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event, RequestReceived
from h2.exceptions import FrameTooLargeError, ProtocolError

from credit_server.http2.frames import OversizedRequest
from credit_server.http2.header_block import DECODED_FACTOR, excess, kept, list_bytes
from credit_server.http2.incoming import PRIORITY_BYTES, SLICE_FRAMES, SMALL_BYTES, FloodError
from credit_server.http2.limits import ConnectionLimits
from credit_server.http2.nghttp2_streams import FRAME_BYTES_MAX, ClosedBy, Nghttp2Streams

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD_BYTES: Final = 9
_RESERVED_BIT: Final = 1 << 31
_WINDOW_MAX: Final = 2**31 - 1

_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY = range(8)
_WINDOW_UPDATE, _CONTINUATION = 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _HAS_PRIORITY = 1, 1, 4, 8, 0x20

_WINDOW_UPDATE_BYTES: Final = 4
_RESET_BYTES: Final = 4
_RESET_HEAD: Final = bytes((0, 0, _RESET_BYTES, _RST_STREAM, 0))
_WINDOW_UPDATE_HEAD: Final = bytes((0, 0, _WINDOW_UPDATE_BYTES, _WINDOW_UPDATE, 0))

_ON_ITSELF: Final = "a stream depends on itself"


class Nghttp2Frames(Nghttp2Streams):
    """One connection's frames, on the server's side.

    Attributes:
        preface_received: See `ServerFrames`, for this and the other attributes.
    """

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        """Prepare to write the server's SETTINGS.

        Args:
            limits: What the client may do.
            now: The time in seconds, of the same clock as `FloodBudgets.now`.
        """
        super().__init__(limits, now)
        self.preface_received = self.has_more = self.in_header_block = False
        self._unread = b""
        self._preface_left = _PREFACE
        # The stream whose header block is incomplete, and the size of the block so far.
        self._block_stream = self._block_bytes = 0
        # Streams that are reset after their headers are decoded: HPACK's state needs all headers.
        self._doomed: dict[int, tuple[ErrorCodes, str]] = {}

    # ---- slices and budgets

    @property
    def inbound_flow_control_window(self) -> int:
        """How many bytes the client may send on the connection."""
        return self._engine.local_window_size

    def receive_data(self, data: bytes) -> list[Event]:
        """Handle a slice of what the client has sent.

        Args:
            data: More bytes; empty to continue after a slice.

        Raises:
            ProtocolError: The connection ends; a GOAWAY is written.
        """
        if self._failed:
            return []
        events: list[Event] = []
        if self._unread:
            data = self._unread + data
        if self._preface_left:
            data = self._take_preface(data)
            if self._preface_left:
                return events
        try:
            if self._uncharged_resets:
                count, self._uncharged_resets = self._uncharged_resets, 0
                self.budgets.charge_resets("faults", count)
            self._unread = data[self._walk(data, events) :]
        except ProtocolError as error:
            if not self._failed:
                self._failed = True
                self.close_connection(error.error_code)
            raise
        return events

    def _take_preface(self, data: bytes) -> bytes:
        """Take the client's preface (RFC 9113, section 3.4), or the beginning of it."""
        count = min(len(data), len(self._preface_left))
        if data[:count] != self._preface_left[:count]:
            self._fail(ErrorCodes.PROTOCOL_ERROR, "the preface is not that of HTTP/2")
        self._preface_left = self._preface_left[count:]
        self._unread = b""
        if not self._preface_left:
            self._engine.receive_data(_PREFACE)
        return data[count:]

    def _walk(self, buffer: bytes, events: list[Event]) -> int:
        """Handle the whole frames of a buffer, up to a slice; return where the rest begins."""
        self._pump(events)
        view, size = memoryview(buffer), len(buffer)
        at = fed = 0
        left = SLICE_FRAMES
        while left and size - at >= _HEAD_BYTES:
            length = buffer[at] << 16 | buffer[at + 1] << 8 | buffer[at + 2]
            if length > FRAME_BYTES_MAX:
                self._feed(view[fed:at], events)
                raise FrameTooLargeError(f"a frame of {length} bytes")
            end = at + _HEAD_BYTES + length
            if end > size:
                break
            left -= 1
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream_id = int.from_bytes(buffer[at + 5 : at + 9]) & ~_RESERVED_BIT
            # HEADERS and DATA come first, because nearly every request consists of them.
            if self._block_stream or kind == _CONTINUATION:
                self._check_block(kind, flags, stream_id, length)
            elif kind == _HEADERS:
                itself = flags & _HAS_PRIORITY and _depends_on_itself(view[at:end], stream_id)
                if itself and stream_id in self.streams:  # trailers, which end the request
                    self._feed(view[fed:at], events)
                    fed = at
                    self._fault(stream_id, ErrorCodes.PROTOCOL_ERROR, _ON_ITSELF, events)
                if not self._begins(stream_id, flags):
                    self._feed(view[fed:at], events)
                    fed = at
                    self._take_late_headers(stream_id, flags, events)
                if itself:
                    self._feed(view[fed:at], events)
                    fed = end
                    if self.streams.pop(stream_id, None) is not None:
                        self._doomed[stream_id] = (ErrorCodes.PROTOCOL_ERROR, _ON_ITSELF)
                    self._feed(_without_dependency(view[at:end]), events)
                if not flags & _END_HEADERS:
                    self._block_stream, self._block_bytes = stream_id, length
            elif kind == _DATA:
                if not self._is_expected(stream_id, flags, length):
                    self._feed(view[fed:at], events)
                    fed = at
                    self._take_late_data(stream_id, flags, length, events)
            elif self._is_for_nghttp2(kind, flags, stream_id, view[at + _HEAD_BYTES : end]):
                if kind == _PING:
                    # nghttp2 writes its acknowledgement before all else that it has to send; a
                    # client may take it as a sign that the frames before it were handled.
                    self._feed(view[fed:at], events)
                    fed = at
            else:
                self._feed(view[fed:at], events)
                fed = end
                self._take_frame(kind, stream_id, view[at + _HEAD_BYTES : end], events)
            at = end
        self._feed(view[fed:at], events)
        self.has_more = not left and size - at >= _HEAD_BYTES
        self.in_header_block = self._block_stream != 0
        return at

    def _check_block(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        """Bound a header block; nghttp2 rejects all other frames inside one."""
        if kind != _CONTINUATION or stream_id != self._block_stream:
            return
        self.budgets.charge_control("control frames")
        self._block_bytes += length
        if self._block_bytes > DECODED_FACTOR * self._limits.header_bytes_max:
            raise FloodError("a header block is too long")
        if flags & _END_HEADERS:
            self._block_stream = 0

    # ---- requests

    def _begins(self, stream_id: int, flags: int) -> bool:
        """Note a request or its trailers; return False if `_take_late_headers` must handle them."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            if stream.remote_ended:
                return False
            stream.remote_ended = bool(flags & _END_STREAM)
            return True
        if stream_id <= self._highest or not stream_id & 1:
            return False
        self._highest = stream_id
        if stream_id > self._early_stream_id_max:
            self._enforce_limit(self._limits.streams_max)
        if stream_id > self._served_max or len(self.streams) >= self._open_max:
            self._doomed[stream_id] = (ErrorCodes.REFUSED_STREAM, "")
            return True
        stream = self.streams[stream_id] = EngineStream(self._limits.stream_window_bytes)
        stream.remote_ended = bool(flags & _END_STREAM)
        return True

    def _take_late_headers(self, stream_id: int, flags: int, events: list[Event]) -> None:
        """Handle HEADERS on a stream whose client had ended it, or that is closed.

        nghttp2 decodes and ignores them, once the stream is reset.

        Raises:
            ProtocolError: The connection ends.
        """
        if not stream_id & 1:
            return  # nghttp2 rejects it
        if stream_id in self.streams:
            self._fault(stream_id, ErrorCodes.STREAM_CLOSED, "HEADERS after the end", events)
            return
        how = self._closed.get(stream_id)
        if how == ClosedBy.SERVER:
            # RFC 9113, section 5.1: the client may have sent it before it received the reset.
            self.budgets.charge_control("HEADERS of closed calls")
        elif how == ClosedBy.CLIENT:
            self.budgets.charge_resets("faults")
            self._rst_stream(stream_id, ErrorCodes.STREAM_CLOSED)
        else:
            code = ErrorCodes.PROTOCOL_ERROR if how is None else ErrorCodes.STREAM_CLOSED
            self._fail(code, "HEADERS reuse the number of a stream")

    def _take_request(self, stream_id: int, headers: RawHeaders, events: list[Event]) -> None:
        doomed = self._doomed.get(stream_id)
        if doomed is not None:
            code, reason = doomed
            self._engine.reset_stream(stream_id, int(code))
            self._reset_by_server(stream_id, code, reason, events)
            self._pump(events)
            return
        fields = dict(headers)
        host = fields.get(b"host")
        if host is not None and host != fields.get(b":authority", host):
            # RFC 9113, section 8.3.1.
            reason = "host and :authority differ"
            self._fault(stream_id, ErrorCodes.PROTOCOL_ERROR, reason, events)
            return
        size = list_bytes(headers)
        limit = self._limits.header_bytes_max
        request: RequestReceived
        if size > limit:
            request = OversizedRequest(stream_id=stream_id, headers=texts(kept(headers)))
            request.reason = excess(size, limit)
        else:
            request = RequestReceived(stream_id=stream_id, headers=texts(headers))
        events.append(request)

    def _take_trailers(self, stream_id: int, headers: RawHeaders, events: list[Event]) -> None:
        size, limit = list_bytes(headers), self._limits.header_bytes_max
        if size > limit:
            self._fault(stream_id, ErrorCodes.ENHANCE_YOUR_CALM, excess(size, limit), events)
        else:
            super()._take_trailers(stream_id, headers, events)

    def _take_closed(self, event: ngh2.StreamClosed, events: list[Event]) -> None:
        stream_id = event.stream_id
        self._doomed.pop(stream_id, None)
        stream = self.streams.pop(stream_id, None)
        if stream is None:
            # The stream was reset by its client, or by this side, which has noted that already.
            if stream_id not in self._closed:
                self._note_closed(stream_id, ClosedBy.CLIENT)
        elif stream.local_ended and stream.remote_ended and not event.error_code:
            self._note_closed(stream_id, ClosedBy.BOTH)
        else:  # nghttp2 has found a fault
            code = ErrorCodes(event.error_code)
            self._reset_by_server(
                stream_id, code, "its headers, or its length, are malformed", events
            )

    # ---- other frames

    def _is_expected(self, stream_id: int, flags: int, length: int) -> bool:
        """Note a DATA frame; return False if `_take_late_data` must handle it."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.remote_ended:
            return False
        if length < SMALL_BYTES and not flags & _END_STREAM:
            self.budgets.charge_control("small DATA frames")
        stream.window_left -= length
        if stream.window_left < 0:
            return False
        if flags & _END_STREAM:
            stream.remote_ended = True
        return True

    def _take_late_data(self, stream_id: int, flags: int, length: int, events: list[Event]) -> None:
        """Handle DATA after the end of a stream, beyond its last known window, or on no stream.

        nghttp2 ignores DATA of a stream that is reset, and returns its part of the window.
        """
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.remote_ended:
            # nghttp2 may have enlarged the window meanwhile.
            stream.window_left = self._engine.stream_local_window_size(stream_id) - length
            if stream.window_left >= 0:
                stream.remote_ended = bool(flags & _END_STREAM)
            elif length <= self._engine.local_window_size:  # else nghttp2 ends the connection
                code, reason = ErrorCodes.FLOW_CONTROL_ERROR, "DATA beyond the stream's window"
                self._fault(stream_id, code, reason, events)
        elif stream is not None:
            self._fault(stream_id, ErrorCodes.STREAM_CLOSED, "DATA after the end", events)
        elif stream_id & 1 and stream_id <= self._highest:
            self.budgets.charge_control("DATA frames of closed calls")
            if self._closed.get(stream_id) != ClosedBy.SERVER and stream_id not in self._doomed:
                self._rst_stream(stream_id, ErrorCodes.STREAM_CLOSED)

    def _is_for_nghttp2(self, kind: int, flags: int, stream_id: int, payload: memoryview) -> bool:
        """Charge a frame that is neither HEADERS nor DATA, and return whether nghttp2 handles it.

        Raises:
            FloodError: The budget is spent.
        """
        if kind == _RST_STREAM:
            self.budgets.charge_resets("resets")
            return len(payload) != _RESET_BYTES or not self._was_begun(stream_id)
        if kind == _SETTINGS:
            if not flags & _ACK:
                self.preface_received = self.preface_received or not stream_id
            elif self._acknowledgements_due:
                self._acknowledgements_due -= 1
                self._acknowledged()
                return True  # a client must send it, so it is not charged
            elif not stream_id and not payload:
                # nghttp2 would end the connection.
                self.budgets.charge_control("control frames")
                return False
        self.budgets.charge_control("control frames")
        if kind == _WINDOW_UPDATE:
            # `_take_frame` checks the increment of a stream's frame: it may be 0 or too large.
            return len(payload) != _WINDOW_UPDATE_BYTES or not self._was_begun(stream_id)
        if kind == _PRIORITY:
            if not stream_id:  # nghttp2 ignores it
                self._fail(ErrorCodes.PROTOCOL_ERROR, "a PRIORITY on stream 0")
            return False
        if kind == _GOAWAY:
            return bool(stream_id) or len(payload) < 8
        return kind in (_SETTINGS, _PING, _PUSH_PROMISE)

    def _was_begun(self, stream_id: int) -> bool:
        return bool(stream_id & 1) and stream_id <= self._highest

    def _take_frame(
        self, kind: int, stream_id: int, payload: memoryview, events: list[Event]
    ) -> None:
        """Handle a frame instead of nghttp2; unknown ones are ignored (section 5.5)."""
        if kind == _WINDOW_UPDATE:
            self._take_window_update(stream_id, payload, events)
        elif kind == _RST_STREAM:
            if stream_id in self.streams:
                self._note_closed(stream_id, ClosedBy.CLIENT)
                self._feed(_RESET_HEAD + stream_id.to_bytes(4) + payload, events)
        elif kind == _PRIORITY:
            if len(payload) != PRIORITY_BYTES:
                reason = f"a PRIORITY of {len(payload)} bytes"
                self._fault(stream_id, ErrorCodes.FRAME_SIZE_ERROR, reason, events)
            elif int.from_bytes(payload[:4]) & ~_RESERVED_BIT == stream_id:
                self._fault(stream_id, ErrorCodes.PROTOCOL_ERROR, _ON_ITSELF, events)
        elif kind == _GOAWAY:
            # The client accepts no streams of the server, which opens none.
            event = ConnectionTerminated()
            event.last_stream_id, code = struct.unpack_from(">II", payload)
            event.error_code = code
            events.append(event)

    def _take_window_update(self, stream_id: int, payload: memoryview, events: list[Event]) -> None:
        if stream_id not in self.streams:
            return
        increment = int.from_bytes(payload) & ~_RESERVED_BIT
        window = self._engine.stream_remote_window_size(stream_id)
        if not increment:
            reason = "a WINDOW_UPDATE adds nothing"
            self._fault(stream_id, ErrorCodes.PROTOCOL_ERROR, reason, events)
        elif window + increment > _WINDOW_MAX:
            reason = "a WINDOW_UPDATE adds too much"
            self._fault(stream_id, ErrorCodes.FLOW_CONTROL_ERROR, reason, events)
        else:
            head = _WINDOW_UPDATE_HEAD + stream_id.to_bytes(4)
            self._feed(head + increment.to_bytes(4), events)


def _depends_on_itself(frame: memoryview, stream_id: int) -> bool:
    """Return whether HEADERS declare that their stream depends on itself.

    RFC 9113 has no priorities any more; RFC 7540, section 5.3.1, makes it an error of the stream.
    """
    at = _dependency_at(frame)
    return len(frame) >= at + PRIORITY_BYTES and (
        int.from_bytes(frame[at : at + 4]) & ~_RESERVED_BIT == stream_id
    )


def _without_dependency(frame: memoryview) -> bytes:
    """Return HEADERS that depend on no stream."""
    at = _dependency_at(frame)
    return b"".join((frame[:at], bytes(4), frame[at + 4 :]))


def _dependency_at(frame: memoryview) -> int:
    return _HEAD_BYTES + (1 if frame[4] & _PADDED else 0)
