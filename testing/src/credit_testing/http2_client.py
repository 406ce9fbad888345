"""Make gRPC calls over a raw HTTP/2 connection, also calls that no gRPC client sends."""

import asyncio
import base64
import contextlib
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import betterproto2
from credit_models.codec import WireCodec, encode
from credit_models.status import StatusDetailsCodec
from google.protobuf.message import Message
from grpclib.const import Status
from grpclib.metadata import decode_grpc_message
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame

SERVICE = "/credit.v1.CreditService/"
Headers = Sequence[tuple[str | bytes, str | bytes]]

_FRAME = struct.Struct(">BI")
_ReplyT = TypeVar("_ReplyT", bound=betterproto2.Message | Message)


def framed(data: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Return a message behind gRPC's prefix; a flag or a length may be wrong on purpose."""
    return _FRAME.pack(flag, len(data) if length is None else length) + data


def message_bytes(message: betterproto2.Message | Message) -> bytes:
    """Encode a message of the contract, or one of Google's."""
    return message.SerializeToString() if isinstance(message, Message) else encode(message)


def call_headers(path: str, *more: tuple[str | bytes, str | bytes]) -> Headers:
    """Return the headers of a valid call, and more after them."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "127.0.0.1"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    ]


@dataclass(kw_only=True, slots=True)
class Answer:
    """What has come back for one call so far.

    Attributes:
        changed: Set whenever something arrives.
        ended: Set at the end of the answer, or of the connection.
    """

    headers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    trailers: dict[str, str] = field(default_factory=dict)
    reset: ErrorCodes | int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def begun(self) -> None:
        """Wait for the first bytes of a message."""
        while not (self.data or self.ended.is_set()):
            self.changed.clear()
            await self.changed.wait()

    @property
    def metadata(self) -> Mapping[str, str]:
        """Return headers and trailers together."""
        return {**self.headers, **self.trailers}

    @property
    def status(self) -> Status | None:
        """Return the gRPC status, or None."""
        number = self.metadata.get("grpc-status")
        return None if number is None else Status(int(number))

    @property
    def sentence(self) -> str:
        """Return the message of the status."""
        return decode_grpc_message(self.metadata.get("grpc-message", ""))

    @property
    def details(self) -> list[Message]:
        """Return the messages of `google.rpc` that accompany the status."""
        data = self.binary("grpc-status-details-bin")
        return StatusDetailsCodec().decode(self.status or Status.OK, None, data)

    def binary(self, key: str) -> bytes:
        """Decode a `-bin` trailer; a missing one is empty."""
        value = self.metadata.get(key, "")
        return base64.b64decode(value + "=" * (-len(value) % 4))

    def messages(self, reply_type: type[_ReplyT]) -> list[_ReplyT]:
        """Decode all messages."""
        found, data = [], bytes(self.data)
        while data:
            flag, length = _FRAME.unpack(data[: _FRAME.size])
            assert not flag
            found.append(WireCodec().decode(data[_FRAME.size : _FRAME.size + length], reply_type))
            data = data[_FRAME.size + length :]
        return found

    def message(self, reply_type: type[_ReplyT]) -> _ReplyT:
        """Decode the only message of a call that succeeded."""
        assert self.status is Status.OK, f"{self.status}: {self.sentence}"
        (message,) = self.messages(reply_type)
        return message


class Wire:
    """One connection.

    Attributes:
        h2: May be used to send frames as well; `flush` writes them.
        goaways: The last stream ids of all GOAWAY frames received.
        goaway: The code of the last of them.
        closed: Set when the connection has ended.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        # h2 would send and receive nothing after a GOAWAY; the calls that have begun go on.
        self.h2._frame_dispatch_table[GoAwayFrame] = self._take_goaway
        self.goaways: list[int] = []
        self._goaway_came = asyncio.Event()
        self.closed = asyncio.Event()
        self._ponged = asyncio.Event()
        self.goaway: ErrorCodes | int | None = None
        self._reader = reader
        self._writer = writer
        self._answers: dict[int, Answer] = {}
        self._task = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        port: int = 0,
        *,
        window: int = 65535,
        address: str = "127.0.0.1",
        path: Path | None = None,
    ) -> AsyncIterator["Wire"]:
        """Connect to a loopback port, or to a Unix domain socket.

        Args:
            port: The port.
            window: How many bytes of an answer the server may send ahead.
            address: The loopback address to connect from.
            path: The socket, instead of a port.
        """
        if path is None:
            opened = asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        else:
            opened = asyncio.open_unix_connection(path)
        reader, writer = await opened
        wire = cls(reader, writer)
        wire.h2.initiate_connection()
        wire.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        wire.flush()
        try:
            yield wire
        finally:
            await wire.disconnect()

    def flush(self) -> None:
        """Write the frames that `h2` has ready."""
        self._writer.write(self.h2.data_to_send())

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._writer.write(data)

    def begin(self, headers: Headers, data: bytes = b"", *, end: bool = True) -> tuple[int, Answer]:
        """Begin a call; return the id of its stream and the answer, which fills up."""
        stream_id = self.h2.get_next_available_stream_id()
        answer = self._answers[stream_id] = Answer()
        self.h2.send_headers(stream_id, headers, end_stream=end and not data)
        if data:
            self.send(stream_id, data, end=end)
        self.flush()
        return stream_id, answer

    def send(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Send more of a request, in one DATA frame."""
        self.h2.send_data(stream_id, data, end_stream=end)
        self.flush()

    async def ended(self, answer: Answer) -> Answer:
        """Wait for the end of an answer."""
        await answer.ended.wait()
        return answer

    async def request(self, headers: Headers, data: bytes = b"", *, end: bool = True) -> Answer:
        """Make a call of any headers and bytes, and wait for its end."""
        return await self.ended(self.begin(headers, data, end=end)[1])

    async def call(
        self,
        path: str,
        message: betterproto2.Message | Message,
        *more: tuple[str | bytes, str | bytes],
    ) -> Answer:
        """Make a valid call and wait for its end; a method alone is one of the contract."""
        full_path = path if path.startswith("/") else SERVICE + path
        return await self.request(call_headers(full_path, *more), framed(message_bytes(message)))

    async def pong(self) -> None:
        """Wait until the server has read everything sent before; it answers PINGs in order."""
        self._ponged.clear()
        self.h2.ping(b"in order")
        self.flush()
        await self._ponged.wait()

    async def said_goodbye(self, *, times: int = 1) -> None:
        """Wait for a number of GOAWAY frames."""
        while len(self.goaways) < times:
            self._goaway_came.clear()
            await self._goaway_came.wait()

    async def disconnect(self) -> None:
        """Close the connection without a GOAWAY."""
        self._writer.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._take(event)
                self.flush()
        except ConnectionError:
            pass
        finally:
            self._writer.close()
            self.closed.set()
            self._ponged.set()
            for answer in self._answers.values():
                answer.changed.set()
                answer.ended.set()

    def _take_goaway(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        self.goaway = ErrorCodes(frame.error_code)
        self.goaways.append(frame.last_stream_id)
        self._goaway_came.set()
        return [], []

    def _take(self, event: Event) -> None:
        if isinstance(event, PingAckReceived):
            self._ponged.set()
        answer = self._answers.get(getattr(event, "stream_id", None) or 0)
        if answer is None:
            return
        match event:
            case ResponseReceived():
                answer.headers.update(_text(event.headers))
            case TrailersReceived():
                answer.trailers.update(_text(event.headers))
            case DataReceived():
                answer.data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                answer.ended.set()
            case StreamReset():
                answer.reset = event.error_code
                answer.ended.set()
        answer.changed.set()


# h2 gives text, as the connection's header encoding asks; its types allow for bytes.
def _text(headers: Sequence[tuple[str | bytes, str | bytes]]) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}
