"""Keep what a server sends on one HTTP/2 connection, and check it against RFC 9113."""

import asyncio
import struct
from collections import Counter, defaultdict
from collections.abc import Sequence

from hpack import Decoder, Encoder, HPACKError

from credit_testing import frames
from credit_testing.calls import Answer
from credit_testing.frames import WINDOW_BYTES, ErrorCode, Flag, Frame, Kind, Setting

# RFC 9113, section 8.2.2.
_HTTP1_FIELDS = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}


class Windows:
    """The flow-control windows of one direction: RFC 9113, section 6.9.

    Attributes:
        grown: Set when a window has grown since `take` last failed.
    """

    def __init__(self, initial: int = WINDOW_BYTES) -> None:
        self.grown = asyncio.Event()
        self._initial = initial
        self._changes: defaultdict[int, int] = defaultdict(int)

    def left(self, stream: int) -> int:
        """Return the window of a stream, or of the connection, which is number 0."""
        return (self._initial if stream else WINDOW_BYTES) + self._changes[stream]

    def take(self, stream: int, size: int) -> bool:
        """Reduce the windows of a stream and of the connection, if both are large enough."""
        if size > max(0, min(self.left(stream), self.left(0))):
            self.grown.clear()
            return False
        self._changes[stream] -= size
        self._changes[0] -= size
        return True

    def grow(self, stream: int, size: int) -> None:
        """Record a WINDOW_UPDATE."""
        self._changes[stream] += size
        self.grown.set()

    def set_initial(self, size: int) -> None:
        """Record the initial window of SETTINGS, which changes the streams that exist too."""
        self._initial = size
        self.grown.set()


