"""The transport that talks gRPC: a few connections, and every raw error of grpclib translated."""

import asyncio
import errno
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Generic, NoReturn

from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import ProtocolError, StreamClosedError

from credit_client.connection import ClientChannel
from credit_client.grpc_stream import CODEC, STATUS_DETAILS_CODEC, CallStream
from credit_client.keepalive import KEEPALIVE_TIMES, KeepaliveTimes
from credit_client.target import Target
from credit_client.tls import Tls
from credit_client.transport import (
    Answer,
    AnswerBroken,
    AttemptFailed,
    HandshakeFailed,
    Method,
    ReplyT,
    RequestT,
)

RECEIPT = "credit-receipt-bin"


def connect(
    target: Target,
    *,
    channels: int,
    keepalive: KeepaliveTimes = KEEPALIVE_TIMES,
    tls: Tls | None = None,
) -> "GrpcTransport":
    """A transport over so many connections, each opened by the first call that needs it."""
    return GrpcTransport(
        [
            ClientChannel(
                target.host,
                target.port,
                keepalive=keepalive,
                tls=tls,
                codec=CODEC,
                status_details_codec=STATUS_DETAILS_CODEC,
            )
            for _ in range(channels)
        ],
        name=str(target),
    )


class GrpcTransport:
    """Spreads attempts over channels: each takes the one with the fewest attempts under way.

    Channels that are not `ClientChannel`s are somebody else's (those of `grpclib.testing`), and are
    not closed here.
    """

    def __init__(self, channels: Sequence[Channel], *, name: str) -> None:
        self._name = name
        self._under_way = dict.fromkeys(channels, 0)
        self._turns = itertools.count()

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
        owned = [channel for channel in self._under_way if isinstance(channel, ClientChannel)]
        await asyncio.gather(*(channel.aclose() for channel in owned))

    def _attempt(
        self,
        method: Method[RequestT, ReplyT],
        cardinality: Cardinality,
        *,
        request_id: str,
        timeout_seconds: float | None,
        metadata: Mapping[str, str],
    ) -> "_Attempt[RequestT, ReplyT]":
        channel = self._least_loaded()
        stream = CallStream(
            channel,
            method,
            cardinality,
            request_id=request_id,
            timeout_seconds=timeout_seconds,
            metadata=metadata,
        )
        return _Attempt(channel, stream, under_way=self._under_way, name=self._name)

    def _least_loaded(self) -> Channel:
        channels = list(self._under_way)
        first = next(self._turns) % len(channels)
        in_turn = channels[first:] + channels[:first]
        return min(in_turn, key=self._under_way.__getitem__)


class _Attempt(Generic[RequestT, ReplyT]):
    """One attempt on a channel: counted while it is under way, its errors translated.

    A class and no `asynccontextmanager`: of a history that is left unfinished, `asyncio.run` closes
    all generators at its end in any order, and one inside another would be closed under it.
    """

    def __init__(
        self,
        channel: Channel,
        stream: CallStream[RequestT, ReplyT],
        *,
        under_way: dict[Channel, int],
        name: str,
    ) -> None:
        self._channel = channel
        self._stream = stream
        self._under_way = under_way
        self._name = name

    async def __aenter__(self) -> CallStream[RequestT, ReplyT]:
        self._under_way[self._channel] += 1
        return await self._stream.__aenter__()

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._stream.__aexit__(error_type, error, traceback)
        except Exception as worse:  # noqa: BLE001 - grpclib raises what the server has said only here
            self._raise_translated(worse)
        else:
            if isinstance(error, Exception):
                self._raise_translated(error)
        finally:
            self._under_way[self._channel] -= 1

    def _raise_translated(self, error: Exception) -> NoReturn:
        request_id = self._stream.echoed_request_id
        if isinstance(error, AttemptFailed):
            error.request_id = request_id
            raise error
        raise _failure(error, self._channel, name=self._name, request_id=request_id) from error


def _failure(
    error: Exception, channel: Channel, *, name: str, request_id: str | None
) -> AttemptFailed:
    """Says in gRPC's terms what grpclib, h2, the codec or the operating system has raised."""
    unsafe = channel.tls_problem if isinstance(channel, ClientChannel) else None
    if unsafe is not None and isinstance(error, OSError | StreamTerminatedError):
        return HandshakeFailed(Status.UNAVAILABLE, f"no safe connection to {name}: {unsafe}")
    match error:
        case GRPCError():
            return AttemptFailed(
                error.status,
                error.message or f"the server answered {error.status.name} without a message",
                details=error.details or (),
                request_id=request_id,
            )
        case StreamTerminatedError() | ProtocolError():
            if isinstance(error, ProtocolError) and not isinstance(error, StreamClosedError):
                # Nothing more can be said on this connection: h2 is in a state of error, or has
                # used up the 2^30 calls that a connection takes.
                channel.close()
            return AttemptFailed(
                Status.UNAVAILABLE,
                f"the connection to {name} was lost: {error}",
                request_id=request_id,
            )
        case OSError():
            return AttemptFailed(
                Status.UNAVAILABLE,
                f"cannot connect to {name}: {_why(error)}",
            )
        case _:
            return AnswerBroken(
                Status.INTERNAL,
                f"the answer cannot be understood: {error or type(error).__name__}",
                request_id=request_id,
            )


def _why(error: OSError) -> str:
    # Of several addresses asyncio joins the errors in one text, without a number of its own.
    if f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return "the connection was refused; is it running?"
    return error.strerror or str(error) or "the server closed it during the TLS handshake"
