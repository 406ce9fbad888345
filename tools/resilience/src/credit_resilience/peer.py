"""Run one connection of an attacker: send any bytes, and record the frames that arrive."""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from credit_testing import frames
from credit_testing.frames import Flag, Kind, Setting
from grpclib.const import Status
from h2.errors import ErrorCodes
from hpack import Decoder

from credit_resilience.usage import established_ports

HOST = "127.0.0.1"
ATTACKER = "127.0.0.2"
"""The source address of attackers: on loopback, but another peer than the bystander."""

_HEAD = struct.Struct(">HBBBI")
_READ_BYTES = 65_536
_LOOK_SECONDS = 0.02


@dataclass(kw_only=True, slots=True)
class Answer:
    """The answer received on one stream so far.

    Attributes:
        fields: The headers and trailers together.
        data_bytes: The size of the DATA between them.
        reset: The code of a RST_STREAM that ended the stream.
        ended: Set when the stream or the connection ends.
    """

    fields: dict[str, str] = field(default_factory=dict)
    data_bytes: int = 0
    reset: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> str | None:
        """Return the name of the gRPC status, else the reset, else the HTTP status, else None."""
        number = self.fields.get("grpc-status")
        if number is not None:
            return Status(int(number)).name
        if self.reset is not None:
            return f"RST_STREAM {code_name(self.reset)}"
        http = self.fields.get(":status")
        return f"HTTP {http}" if http is not None and self.ended.is_set() else None


class Windows:
    """The flow-control windows of the server: RFC 9113, section 6.9.

    Attributes:
        grown: Set when a window has grown since `take` last failed.
    """

    def __init__(self) -> None:
        self.grown = asyncio.Event()
        self._initial = 65_535
        self._left: dict[int, int] = {0: 65_535}

    def take(self, stream: int, size: int) -> bool:
        """Reduce the windows of a stream and of the connection, if both are large enough."""
        left = self._left.setdefault(stream, self._initial)
        if size > min(left, self._left[0]):
            self.grown.clear()
            return False
        self._left[stream] -= size
        self._left[0] -= size
        return True

    def grow(self, stream: int, size: int) -> None:
        """Record a WINDOW_UPDATE."""
        self._left[stream] = self._left.get(stream, self._initial) + size
        self.grown.set()

    def set_initial(self, size: int) -> None:
        """Record the initial window of each new stream, from the server's SETTINGS."""
        self._initial = size