class Receiver:
    """The receiving half of a connection.

    Attributes:
        received: All frames that have arrived.
        windows: The windows that the server has granted.
        encoder: The encoder of requests, whose table has the size of the server's SETTINGS.
        streams_max: How many concurrent streams the server's SETTINGS allow.
        has_settings: Whether the server's SETTINGS have arrived.
        goaways: The last stream ids of the GOAWAY frames that have arrived.
        goaway: The code of the last of them.
        resets: The codes of RST_STREAM by stream.
        faults: Descriptions of what the server has sent against RFC 9113.
        replies: The frames with which a correct client replies, to be sent next.
    """

    def __init__(self, window: int | None = None, *, automatic: bool = True) -> None:
        """Receive from the start of a connection.

        Args:
            window: How many bytes of each answer the server may send; None for any number.
            automatic: Whether this side does what a correct client does by itself: acknowledge
                SETTINGS and PING, and grow windows for what has arrived.
        """
        self.received: list[Frame] = []
        self.windows = Windows()
        self.encoder = Encoder()
        self.streams_max: int | None = None
        self.has_settings = False
        self.goaways: list[int] = []
        self.goaway: ErrorCode | int | None = None
        self.resets: dict[int, ErrorCode | int] = {}
        self.faults: list[str] = []
        self.replies = bytearray()
        self._automatic = automatic
        self._refills = window is None
        self._granted = Windows(WINDOW_BYTES if window is None else window)
        self._consumed: Counter[int] = Counter()
        self._decoder = Decoder()
        self._block: tuple[Frame, bytes] | None = None
        self._buffer = bytearray()
        self._answers: dict[int, Answer] = {}
        self._over = False

    def answer(self, stream: int) -> Answer:
        """Return the answer on a stream, which fills as frames arrive until the connection ends."""
        answer = self._answers.setdefault(stream, Answer())
        if self._over:
            answer.ended.set()
        return answer

    def receive(self, data: bytes) -> None:
        """Take bytes from the server."""
        self._buffer += data
        for frame in frames.take_frames(self._buffer):
            self.received.append(frame)
            try:
                self._take(frame)
            except (struct.error, HPACKError, ValueError, IndexError) as error:
                self._fault(f"a malformed frame of type {frame.kind}: {error!r}")

    def end(self) -> None:
        """End all answers, with the connection; those of later calls end at once."""
        self._over = True
        for stream in self._answers:
            self._end_answer(stream)

    def _take(self, frame: Frame) -> None:
        if len(frame.payload) > frames.MAX_FRAME_SIZE:
            self._fault(f"a frame of {len(frame.payload)} bytes")
        if self._block is not None and frame.kind != Kind.CONTINUATION:
            self._fault(f"a frame of type {frame.kind} in a header block")
        match frame.kind:
            case Kind.DATA:
                self._take_data(frame)
            case Kind.HEADERS | Kind.CONTINUATION:
                self._take_header_frame(frame)
            case Kind.RST_STREAM:
                code = frames.error_code(*struct.unpack(">I", frame.payload))
                self.resets[frame.stream] = self.answer(frame.stream).reset = code
                self._end_answer(frame.stream)
            case Kind.SETTINGS if not frame.flags & Flag.ACK:
                self._take_settings(dict(struct.iter_unpack(">HI", frame.payload)))
            case Kind.PUSH_PROMISE:
                self._fault("PUSH_PROMISE")
            case Kind.PING if not frame.flags & Flag.ACK and self._automatic:
                self.replies += frames.frame(Kind.PING, frame.payload, flags=Flag.ACK)
            case Kind.GOAWAY:
                last, code = struct.unpack_from(">II", frame.payload)
                if self.goaways and last > self.goaways[-1]:
                    self._fault(f"GOAWAY of {last} after {self.goaways[-1]}")
                self.goaways.append(last)
                self.goaway = frames.error_code(code)
            case Kind.WINDOW_UPDATE:
                (increment,) = struct.unpack(">I", frame.payload)
                if not increment:
                    self._fault("a WINDOW_UPDATE of 0")
                self.windows.grow(frame.stream, increment)

    def _take_settings(self, values: dict[int, int]) -> None:
        if Setting.INITIAL_WINDOW_SIZE in values:
            self.windows.set_initial(values[Setting.INITIAL_WINDOW_SIZE])
        if Setting.HEADER_TABLE_SIZE in values:
            self.encoder.header_table_size = values[Setting.HEADER_TABLE_SIZE]
        self.streams_max = values.get(Setting.MAX_CONCURRENT_STREAMS, self.streams_max)
        self.has_settings = True
        if self._automatic:
            self.replies += frames.frame(Kind.SETTINGS, flags=Flag.ACK)

    def _take_data(self, frame: Frame) -> None:
        answer, size = self._open_answer(frame), len(frame.payload)
        if not answer.headers:
            self._fault(f"DATA on stream {frame.stream} before its headers")
        answer.data += frame.content
        answer.changed.set()
        ended = bool(frame.flags & Flag.END_STREAM)
        if self._automatic:
            if not self._granted.take(frame.stream, size):
                self._fault(f"{size} bytes of DATA, which the windows do not allow")
            self._refill(0, size)
            if self._refills and not ended:
                self._refill(frame.stream, size)
        if ended:
            self._end_answer(frame.stream)

    def _refill(self, stream: int, size: int) -> None:
        """Open a window again, once half of it was used."""
        self._consumed[stream] += size
        if self._consumed[stream] > WINDOW_BYTES // 2:
            self.grant(stream, self._consumed.pop(stream))

    def grant(self, stream: int, size: int) -> None:
        """Let the server send this many more bytes of an answer."""
        self._granted.grow(stream, size)
        self.replies += frames.window_update(size, stream=stream)

    def _take_header_frame(self, frame: Frame) -> None:
        if frame.kind == Kind.HEADERS:
            self._block = frame, b""
        elif self._block is None or self._block[0].stream != frame.stream:
            self._fault("a CONTINUATION without HEADERS")
            return
        first, block = self._block
        self._block = first, block + frame.content
        if frame.flags & Flag.END_HEADERS:
            self._block = None
            fields = self._decoder.decode(block + frame.content)
            self._take_headers(first, [(str(name), str(value)) for name, value in fields])

    def _take_headers(self, first: Frame, fields: Sequence[tuple[str, str]]) -> None:
        answer, ended = self._open_answer(first), bool(first.flags & Flag.END_STREAM)
        trailing = bool(answer.headers)
        self.faults += field_faults(fields, trailing=trailing)
        if trailing and not ended:
            self._fault("trailers without END_STREAM")
        (answer.trailers if trailing else answer.headers).update(fields)
        answer.changed.set()
        if ended:
            self._end_answer(first.stream)

    def _open_answer(self, frame: Frame) -> Answer:
        if self._automatic and frame.stream not in self._answers:
            self._fault(f"a frame of type {frame.kind} on stream {frame.stream}, which is idle")
        answer = self.answer(frame.stream)
        if answer.ended.is_set():
            self._fault(f"a frame of type {frame.kind} on stream {frame.stream} after its end")
        return answer

    def _end_answer(self, stream: int) -> None:
        answer = self.answer(stream)
        answer.ended.set()
        answer.changed.set()

    def _fault(self, description: str) -> None:
        self.faults.append(description)


def field_faults(fields: Sequence[tuple[str, str]], *, trailing: bool) -> list[str]:
    """Find what RFC 9113, sections 8.2 and 8.3.2, forbid in headers or trailers of an answer."""
    pseudo = [name for name, _ in fields if name.startswith(":")]
    found = []
    if pseudo != ([] if trailing else [":status"]):
        found.append(f"the pseudo-header fields {pseudo}")
    if [name for name, _ in fields[: len(pseudo)]] != pseudo:
        found.append("a pseudo-header field after others")
    for name, value in fields:
        if name != name.lower() or not name.isascii() or name in _HTTP1_FIELDS:
            found.append(f"the field name {name!r}")
        if value != value.strip(" \t") or not {"\r", "\n", "\0"}.isdisjoint(value):
            found.append(f"the value {value!r} of {name}")
    return found
