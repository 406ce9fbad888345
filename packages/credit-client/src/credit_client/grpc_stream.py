"""One attempt on a connection: grpclib's stream, which ends as gRPC says and is bounded in size."""

import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Self, cast

from credit_models.codec import WireCodec
from credit_models.status import StatusDetailsCodec
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality, Status
from grpclib.metadata import Deadline, _Metadata
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
        await super().__aexit__(exc_type, exc_val, exc_tb)

    async def recv_message(self) -> ReplyT | None:
        """Receives the next message, or None where the server has sent the last one.

        Raises:
            AnswerBroken: What comes is no message of gRPC.
        """
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        with self._wrapper:
            prefix = await self._stream.recv_data(_PREFIX.size)
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
            message: ReplyT = self._codec.decode(
                await self._stream.recv_data(size), self._recv_type
            )
        return message

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
