"""One attempt on a connection: grpclib's stream, which ends as gRPC says and is bounded in size."""

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self, cast

from credit_models.codec import WireCodec, WireError
from credit_models.status import StatusDetailsCodec
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality, Status
from grpclib.metadata import Deadline, _Metadata
from grpclib.protocol import Connection
from grpclib.utils import Wrapper
from h2.errors import ErrorCodes
from multidict import MultiDict

from credit_client.scope import Scope
from credit_client.transport import AnswerBroken, Method, ReplyT, RequestT

REQUEST_ID = "x-request-id"

# gRPC's own default. The largest message of the contract, `UserCredits`, takes 14 bytes per app.
MESSAGE_BYTES_MAX = 4 * 1024 * 1024

CODEC = WireCodec()
STATUS_DETAILS_CODEC = StatusDetailsCodec()

_PREFIX = struct.Struct(">BI")


class CallStream(Stream[RequestT, ReplyT]):
    """A `grpclib.client.Stream` whose time the caller bounds.

    Differs in what wakes a waiting call (see `Scope`), in that a call that is given up is reset
    with the code CANCEL, and in that no message is larger than `MESSAGE_BYTES_MAX`.
    """

    def __init__(
        self,
        channel: Channel,
        method: Method[RequestT, ReplyT],
        cardinality: Cardinality,
        *,
        request_id: str,
        timeout_seconds: float | None,
        metadata: Mapping[str, str],
    ) -> None:
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
        given_up = exc_val is not None and self._send_request_done and self._stream.closable
        if given_up:
            self._stream.reset_nowait(ErrorCodes.CANCEL)
        with _reading():
            await super().__aexit__(exc_type, exc_val, exc_tb)

    async def recv_initial_metadata(self) -> None:
        """Receive the headers.

        Raises:
            AnswerBroken: They are not those of gRPC.
        """
        with _reading():
            await super().recv_initial_metadata()

    async def recv_trailing_metadata(self) -> None:
        """Receive the trailers.

        Raises:
            AnswerBroken: They are not those of gRPC.
        """
        with _reading():
            await super().recv_trailing_metadata()

    async def recv_message(self) -> ReplyT | None:
        """Receives the next message, or None where the server has sent the last one.

        Raises:
            AnswerBroken: What comes is no message of gRPC.
        """
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        with self._wrapper:
            prefix = await self._received(_PREFIX.size)
            if not prefix:
                return None
            compressed, size = _PREFIX.unpack(prefix)
            if compressed:
                raise AnswerBroken(Status.INTERNAL, "the answer is compressed, unasked")
            if size > MESSAGE_BYTES_MAX:
                raise AnswerBroken(
                    Status.INTERNAL,
                    f"a message of the answer has {size} bytes; {MESSAGE_BYTES_MAX} are allowed",
                )
            data = await self._received(size)
            with _reading():
                message: ReplyT = self._codec.decode(data, self._recv_type)
        return message

    async def _received(self, size: int) -> bytes:
        try:
            return await self._stream.recv_data(size)
        except AssertionError as error:
            # It is how grpclib's buffer ends where the stream does. A server may end the call
            # within a message, say at its deadline: its status is the answer then.
            with _reading():
                self._maybe_raise()
            raise AnswerBroken(
                Status.INTERNAL, "the answer cannot be understood: a message is cut short"
            ) from error

    @property
    def connection(self) -> Connection | None:
        """The connection that the call was sent on; None where it was not sent."""
        return self._stream.connection if self._send_request_done else None

    @property
    def echoed_request_id(self) -> str | None:
        """The `x-request-id` that the server has answered with, in trailers or headers, or None."""
        if not self._send_request_done:
            return None
        for headers in (self._stream.trailers, self._stream.headers):
            for key, value in headers or ():
                if key == REQUEST_ID:
                    return value
        return None


@contextmanager
def _reading() -> Iterator[None]:
    """Raise `AnswerBroken` for what grpclib and the codec raise where the bytes are no answer.

    A missing header is a `KeyError`; base64 and numbers that are none, a `ValueError`.
    """
    try:
        yield
    except (WireError, KeyError, ValueError) as error:
        raise AnswerBroken(
            Status.INTERNAL, f"the answer cannot be understood: {error or type(error).__name__}"
        ) from error
