"""Send frames as bytes on one connection, and keep the frames that come back unchecked."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from credit_models import CreditRequest, UserId
from credit_models.codec import encode
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from credit_testing.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS_FRAME,
    frame,
    header_block,
)
from credit_testing.http2_client import SERVICE, call_headers, framed

_HEAD = struct.Struct(">HBBBI")


@dataclass(kw_only=True, slots=True)
class Raw:
    """One connection, and the frames received on it: type, flags, stream, payload."""

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
        """Connect to a loopback port and send the preface."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        writer.write(data)
        try:
            yield cls(reader=reader, writer=writer)
        finally:
            writer.transport.abort()

    def write(self, data: bytes) -> None:
        """Write bytes."""
        self.writer.write(data)

    async def next(self, type_: int, *, flags: int = 0) -> bytes:
        """Read up to a frame of a type with flags, and return its payload."""
        while True:
            high, low, found, found_flags, stream = _HEAD.unpack(
                await self.reader.readexactly(_HEAD.size)
            )
            payload = await self.reader.readexactly(high << 8 | low)
            self.received.append((found, found_flags, stream, payload))
            if found == type_ and found_flags & flags == flags:
                return payload

    async def in_order(self) -> None:
        """Wait until the server has read everything that was sent before."""
        self.write(frame(PING, bytes(8)))
        await self.next(PING, flags=ACK)

    async def goaway(self) -> ErrorCodes:
        """Wait until the server has closed the connection, and return the code of its GOAWAY."""
        payload = await self.next(GOAWAY)
        assert not await self.reader.read(), "something came after the GOAWAY"
        return ErrorCodes(int.from_bytes(payload[4:8]))

    def resets(self) -> dict[int, ErrorCodes]:
        """Return the streams that the server has reset, with the codes, among the frames read."""
        return {
            stream: ErrorCodes(int.from_bytes(payload))
            for type_, _, stream, payload in self.received
            if type_ == RST_STREAM
        }


def add(stream: int) -> bytes:
    """Return the frames of a call that adds credits."""
    request = encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9))
    headers = header_block(call_headers(SERVICE + "AddCredits"))
    return frame(HEADERS, headers, flags=END_HEADERS, stream=stream) + frame(
        DATA, framed(request), flags=END_STREAM, stream=stream
    )


def last_stream_id(goaway: bytes) -> int:
    """Return the last stream id of a GOAWAY's payload."""
    return int.from_bytes(goaway[:4])


def request_for_everything() -> bytes:
    """Return the frames of a call for a list, with the largest windows there are."""
    client = H2Connection(H2Configuration(client_side=True, normalize_outbound_headers=False))
    client.initiate_connection()
    client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    client.increment_flow_control_window(2**31 - 1 - 65535)
    client.send_headers(1, call_headers(SERVICE + "ListUserTransactions"))
    client.send_data(1, framed(encode(UserId(user_id=7))), end_stream=True)
    return client.data_to_send()
