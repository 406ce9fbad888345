"""The transport that talks gRPC: a few connections, and every raw error of grpclib translated."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Generic
from weakref import WeakSet

from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import Connection
from h2.exceptions import ProtocolError, StreamClosedError

from credit_client.addresses import Resolve, resolve
from credit_client.connection import CONNECT_TIMEOUT_SECONDS, ClientChannel
from credit_client.grpc_stream import CODEC, STATUS_DETAILS_CODEC, CallStream
from credit_client.keepalive import KEEPALIVE_TIMES, KeepaliveTimes
from credit_client.pool import BACKOFF, Pool
from credit_client.retry import Backoff
from credit_client.target import Target
from credit_client.tls import Tls
from credit_client.transport import (
    Answer,
    AnswerBroken,
    AttemptFailed,
    ConnectionLost,
    HandshakeFailed,
    Method,
    NotConnected,
    ReplyT,
    RequestT,
)

RECEIPT = "credit-receipt-bin"


def connect(
    target: Target,
    *,
    channels: int,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    backoff: Backoff = BACKOFF,
    keepalive: KeepaliveTimes = KEEPALIVE_TIMES,
    tls: Tls | None = None,
    resolver: Resolve = resolve,
) -> "GrpcTransport":
    """Return a transport over so many connections, each opened by the first call that needs it."""
    return GrpcTransport(
        [
            ClientChannel(
                target,
                turn=turn,
                connect_timeout_seconds=connect_timeout_seconds,
                keepalive=keepalive,
                tls=tls,
                resolver=resolver,
                codec=CODEC,
                status_details_codec=STATUS_DETAILS_CODEC,
            )
            for turn in range(channels)
        ],
        name=str(target),
        backoff=backoff,
    )


class GrpcTransport:
    """Sends attempts over the channels of a `Pool`."""

    def __init__(
        self, channels: Sequence[Channel], *, name: str, backoff: Backoff = BACKOFF
    ) -> None:
        """Connect nothing yet; see `Pool` for the arguments."""
        self._name = name
        self._pool = Pool(channels, name=name, backoff=backoff)
        self._lost: WeakSet[Connection] = WeakSet()

    async def unary(
        self,
        method: Method[RequestT, ReplyT],
        request: RequestT,
        *,
        request_id: str,
        timeout_seconds: float,
        metadata: Mapping[str, str],
        sending: Callable[[], None],
    ) -> Answer[ReplyT]:
        """See `Transport.unary`."""
        async with self._attempt(
            method,
            Cardinality.UNARY_UNARY,
            request_id=request_id,
            timeout_seconds=timeout_seconds,
            metadata=metadata,
        ) as stream:
            await stream.send_request()
            sending()
            await stream.send_message(request, end=True)
            reply = await stream.recv_message()
            await stream.recv_trailing_metadata()
            if reply is None:
                raise AnswerBroken(Status.INTERNAL, "the answer is OK and has no message")
            trailers = stream.trailing_metadata
            receipt = None if trailers is None else trailers.get(RECEIPT)
        return Answer(reply=reply, receipt=receipt if isinstance(receipt, bytes) else None)

    async def stream(
        self,
        method: Method[RequestT, ReplyT],
        request: RequestT,
        *,
        request_id: str,
        metadata: Mapping[str, str],
    ) -> AsyncGenerator[ReplyT, None]:
        """See `Transport.stream`. No time limit is told to the server: the reader sets the pace."""
        async with self._attempt(
            method,
            Cardinality.UNARY_STREAM,
            request_id=request_id,
            timeout_seconds=None,
            metadata=metadata,
        ) as stream:
            await stream.send_message(request, end=True)
            while (message := await stream.recv_message()) is not None:
                yield message

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._pool.close()

    def _attempt(
        self,
        method: Method[RequestT, ReplyT],
        cardinality: Cardinality,
        *,
        request_id: str,
        timeout_seconds: float | None,
        metadata: Mapping[str, str],
    ) -> "_Attempt[RequestT, ReplyT]":
        def make(channel: Channel) -> CallStream[RequestT, ReplyT]:
            return CallStream(
                channel,
                method,
                cardinality,
                request_id=request_id,
                timeout_seconds=timeout_seconds,
                metadata=metadata,
            )

        return _Attempt(make, pool=self._pool, name=self._name, lost=self._lost)


class _Attempt(Generic[RequestT, ReplyT]):
    """One attempt on a channel: counted while it is under way, its errors translated.

    A class and no `asynccontextmanager`: of a history that is left unfinished, `asyncio.run` closes
    all generators at its end in any order, and one inside another would be closed under it.
    """

    _channel: Channel
    _stream: CallStream[RequestT, ReplyT]

    def __init__(
        self,
        make: Callable[[Channel], CallStream[RequestT, ReplyT]],
        *,
        pool: Pool,
        name: str,
        lost: WeakSet[Connection],
    ) -> None:
        """Begin nothing yet.

        Args:
            make: Makes the call's stream on a channel.
            pool: Gives the channel.
            name: The server, for messages.
            lost: The connections whose loss some attempt has reported.
        """
        self._make = make
        self._pool = pool
        self._name = name
        self._lost = lost

    async def __aenter__(self) -> CallStream[RequestT, ReplyT]:
        self._channel = await self._pool.take()
        self._stream = self._make(self._channel)
        return await self._stream.__aenter__()

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._stream.__aexit__(error_type, error, traceback)
        except (GRPCError, StreamTerminatedError, ProtocolError, AttemptFailed) as worse:
            # What the server has answered before the connection ended; grpclib raises it only here.
            raise self._translated(worse) from worse
        finally:
            self._pool.give_back(self._channel)
        match error:
            case AttemptFailed():
                error.request_id = self._stream.echoed_request_id
            case GRPCError() | StreamTerminatedError() | ProtocolError():
                raise self._translated(error) from error
            case _:
                pass  # a bug of this package, or a cancellation: it is what it is

    def _translated(
        self, error: GRPCError | StreamTerminatedError | ProtocolError | AttemptFailed
    ) -> AttemptFailed:
        """Translate what grpclib or h2 has raised into gRPC's terms."""
        request_id = self._stream.echoed_request_id
        match error:
            case AttemptFailed():
                error.request_id = request_id
                return error
            case GRPCError():
                return AttemptFailed(
                    error.status,
                    error.message or f"the server answered {error.status.name} without a message",
                    details=error.details or (),
                    request_id=request_id,
                )
            case _:
                return self._connection_failed(error)

    def _connection_failed(self, error: StreamTerminatedError | ProtocolError) -> AttemptFailed:
        if isinstance(error, ProtocolError) and not isinstance(error, StreamClosedError):
            # Nothing more can be said on this connection: h2 is in a state of error, or has used up
            # the 2^30 calls that a connection takes.
            self._channel.close()
        unsafe = self._channel.tls_problem if isinstance(self._channel, ClientChannel) else None
        if unsafe is not None:
            return HandshakeFailed(
                Status.UNAVAILABLE, f"no safe connection to {self._name}: {unsafe}"
            )
        message = f"the connection to {self._name} was lost: {error}"
        connection = self._stream.connection
        if connection is None:
            return NotConnected(Status.UNAVAILABLE, message)
        request_id = self._stream.echoed_request_id
        if not connection.is_closing():
            failure = AttemptFailed(Status.UNAVAILABLE, message, request_id=request_id)
            if isinstance(self._channel, ClientChannel) and self._channel.is_leaving(connection):
                failure.budget_tokens = (
                    0.0  # the server is well; the next connection takes the call
                )
            return failure
        first = connection not in self._lost
        self._lost.add(connection)
        return ConnectionLost(Status.UNAVAILABLE, message, first=first, request_id=request_id)
