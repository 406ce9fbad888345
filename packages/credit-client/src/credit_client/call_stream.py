"""One attempt as a stream of gRPC on a connection, and what its failures mean in gRPC's terms."""

import contextlib
import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Self, cast

from credit_models.codec import WireCodec, WireError
from credit_models.status import StatusDetailsCodec
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import Deadline, _Metadata
from grpclib.protocol import Connection
from grpclib.utils import Wrapper
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from multidict import MultiDict

from credit_client.pool import Pool
from credit_client.scope import Scope
from credit_client.transport import AnswerBroken, AttemptFailed, Method, ReplyT, RequestT

REQUEST_ID = "x-request-id"

# gRPC's own default. The largest message of the contract, `UserCredits`, takes 14 bytes per app.
MESSAGE_BYTES_MAX = 4 * 1024 * 1024

CODEC = WireCodec()
STATUS_DETAILS_CODEC = StatusDetailsCodec()

_PREFIX = struct.Struct(">BI")

# What grpclib and h2 raise for a status other than OK, and for a connection that fails.
_FAILED = GRPCError, StreamTerminatedError, ProtocolError
# What grpclib and the codec raise for bytes that are no answer. A missing header is a `KeyError`;
# base64 and numbers that cannot be read are a `ValueError`.
_UNREADABLE = WireError, KeyError, ValueError


def framed(message: bytes) -> bytes:
    """Return an encoded message with its prefix, not compressed."""
    return _PREFIX.pack(0, len(message)) + message


class CallStream(Stream[RequestT, ReplyT]):
    """One attempt on a channel: grpclib's stream, which ends as gRPC prescribes.

    It differs from `grpclib.client.Stream` in these points: a `Scope` wakes a call that waits; a
    call that is given up is reset with the code CANCEL; no message is larger than
    `MESSAGE_BYTES_MAX`; and every error of grpclib, h2 and the codec becomes an `AttemptFailed`.

    A class and no `asynccontextmanager`: `asyncio.run` closes the generators of an unfinished list
    at its end in any order, and one inside another would be closed before the outer one.
    """

    def __init__(
        self,
        channel: Channel,
        method: Method[RequestT, ReplyT],
        cardinality: Cardinality,
        *,
        pool: Pool,
        request_id: str,
        timeout_seconds: float | None,
        metadata: Mapping[str, str],
        taken: bool = True,
    ) -> None:
        """Send nothing yet.

        Args:
            channel: The channel.
            method: The call.
            cardinality: How many messages the server sends.
            pool: The pool of the channel.
            request_id: Sent as `x-request-id`.
            timeout_seconds: Sent as `grpc-timeout`, unless it is None.
            metadata: Sent too.
            taken: Whether the pool counts the attempt; then the end of the stream gives it back.
        """
        super().__init__(
            channel,
            method.path,
            cast(_Metadata, MultiDict({**metadata, REQUEST_ID: request_id})),
            cardinality,
            method.request_type,
            method.reply_type,
            codec=CODEC,
            status_details_codec=STATUS_DETAILS_CODEC,
            dispatch=channel.__dispatch__,
            deadline=None if timeout_seconds is None else Deadline.from_timeout(timeout_seconds),
        )
        self._pool = pool
        self._taken = taken

    @property
    def connection(self) -> Connection | None:
        """The connection that the attempt was sent on; None before that."""
        return self._stream.connection if self._send_request_done else None

    @property
    def echoed_request_id(self) -> str | None:
        """The `x-request-id` of the answer, from its trailers or headers; None without one."""
        if not self._send_request_done:
            return None
        for headers in (self._stream.trailers, self._stream.headers):
            for key, value in headers or ():
                if key == REQUEST_ID:
                    return value
        return None

    async def __aenter__(self) -> Self:
        # grpclib starts a timer of its own here. A `Scope` has the methods of a `Wrapper`.
        self._wrapper = cast(Wrapper, Scope())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_val is not None and self._send_request_done and self._stream.closable:
            self._stream.reset_nowait(ErrorCodes.CANCEL)
        try:
            await super().__aexit__(exc_type, exc_val, exc_tb)
        except (*_FAILED, *_UNREADABLE) as worse:
            # What the server answered before the connection ended: grpclib raises it only here.
            raise self._failure(worse) from worse
        finally:
            if self._taken:
                self._pool.give_back(self._channel)
        match exc_val:
            case AttemptFailed():
                exc_val.request_id = self.echoed_request_id
            case GRPCError() | StreamTerminatedError() | ProtocolError():
                raise self._failure(exc_val) from exc_val
            # Before the message is sent, such an error is a bug of this package.
            case WireError() | KeyError() | ValueError() if self._send_message_done:
                raise self._failure(exc_val) from exc_val

    async def send_encoded(self, messages: bytes) -> None:
        """Send messages that are encoded, each with its prefix. The reader may wait meanwhile."""
        await self._stream.send_data(messages)
        self._send_message_done = True

    async def recv_status(self) -> None:
        """End the sending side, if it is still open, and receive how the server ended the call."""
        if not self._end_done:
            with contextlib.suppress(StreamTerminatedError, ProtocolError):
                await self.end()
            # grpclib reads no status before, also of a server that ends the call first.
            self._end_done = True
        await self.recv_trailing_metadata()

    async def recv_message(self) -> ReplyT | None:
        """Receive the next message, or None after the last one.

        Raises:
            AnswerBroken: What the server sends is no message of gRPC.
        """
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        try:
            prefix = await self._recv_data(_PREFIX.size)
            if not prefix:
                return None
            compressed, size = _PREFIX.unpack(prefix)
            if compressed:
                raise AnswerBroken(
                    Status.INTERNAL, "the answer is compressed, but no compression was offered"
                )
            if size > MESSAGE_BYTES_MAX:
                raise AnswerBroken(
                    Status.INTERNAL,
                    f"a message of the answer has {size} bytes, more than the"
                    f" {MESSAGE_BYTES_MAX} bytes that are allowed",
                )
            data = await self._recv_data(size)
        except AssertionError as error:
            # grpclib's buffer raises it where the stream ends within a message. A server may end
            # the call there, for example at its deadline: then its status is the answer.
            self._maybe_raise()
            raise AnswerBroken(
                Status.INTERNAL, "the answer cannot be understood: a message is cut short"
            ) from error
        message: ReplyT = self._codec.decode(data, self._recv_type)
        return message

    async def _recv_data(self, size: int) -> bytes:
        """Receive this number of bytes of a complete answer even if the stream was reset after it.

        If a client has not ended its stream, the server ends it with an answer and a reset. The
        client must not discard this answer (RFC 9113, section 8.1). The answer may contain outcomes
        of writes, and its status shows that there are no others.
        """
        try:
            with self._wrapper:
                return await self._stream.recv_data(size)
        except StreamTerminatedError:
            if self._stream.trailers is None:
                raise
            # The answer is complete, so this does not wait.
            return await self._stream.recv_data(size)

    def _failure(self, error: Exception) -> AttemptFailed:
        """Translate an error of grpclib, h2 or the codec into gRPC's terms."""
        failure: AttemptFailed
        match error:
            case GRPCError():
                failure = AttemptFailed(
                    error.status,
                    error.message or f"the server answered {error.status.name} without a message",
                    details=error.details or (),
                )
            case StreamTerminatedError() | ProtocolError():
                failure = self._pool.lost_connection(self._channel, self.connection, error)
            case _:
                why = error or type(error).__name__
                failure = AnswerBroken(Status.INTERNAL, f"the answer cannot be understood: {why}")
        failure.request_id = self.echoed_request_id
        return failure
