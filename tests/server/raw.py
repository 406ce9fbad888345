"""Frames as bytes: what no HTTP/2 library would write, and what comes back, unjudged."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from credit_models import CreditRequest, UserId
from credit_models.codec import encode
from credit_server.http2.header_block import LiteralEncoder
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.server.wire import SERVICE, Headers, call_headers, framed

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 2, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, ACK, END_HEADERS = 1, 1, 4

_HEAD = struct.Struct(">HBBBI")


def frame(type_: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Makes a frame of any type (RFC 9113, section 4.1)."""
    length = len(payload)
    return _HEAD.pack(length >> 8, length & 0xFF, type_, flags, stream) + payload


SETTINGS_FRAME = frame(SETTINGS)


def block(headers: Headers) -> bytes:
    """Writes a header block that refers to no other."""
    pairs: Sequence[tuple[bytes, ...]] = [
        tuple(text.encode() if isinstance(text, str) else text for text in pair) for pair in headers
    ]
    return LiteralEncoder().encode(pairs)


@dataclass(kw_only=True, slots=True)
class Raw:
    """One connection, and the frames that came: type, flags, stream, payload."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: list[tuple[int, int, int, bytes]] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        port: int,
        data: bytes = PREFACE + SETTINGS_FRAME,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator["Raw"]:
        """Connects to a loopback port, and begins as every client must."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        writer.write(data)
        try:
            yield cls(reader=reader, writer=writer)
        finally:
            writer.transport.abort()

    def write(self, data: bytes) -> None:
        """Writes bytes."""
        self.writer.write(data)

    async def next(self, type_: int, *, flags: int = 0) -> bytes:
        """Reads up to a frame of that type with those flags and returns its payload."""
        while True:
            high, low, found, found_flags, stream = _HEAD.unpack(
                await self.reader.readexactly(_HEAD.size)
            )
            payload = await self.reader.readexactly(high << 8 | low)
            self.received.append((found, found_flags, stream, payload))
            if found == type_ and found_flags & flags == flags:
                return payload

    async def in_order(self) -> None:
        """Waits until the server has read all that was sent before."""
        self.write(frame(PING, bytes(8)))
        await self.next(PING, flags=ACK)

    async def goaway(self) -> ErrorCodes:
        """Waits until the server has closed the connection; returns why."""
        payload = await self.next(GOAWAY)
        assert not await self.reader.read(), "something came after the GOAWAY"
        return ErrorCodes(int.from_bytes(payload[4:8]))

    def resets(self) -> dict[int, ErrorCodes]:
        """The streams that the server has reset, and why, as far as it was read."""
        return {
            stream: ErrorCodes(int.from_bytes(payload))
            for type_, _, stream, payload in self.received
            if type_ == RST_STREAM
        }


def add(stream: int) -> bytes:
    """Writes a call that adds credits."""
    request = encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9))
    headers = block(call_headers(SERVICE + "AddCredits"))
    return frame(HEADERS, headers, flags=END_HEADERS, stream=stream) + frame(
        DATA, framed(request), flags=END_STREAM, stream=stream
    )


def last_stream_id(goaway: bytes) -> int:
    """Reads the last stream id of a GOAWAY's payload."""
    return int.from_bytes(goaway[:4])


def request_for_everything() -> bytes:
    """Writes a call for a list, and windows that take in as much as the server can send."""
    client = H2Connection(H2Configuration(client_side=True, normalize_outbound_headers=False))
    client.initiate_connection()
    client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    client.increment_flow_control_window(2**31 - 1 - 65535)
    client.send_headers(1, call_headers(SERVICE + "ListUserTransactions"))
    client.send_data(1, framed(encode(UserId(user_id=7))), end_stream=True)
    return client.data_to_send()
