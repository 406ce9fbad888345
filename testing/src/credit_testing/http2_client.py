"""Run one HTTP/2 connection: send any bytes, and record and check each frame that arrives.

This client is the referee between HTTP/2 engines, so it uses none: an engine would reject or hide
frames, and the server under test may run on the same engine.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, cast

import betterproto2
from google.protobuf.message import Message

from credit_testing import frames
from credit_testing.calls import Answer, Headers, call_headers, framed, full_path, message_bytes
from credit_testing.frames import ErrorCode, Flag, Frame, Header, Kind, Setting
from credit_testing.http2_receiver import Receiver

HOST = "127.0.0.1"

_SMALL_BUFFER_BYTES = 4096


class ServerFault(Exception):
    """The server has sent frames that RFC 9113 forbids."""


class Connection(Receiver, asyncio.Protocol):
    """One connection.

    An automatic connection behaves like a correct client: it acknowledges SETTINGS and PING, opens
    the windows again for what it has received, and closes when the server closes. A manual one
    sends only what its methods are called for.

    Attributes:
        closed: Set when the server has closed its side, or the connection is lost.
    """

    def __init__(self, greeting: bytes, window: int | None, *, automatic: bool) -> None:
        super().__init__(window, automatic=automatic)
        self.closed = asyncio.Event()
        self._greeting = greeting
        self._next_stream, self._pings, self._read_count = 1, 0, 0
        self._arrived, self._lost, self._writable = (
            asyncio.Event(),
            asyncio.Event(),
            asyncio.Event(),
        )
        self._writable.set()
        self._error: Exception | None = None

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        port: int = 0,
        *values: tuple[int, int],
        path: Path | None = None,
        source: str = HOST,
        tls: ssl.SSLContext | None = None,
        host: str = HOST,
        greeting: bytes | None = None,
        window: int | None = None,
        reads: bool = True,
        automatic: bool = True,
    ) -> AsyncIterator[Self]:
        """Keep a connection to a loopback port or a Unix domain socket open during the context.

        Args:
            port: The port.
            values: The settings in the SETTINGS frame of the greeting.
            path: The Unix domain socket, instead of a port.
            source: The loopback address to connect from.
            tls: The context for TLS; None for a connection without it.
            host: The name that the server's certificate must have.
            greeting: The first bytes, instead of the preface and SETTINGS.
            window: How many bytes of each answer the server may send; None for any number.
            reads: Whether to read. If not, the receive buffer is the smallest possible.
            automatic: Whether to send what a correct client sends by itself.

        Raises:
            OSError: The connection was refused, or TLS failed.
            ServerFault: After the context, if the server has broken a rule of HTTP/2.
        """
        loop = asyncio.get_running_loop()
        if greeting is None:
            window_setting = [] if window is None else [(Setting.INITIAL_WINDOW_SIZE, window)]
            greeting = frames.PREFACE + frames.settings(*values, *window_setting)
        connection = cls(greeting, window, automatic=automatic)
        opened = await _connected(port, path, source, small=not reads)
        try:
            if path is None:
                name = host if tls else None
                await loop.create_connection(
                    lambda: connection, sock=opened, ssl=tls, server_hostname=name
                )
            else:
                await loop.create_unix_connection(lambda: connection, sock=opened)
        except BaseException:
            opened.close()
            raise
        if not reads:
            connection._transport.pause_reading()
        try:
            yield connection
        finally:
            connection.disconnect()
            await connection._lost.wait()
        if connection.faults:
            raise ServerFault("; ".join(connection.faults))

    def disconnect(self) -> None:
        """Close the connection without a GOAWAY; a manual one at once, with what is unsent."""
        if self._automatic:
            self._transport.close()
        else:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(0)
        # Before anything that is a reply to the server's SETTINGS, which may have arrived.
        self.write(self._greeting)

    def data_received(self, data: bytes) -> None:
        self.receive(data)
        self._reply()
        self._arrived.set()

    def eof_received(self) -> bool:
        self._end()
        # TLS has no half-closed connections.
        return not self._automatic and self.tls is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = exc
        self._end()
        self._writable.set()
        self._lost.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # The state of the connection.

    @property
    def address(self) -> str:
        """Return the host:port of this side, as in the server's log."""
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"

    @property
    def tls(self) -> ssl.SSLObject | None:
        """Return the TLS of the connection, or None."""
        found: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        return found

    @property
    def over(self) -> bool:
        """Return whether the server has closed the connection or sent GOAWAY."""
        return self.goaway is not None or self.closed.is_set()

    @property
    def served(self) -> bool:
        """Return whether the server has sent SETTINGS and has not ended the connection."""
        return self.has_settings and not self.over

    @property
    def ending(self) -> str:
        """Return a description of how the server has ended the connection."""
        if self.goaway is None:
            return "closed" if self.closed.is_set() else "open"
        goaway = f"GOAWAY {frames.code_name(self.goaway)}"
        return goaway if self.closed.is_set() else f"{goaway}, not closed"

    # What to send.

    def write(self, octets: bytes) -> None:
        """Write bytes as they are; do nothing once the connection is lost."""
        if not self._transport.is_closing():
            self._transport.write(octets)

    async def write_all(self, octets: bytes) -> None:
        """Write bytes, and wait until the kernel has taken them or the connection is lost."""
        self.write(octets)
        await self._writable.wait()
        # A write that the kernel takes at once does not yield to the event loop.
        await asyncio.sleep(0)

    def write_eof(self) -> None:
        """Close this side of the connection."""
        self._transport.write_eof()

    def begin(
        self, headers: Headers | bytes, data: bytes = b"", *, end: bool = True
    ) -> tuple[int, Answer]:
        """Begin a call; return the id of its stream and the answer, which fills up.

        Args:
            headers: The headers, or a header block.
            data: The first bytes of the body.
            end: Whether to end the request.
        """
        stream = self._next_stream
        self._next_stream += 2
        answer = self.answer(stream)
        block = self._headers(stream, headers, end=end and not data)
        # In one write, so that the server reads the end of the request before it answers.
        self.write(block + (self._data(stream, data, end=end) if data else b""))
        return stream, answer

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send more of a request, which the windows must allow."""
        self.write(self._data(stream, data, end=end))

    async def send_all(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send more of a request, each frame as soon as the windows allow it.

        Raises:
            ConnectionResetError: The connection has ended.
        """
        starts = range(0, len(data), frames.MAX_FRAME_SIZE)
        for at in starts:
            piece = data[at : at + frames.MAX_FRAME_SIZE]
            while not self.windows.take(stream, len(piece)):
                if self.closed.is_set():
                    raise ConnectionResetError("the connection has ended")
                await self.windows.grown.wait()
            flags = Flag.END_STREAM if end and at == starts[-1] else Flag.NONE
            await self.write_all(frames.data(stream, piece, flags))

    def send_trailers(self, stream: int, headers: Headers) -> None:
        """End a request with trailers."""
        self.write(self._headers(stream, headers, end=True))

    def reset(self, stream: int) -> None:
        """Cancel a call."""
        self.write(frames.reset(stream, ErrorCode.CANCEL))

    def grow(self, stream: int, size: int) -> None:
        """Let the server send this many more bytes of an answer."""
        self.grant(stream, size)
        self._reply()

    async def request(self, headers: Headers, data: bytes = b"", *, end: bool = True) -> Answer:
        """Make a call of any headers and bytes, and wait for its end."""
        return await self.ended(self.begin(headers, data, end=end)[1])

    async def call(
        self, path: str, message: betterproto2.Message | Message, *more: Header
    ) -> Answer:
        """Make a valid call and wait for its end; a method alone is one of the contract."""
        headers = call_headers(full_path(path), *more)
        return await self.request(headers, framed(message_bytes(message)))

    # What to wait for.

    async def ended(self, answer: Answer) -> Answer:
        """Wait for the end of an answer."""
        await answer.ended.wait()
        return answer

    async def next(self, kind: int, *, flags: int = 0) -> Frame:
        """Return the next frame of a type with flags, after the frame that was returned last.

        Raises:
            ConnectionError: The connection has ended before such a frame.
        """
        while True:
            await self._until(lambda: len(self.received) > self._read_count)
            if len(self.received) == self._read_count:
                raise self._error or ConnectionError("the server has closed the connection")
            frame = self.received[self._read_count]
            self._read_count += 1
            if frame.kind == kind and frame.flags & flags == flags:
                return frame

    async def rest(self) -> Sequence[Frame]:
        """Wait until the server has closed the connection; return the frames after `next`'s last.

        Raises:
            ConnectionError: The connection was lost.
        """
        await self.closed.wait()
        if self._error is not None:
            raise self._error
        assert not self._buffer, "the last frame is not complete"
        return self.received[self._read_count :]

    async def last_goaway(self) -> ErrorCode:
        """Wait until the server has closed the connection; return the code of its one GOAWAY."""
        code = ErrorCode(int.from_bytes((await self.next(Kind.GOAWAY)).payload[4:8]))
        assert not await self.rest(), "something came after the GOAWAY"
        return code

    async def received_goaways(self, count: int) -> None:
        """Wait for a number of GOAWAY frames, or the end of the connection."""
        await self._until(lambda: len(self.goaways) >= count)

    async def greeted(self) -> None:
        """Wait for the server's SETTINGS, or the end of the connection."""
        await self._until(lambda: self.has_settings)

    async def in_order(self) -> None:
        """Wait until the server has processed all frames sent before; it answers PINGs in order.

        Raises:
            ConnectionError: The server has ended the connection.
        """
        self._pings += 1
        payload = b"order%03d" % (self._pings % 1000)
        self.write(frames.frame(Kind.PING, payload))
        while (await self.next(Kind.PING, flags=Flag.ACK)).payload != payload:
            pass

    async def settled(self) -> None:
        """Wait until the server has processed all frames sent, or has ended the connection."""
        with contextlib.suppress(ConnectionError):
            await self.in_order()

    def _headers(self, stream: int, headers: Headers | bytes, *, end: bool) -> bytes:
        if not isinstance(headers, bytes):
            pairs = [(frames.octets(name), frames.octets(value)) for name, value in headers]
            headers = self.encoder.encode(pairs)
        flags = Flag.END_HEADERS | (Flag.END_STREAM if end else Flag.NONE)
        return frames.headers(stream, headers, flags)

    def _data(self, stream: int, data: bytes, *, end: bool) -> bytes:
        assert self.windows.take(stream, len(data)), f"the window of stream {stream} is too small"
        return frames.data(stream, data, Flag.END_STREAM if end else Flag.NONE)

    def _reply(self) -> None:
        if self.replies:
            self.write(bytes(self.replies))
            self.replies.clear()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not (condition() or self.closed.is_set()):
            self._arrived.clear()
            await self._arrived.wait()

    def _end(self) -> None:
        self.closed.set()
        self._arrived.set()
        self.windows.grown.set()
        self.end()


async def _connected(port: int, path: Path | None, source: str, *, small: bool) -> socket.socket:
    opened = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
    try:
        opened.setblocking(False)
        if small:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
        if path is None:
            # As event loops do: without it, the kernel holds small frames back.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.bind((source, 0))
        address = (HOST, port) if path is None else str(path)
        await asyncio.get_running_loop().sock_connect(opened, address)
    except BaseException:
        opened.close()
        raise
    return opened
