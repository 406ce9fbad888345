"""The transport that talks gRPC: a few connections, and every raw error of grpclib translated."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import ProtocolError, StreamClosedError

from credit_client.connection import ClientChannel
from credit_client.grpc_stream import CODEC, STATUS_DETAILS_CODEC, CallStream
from credit_client.keepalive import KEEPALIVE_TIMES, KeepaliveTimes
from credit_client.target import Target
from credit_client.transport import (
    Answer,
    AnswerBroken,
    AttemptFailed,
    Method,
    ReplyT,
    RequestT,
)

RECEIPT = "credit-receipt-bin"


def connect(
    target: Target, *, channels: int, keepalive: KeepaliveTimes = KEEPALIVE_TIMES
) -> "GrpcTransport":
    """A transport over so many connections, each opened by the first call that needs it."""
    return GrpcTransport(
        [
            ClientChannel(
                target.host,
                target.port,
                keepalive=keepalive,
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
    ) -> Answer[ReplyT]:
        """See `Transport.unary`."""
        async with self._attempt(
            method,
            Cardinality.UNARY_UNARY,
            request_id=request_id,
            timeout_seconds=timeout_seconds,
        ) as stream:
            await stream.send_message(request, end=True)
            reply = await stream.recv_message()
            await stream.recv_trailing_metadata()
            if reply is None:
                raise AnswerBroken(Status.INTERNAL, "the answer is OK and has no message")
            trailers = stream.trailing_metadata
            receipt = None if trailers is None else trailers.get(RECEIPT)
        return Answer(reply=reply, receipt=receipt if isinstance(receipt, bytes) else None)

    async def stream(
        self, method: Method[RequestT, ReplyT], request: RequestT, *, request_id: str
    ) -> AsyncGenerator[ReplyT, None]:
        """See `Transport.stream`. No time limit is told to the server: the reader sets the pace."""
        async with self._attempt(
            method, Cardinality.UNARY_STREAM, request_id=request_id, timeout_seconds=None
        ) as stream:
            await stream.send_message(request, end=True)
            while (message := await stream.recv_message()) is not None:
                yield message

    async def close(self) -> None:
        """See `Transport.close`."""
        owned = [channel for channel in self._under_way if isinstance(channel, ClientChannel)]
        await asyncio.gather(*(channel.aclose() for channel in owned))

    @asynccontextmanager
    async def _attempt(
        self,
        method: Method[RequestT, ReplyT],
        cardinality: Cardinality,
        *,
        request_id: str,
        timeout_seconds: float | None,
    ) -> AsyncIterator[CallStream[RequestT, ReplyT]]:
        channel = self._least_loaded()
        stream = CallStream(
            channel, method, cardinality, request_id=request_id, timeout_seconds=timeout_seconds
        )
        self._under_way[channel] += 1
        try:
            async with stream:
                yield stream
        except AttemptFailed as failure:
            failure.request_id = stream.echoed_request_id
            raise
        except Exception as error:
            raise self._failure(error, channel, stream.echoed_request_id) from error
        finally:
            self._under_way[channel] -= 1

    def _least_loaded(self) -> Channel:
        channels = list(self._under_way)
        first = next(self._turns) % len(channels)
        in_turn = channels[first:] + channels[:first]
        return min(in_turn, key=self._under_way.__getitem__)

    def _failure(self, error: Exception, channel: Channel, request_id: str | None) -> AttemptFailed:
        """Says in gRPC's terms what grpclib, h2, the codec or the operating system has raised."""
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
                    f"the connection to {self._name} was lost: {error}",
                    request_id=request_id,
                )
            case OSError():
                return AttemptFailed(
                    Status.UNAVAILABLE,
                    f"cannot connect to {self._name}: {error.strerror or error}",
                )
            case _:
                return AnswerBroken(
                    Status.INTERNAL,
                    f"the answer cannot be understood: {error or type(error).__name__}",
                    request_id=request_id,
                )