class Peer:
    """A connection whose frames the attack writes itself.

    Attributes:
        address: The attacker's host:port, as in the server's log.
        goaway: The code of a GOAWAY that the server sent.
        closed: Set when the server has closed the connection.
        resets: The number of RST_STREAM frames received, by code.
        windows: The flow-control windows; only attacks that respect them read them.
        streams_max: How many streams the server's SETTINGS allow at once.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._answers: dict[int, Answer] = {}
        self._decoder = Decoder()
        self._ponged = asyncio.Event()
        self._greeted = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        host, self._port = connection.getsockname()
        self._server_port: int = connection.getpeername()[1]
        self.address = f"{host}:{self._port}"
        self.goaway: int | None = None
        self.closed = asyncio.Event()
        self.resets: Counter[str] = Counter()
        self.windows = Windows()
        self.streams_max: int | None = None

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        port: int,
        *values: tuple[int, int],
        greeting: bytes | None = None,
        source: str = ATTACKER,
        reads: bool = True,
    ) -> AsyncIterator["Peer"]:
        """Keep a connection open until the context exits.

        Args:
            port: The server's port on loopback.
            values: The settings in the SETTINGS frame of the greeting.
            greeting: The first bytes, instead of the preface and SETTINGS.
            source: The loopback address to connect from.
            reads: Whether the attacker reads. If not, its receive buffer is the smallest possible.

        Raises:
            OSError: The connection was refused.
        """
        connection = socket.socket()
        try:
            connection.setblocking(False)
            if not reads:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.bind((source, 0))
            await asyncio.get_running_loop().sock_connect(connection, (HOST, port))
            peer = cls(connection)
            if reads:
                peer._reader = asyncio.create_task(peer._read())
            hello = frames.PREFACE + frames.settings(*values)
            await peer.send(hello if greeting is None else greeting)
            try:
                yield peer
            finally:
                await peer._stop_reading()
        finally:
            connection.close()

    @property
    def over(self) -> bool:
        """Return whether the server has closed the connection or sent GOAWAY."""
        return self.goaway is not None or self.closed.is_set()

    @property
    def ending(self) -> str:
        """Return a description of how the server has ended the connection."""
        if self.goaway is None:
            return "closed" if self.closed.is_set() else "open"
        goaway = f"GOAWAY {code_name(self.goaway)}"
        return goaway if self.closed.is_set() else f"{goaway}, not closed"

    async def send(self, octets: bytes) -> None:
        """Send bytes; do nothing once the server has closed the connection."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._socket, octets)
        # A send that fits into the socket's buffer does not yield to the event loop and the reader.
        await asyncio.sleep(0)

    async def flood(self, pieces: Iterable[bytes]) -> None:
        """Send pieces one after the other until the server ends the connection."""
        for piece in pieces:
            if self.over:
                return
            await self.send(piece)

    async def send_data(self, stream: int, payload: bytes, flags: int = Flag.NONE) -> None:
        """Send DATA as a correct client does: each frame as soon as the windows allow it."""
        starts = range(0, len(payload), frames.MAX_FRAME_SIZE)
        for at in starts:
            piece = payload[at : at + frames.MAX_FRAME_SIZE]
            while not self.windows.take(stream, len(piece)):
                await self.windows.grown.wait()
            last = at == starts[-1]
            await self.send(frames.data(stream, piece, flags if last else Flag.NONE))

    async def request(self, stream: int, block: bytes, body: bytes = b"") -> Answer:
        """Send a whole request and return its answer, which fills as frames arrive."""
        answer = self.answer(stream)
        flags = Flag.END_HEADERS if body else Flag.END_HEADERS | Flag.END_STREAM
        sent = frames.headers(stream, block, flags)
        await self.send(sent + (frames.data(stream, body, Flag.END_STREAM) if body else b""))
        return answer

    def answer(self, stream: int) -> Answer:
        """Return the answer on a stream, which fills as frames arrive."""
        return self._answers.setdefault(stream, Answer())

    @property
    def served(self) -> bool:
        """Return whether the server has sent SETTINGS and has not ended the connection."""
        return self._greeted.is_set() and not self.over

    async def greeted(self) -> None:
        """Wait for the server's SETTINGS, or the end of the connection."""
        await self._greeted.wait()

    async def settled(self) -> None:
        """Wait until the server has processed all frames sent, or has ended the connection.

        The server answers PINGs in the order of the frames, so the answer to a PING shows that
        it has processed the frames before.
        """
        self._ponged.clear()
        if not self.over:
            await self.send(frames.frame(Kind.PING, b"in order"))
            await self._ponged.wait()
        if self.goaway is not None:
            await self.closed.wait()

    async def disconnected(self) -> None:
        """Wait, without reading, until the server has closed the connection; GOAWAY is optional.

        Its FIN does not arrive behind unread data, so this reads the state of the server's socket
        from the kernel.
        """
        while self._port in established_ports(self._server_port):  # noqa: ASYNC110 - no event
            await asyncio.sleep(_LOOK_SECONDS)

    async def _stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        loop, buffer = asyncio.get_running_loop(), bytearray()
        with contextlib.suppress(OSError):
            while received := await loop.sock_recv(self._socket, _READ_BYTES):
                buffer += received
                self._take_frames(buffer)
        self.closed.set()
        self._greeted.set()
        self._ponged.set()
        for answer in self._answers.values():
            answer.ended.set()

    def _take_frames(self, buffer: bytearray) -> None:
        at = 0
        while len(buffer) - at >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(buffer, at)
            end = at + _HEAD.size + (high << 8 | low)
            if end > len(buffer):
                break
            self._take(kind, flags, stream, bytes(buffer[at + _HEAD.size : end]))
            at = end
        del buffer[:at]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case Kind.GOAWAY:
                (self.goaway,) = struct.unpack_from(">I", payload, 4)
                self._ponged.set()
            case Kind.SETTINGS if not flags & Flag.ACK:
                self._take_settings(payload)
            case Kind.WINDOW_UPDATE:
                self.windows.grow(stream, *struct.unpack(">I", payload))
            case Kind.PING if flags & Flag.ACK and payload == b"in order":
                self._ponged.set()
            case Kind.RST_STREAM:
                answer = self.answer(stream)
                (answer.reset,) = struct.unpack(">I", payload)
                self.resets[code_name(answer.reset)] += 1
                answer.ended.set()
            case Kind.HEADERS:
                fields = self._decoder.decode(payload)
                self.answer(stream).fields.update((str(name), str(value)) for name, value in fields)
            case Kind.DATA:
                self.answer(stream).data_bytes += len(payload)
        if kind in (Kind.HEADERS, Kind.DATA) and flags & Flag.END_STREAM:
            self.answer(stream).ended.set()

    def _take_settings(self, payload: bytes) -> None:
        values = dict(struct.iter_unpack(">HI", payload))
        self.windows.set_initial(values.get(Setting.INITIAL_WINDOW_SIZE, 65_535))
        self.streams_max = values.get(Setting.MAX_CONCURRENT_STREAMS)
        self._greeted.set()


def code_name(code: int) -> str:
    """Name an error code of HTTP/2."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"code {code}"
