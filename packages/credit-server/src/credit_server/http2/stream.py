"""grpclib's connection and streams as a handler uses them, and what they need of the handler.

They record how the client makes progress with what it is sent.
"""

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial

from grpclib.config import Configuration
from grpclib.protocol import AbstractHandler, Connection, Stream

from credit_server.admission.list_slots import CallerSlots
from credit_server.http2.frames import ServerFrames
from credit_server.http2.peer import ServerPeer

# What precedes each message of a stream: in gRPC a flag and a length.
MESSAGE_PREFIX_BYTES = 5


class StreamHandler(AbstractHandler):
    """Serves the streams of one connection: all that a connection needs of the layer above.

    grpclib's `accept`, `cancel` and `close` begin a stream, end one, and end all of them.

    Attributes:
        awaited: The number of open streams that a drain waits for.
        lasting: The number of open streams that may stay open for long.
    """

    awaited: int
    lasting: int

    @abstractmethod
    def cut_off(self, stream: Stream) -> None:
        """End a stream that outlives its connection's grace, and answer it."""


class ServerConnection(Connection):
    """The writing side of a connection, with grpclib's interface.

    Attributes:
        output_ended: Whether the last frame has been sent. h2 still creates frames after it; they
            are dropped.
        progressed_at: When the client last took a part of an answer, or a list ended by itself.
        clock: Returns the time in seconds.
        list_slots: Bounds how many lists of each caller run at once.
        sending: The streams that are sending data, and may wait for the client's window.
        draining: Whether the connection is being drained, so that long calls must end soon.
        note_read: Is called with a stream and the number of bytes of a message that its call has
            read, and that the connection no longer holds.
    """

    def __init__(
        self,
        frames: ServerFrames,
        transport: asyncio.Transport,
        *,
        config: Configuration,
        peer: ServerPeer,
        lists_max: int,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(frames, transport, config=config)
        self._peer = peer
        self._flushing = False
        self.sending: set[ServerStream] = set()
        self.output_ended = False
        self.list_slots = CallerSlots(lists_max)
        self.progressed_at = clock()
        self.clock = clock
        self.draining = False
        self._on_drain: set[Callable[[], None]] = set()
        self.note_read: Callable[[Stream, int], None] = ignore_read

    def drain(self) -> None:
        """Note that the connection is being drained, and notify its long calls."""
        self.draining = True
        for callback in list(self._on_drain):
            callback()

    @contextmanager
    def on_drain(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call a function when the connection is drained while the context lasts.

        Args:
            callback: The function. It is called at once if the connection is draining already.
        """
        self._on_drain.add(callback)
        try:
            if self.draining:
                callback()
            yield
        finally:
            self._on_drain.discard(callback)

    def get_peer(self) -> ServerPeer:
        """Return the client at the other end."""
        return self._peer

    def flush(self) -> None:
        """Send the frames that are ready."""
        self._flushing = False
        if not self.output_ended and not self.is_closing():
            super().flush()

    def flush_soon(self) -> None:
        """Send what was written once all that is ready now has been written.

        A batch answers many calls at once: they leave in one packet, and wake the client once.
        """
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def ack(self, stream_id: int, size: int) -> None:
        """Let the client send as many bytes as were read.

        grpclib would write a packet for each message that is read, which takes a fifth of the time
        of a small call.
        """
        if size:
            self._connection.acknowledge_received_data(size, stream_id)
            self.flush_soon()

    def begin_stream(self, stream_id: int) -> "ServerStream":
        """Return a stream that the client has begun."""
        stream = ServerStream(self, self._connection, self._transport)
        stream.id = stream_id
        stream.buffer = RequestBuffer(partial(self.ack, stream_id))
        self.streams_started += 1
        return stream


def ignore_read(_stream: Stream, _size: int) -> None:
    """Do nothing: what the streams of a connection hold is not counted."""


class RequestEndedError(Exception):
    """A request has ended before all bytes of a read arrived."""


@dataclass(slots=True, eq=False)
class RequestBuffer:
    """Replaces grpclib's buffer and takes a fifth of its time: it has no queue and copies no parts.

    Only one task reads. Data counts against the client's window until a read needs it, so a client
    can send only one window of data beyond what was read.

    Attributes:
        acknowledge: Returns a number of bytes to the client's window.
        untaken: The data that no read has taken, each part with its size in the client's window.
    """

    acknowledge: Callable[[int], None]
    untaken: deque[tuple[bytes, int]] = field(default_factory=deque, init=False)
    _taken: bytearray = field(default_factory=bytearray, init=False)
    _ended: bool = field(default=False, init=False)
    _reader: asyncio.Future[None] | None = field(default=None, init=False)

    def add(self, data: bytes, ack_size: int) -> None:
        """Append data.

        Args:
            data: The data.
            ack_size: The size in the client's window: more than the length of padded data.
        """
        self.untaken.append((data, ack_size))
        if self._reader is not None:
            self._wake(self._reader)

    def eof(self) -> None:
        """Record that the request has ended."""
        self._ended = True
        if self._reader is not None:
            self._wake(self._reader)

    async def read(self, size: int) -> bytes:
        """Return this number of bytes, or no bytes after the end of the request.

        Raises:
            RequestEndedError: The request has ended, and fewer bytes are left.
        """
        taken = self._taken
        while len(taken) < size:
            if self.untaken:
                data, ack_size = self.untaken.popleft()
                taken += data
                self.acknowledge(ack_size)
            elif self._ended:
                if taken:
                    raise RequestEndedError
                return b""
            else:
                self._reader = asyncio.get_running_loop().create_future()
                await self._reader
        data = bytes(taken[:size])
        del taken[:size]
        return data

    def unacked_size(self) -> int:
        """Drop the data that no read has taken; return its size in the client's window."""
        size = sum(ack_size for _, ack_size in self.untaken)
        self.untaken.clear()
        return size

    def _wake(self, reader: "asyncio.Future[None]") -> None:
        self._reader = None
        if not reader.done():
            reader.set_result(None)


class ServerStream(Stream):
    """grpclib's stream, which records since when the client makes no progress with it.

    Attributes:
        sending_since: Since when the client has taken nothing of what it is sent; None: nothing
            is being sent.
        waiting_since: Since when it waits for a list slot; None: it has one or needs none.
        too_long: Why the headers of its request are too long; empty: they are not.
        takes_messages: Whether its call takes a stream of messages.
    """

    connection: ServerConnection
    buffer: RequestBuffer  # type: ignore[assignment] # it has all methods that grpclib calls
    too_long = ""
    takes_messages = False
    sending_since: float | None = None
    waiting_since: float | None = None

    async def send_data(self, data: bytes, end_stream: bool = False) -> None:
        """Send data as fast as the client takes it."""
        connection = self.connection
        clock = connection.clock
        self.sending_since = clock()
        connection.sending.add(self)
        try:
            await super().send_data(data, end_stream)
            connection.progressed_at = clock()
        finally:
            connection.sending.discard(self)
            self.sending_since = None

    @asynccontextmanager
    async def list_slot(self, caller: str) -> AsyncIterator[None]:
        """Wait for one of a caller's slots for lists, and hold it while the context lasts.

        A client that takes nothing of its lists holds up its own alone, and no more of them hold
        what it does not take.

        Args:
            caller: Whose list it is.
        """
        connection = self.connection
        slots = connection.list_slots.of(caller)
        self.waiting_since = connection.clock()
        try:
            await slots.acquire()
        finally:
            self.waiting_since = None
        try:
            yield
        except asyncio.CancelledError:
            raise  # given up, perhaps because nothing of it was taken
        except Exception:
            connection.progressed_at = connection.clock()
            raise
        else:
            connection.progressed_at = connection.clock()
        finally:
            slots.release()

    def message_read(self, size: int) -> None:
        """Note that the call has read a message of this size from a stream of messages."""
        self.connection.note_read(self, size)

    def stalled_since(self) -> float | None:
        """Return since when the client keeps the stream from making progress; None: it does not.

        A list that waits for a slot waits for what the client takes of other lists.
        """
        if self.waiting_since is not None:
            return max(self.waiting_since, self.connection.progressed_at)
        return self.sending_since

    def note_progress(self, now: float) -> None:
        """Note that the client has enlarged its window."""
        self.window_updated.set()
        if self.sending_since is not None:
            self.sending_since = now
