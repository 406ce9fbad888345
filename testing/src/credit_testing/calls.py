"""Build valid and invalid requests of gRPC calls, and read the answers."""

import asyncio
import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import betterproto2
from credit_models.codec import WireCodec, encode
from credit_models.status import StatusDetailsCodec
from google.protobuf.message import Message
from grpclib.const import Status
from grpclib.metadata import decode_grpc_message

from credit_testing import frames
from credit_testing.frames import ErrorCode, Flag, Header

SERVICE = "/credit.v1.CreditService/"
Headers = Sequence[Header]

_PREFIX = struct.Struct(">BI")
_ReplyT = TypeVar("_ReplyT", bound=betterproto2.Message | Message)


def framed(data: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Return a message with gRPC's prefix; tests may pass a wrong flag or length."""
    return _PREFIX.pack(flag, len(data) if length is None else length) + data


def message_bytes(message: betterproto2.Message | Message) -> bytes:
    """Encode a message of the contract, or one of Google's."""
    return message.SerializeToString() if isinstance(message, Message) else encode(message)


def full_path(path: str) -> str:
    """Return the full path of a call; a name without a service is a method of the contract."""
    return path if path.startswith("/") else SERVICE + path


def call_headers(path: str, *more: Header) -> Headers:
    """Return the headers of a valid call, followed by more headers."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "127.0.0.1"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    ]


def call_frames(stream: int, path: str, message: betterproto2.Message | Message) -> bytes:
    """Return the frames of a valid call; for the path see `full_path`."""
    block = frames.header_block(call_headers(full_path(path)))
    body = framed(message_bytes(message))
    return frames.headers(stream, block) + frames.data(stream, body, Flag.END_STREAM)


@dataclass(kw_only=True, slots=True)
class Answer:
    """The answer received on one stream so far.

    Attributes:
        headers: The first headers; those of an answer without messages contain the status.
        data: The messages, with their prefixes.
        trailers: The headers after the messages.
        reset: The code of a RST_STREAM that the server sent.
        changed: Set whenever a part of the answer arrives.
        ended: Set when the stream or the connection ends.
    """

    headers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    trailers: dict[str, str] = field(default_factory=dict)
    reset: ErrorCode | int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def begun(self) -> None:
        """Wait for the first bytes of a message, or the end of the answer."""
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
    def outcome(self) -> str | None:
        """Return the name of the gRPC status, else the reset, else the HTTP status, else None."""
        if self.status is not None:
            return self.status.name
        if self.reset is not None:
            return f"RST_STREAM {frames.code_name(self.reset)}"
        http = self.headers.get(":status")
        return f"HTTP {http}" if http is not None and self.ended.is_set() else None

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
            flag, length = _PREFIX.unpack(data[: _PREFIX.size])
            assert not flag
            found.append(WireCodec().decode(data[_PREFIX.size : _PREFIX.size + length], reply_type))
            data = data[_PREFIX.size + length :]
        return found

    def message(self, reply_type: type[_ReplyT]) -> _ReplyT:
        """Decode the only message of a call that succeeded."""
        assert self.status is Status.OK, f"{self.status}: {self.sentence}"
        (message,) = self.messages(reply_type)
        return message
