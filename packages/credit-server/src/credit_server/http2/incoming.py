"""The frames that a client sends, before h2 handles them: cut from bytes, and charged to budgets.

A buffer is read in slices, so that other connections have their turn. Frames that cost the server
more than the client are spent from budgets: a client that sends too many ends its connection.
"""

from h2.exceptions import DenialOfServiceError, FrameTooLargeError
from h2.frame_buffer import FrameBuffer
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from credit_server.admission.token_bucket import TokenBucket
from credit_server.http2.limits import ConnectionLimits

# The length of a PRIORITY frame: RFC 9113, section 6.3.
PRIORITY_BYTES = 5

# Frames that are read before other connections have their turn: some 5 ms of them.
SLICE_FRAMES = 128
# DATA frames below this size, except a request's last, cost more than they carry: they count as
# control frames.
SMALL_BYTES = 1024
# Control frames that each sent DATA frame allows for: two WINDOW_UPDATEs, a PING, one more.
_EARNED_BY_DATA = 4
_FRAME_HEAD_BYTES = 9
_FRAME_LENGTH_BYTES = 3
_FRAME_TYPE_AT = 3
_STREAM_ID_AT = slice(5, 9)
_RESERVED_BIT = 1 << 31
_WINDOW_UPDATE_BYTES = 4


class FloodError(DenialOfServiceError):
    """A client sends more of something than its budget allows."""


class FloodBudgets:
    """The control frames and the resets that a client has left.

    Most calls charge nothing, so the budgets are refilled only before a charge: with what the time
    and the frames have added since the last refill. Each addition stops at the burst, so their
    order does not matter.

    Attributes:
        now: The time of the latest read, in seconds.
        frames_earning: The number of DATA frames sent since the last refill, each of which the
            client may answer with control frames, and of small DATA frames that are refunded.
    """

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        """Start with full budgets.

        Args:
            limits: Their sizes.
            now: The time in seconds, by the same clock as the attribute.
        """
        self.now = self._refilled_at = now
        self.frames_earning = 0
        self._resets = TokenBucket(
            per_second=limits.resets_per_second, burst=limits.resets_burst, now=now
        )
        self._control = TokenBucket(
            per_second=limits.control_frames_per_second, burst=limits.control_frames_burst, now=now
        )

    def charge_frame(self, frame: Frame) -> None:
        """Charge a frame that has come; requests and their data are free.

        Raises:
            FloodError: The budget is spent.
        """
        if isinstance(frame, DataFrame):
            if len(frame.data) < SMALL_BYTES and "END_STREAM" not in frame.flags:
                self.charge_control("small DATA frames")
        elif isinstance(frame, RstStreamFrame):
            self.charge_resets("resets")
        elif not isinstance(frame, HeadersFrame):
            self.charge_control("control frames")

    def charge_control(self, what: str) -> None:
        """Charge one frame as a control frame.

        Raises:
            FloodError: The budget is spent.
        """
        if self.frames_earning or self._refilled_at != self.now:
            self._refill()
        if not self._control.spend():
            raise FloodError(f"too many {what}")

    def charge_resets(self, what: str, count: int = 1) -> None:
        """Charge resets, by the client or by the server for the client's faults.

        Raises:
            FloodError: The budget is spent.
        """
        if self._refilled_at != self.now:
            self._refill()
        if not self._resets.spend(count):
            raise FloodError(f"too many {what}")

    def _refill(self) -> None:
        """Add what has come back with time, and what the sent DATA frames have earned."""
        self._refilled_at = self.now
        self._resets.refill(self.now)
        self._control.refill(self.now)
        self._control.earn(_EARNED_BY_DATA * self.frames_earning)
        self.frames_earning = 0


class SlicedBuffer(FrameBuffer):
    """h2's buffer of bytes, which returns a slice of its frames at a time.

    It rejects a frame that is too long by its header alone.
    """

    def __init__(self, block_bytes_max: int) -> None:
        """Create an empty buffer.

        Args:
            block_bytes_max: The longest header block, as sent.
        """
        super().__init__(server=True)
        self._block_bytes_max = block_bytes_max
        self._left = 0

    @property
    def has_more(self) -> bool:
        """Whether the slice has ended with frames unread."""
        return not self._left and len(self._data) >= _FRAME_HEAD_BYTES

    @property
    def in_header_block(self) -> bool:
        """Whether a header block has begun and not ended."""
        return bool(self._headers_buffer)

    def end_slice(self) -> None:
        """Leave the frames after the current one for the next slice."""
        self._left = 0

    def __iter__(self) -> "SlicedBuffer":
        self._left = SLICE_FRAMES
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
                faulty = self._take_faulty(length)
                if faulty is not None:
                    return faulty
        return super().__next__()

    def _take_faulty(self, length: int) -> Frame | None:
        """Take a frame that is an error of its stream; hyperframe makes it one of the connection.

        `ServerFrames` recognizes a PRIORITY of a wrong length by its `body_len`, and a
        WINDOW_UPDATE of 0 by its increment.
        """
        kind, stream_id = self._data[_FRAME_TYPE_AT], int.from_bytes(self._data[_STREAM_ID_AT])
        stream_id &= ~_RESERVED_BIT
        frame: Frame
        if kind == WindowUpdateFrame.type and length == _WINDOW_UPDATE_BYTES:
            self._data[_FRAME_HEAD_BYTES] &= 0x7F  # section 6.9: the reserved bit is ignored
            if any(self._data[_FRAME_HEAD_BYTES : _FRAME_HEAD_BYTES + length]) or not stream_id:
                return None
            frame = WindowUpdateFrame(stream_id)
        elif kind == PriorityFrame.type and length != PRIORITY_BYTES and stream_id:
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
