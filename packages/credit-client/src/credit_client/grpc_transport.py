"""The transport that speaks gRPC: attempts on the connections of a pool."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from credit_models.http2_engine import Engine
from grpclib.client import Channel
from grpclib.const import Cardinality, Status

from credit_client.addresses import Resolve, resolve
from credit_client.call_stream import (
    CODEC,
    MESSAGE_BYTES_MAX,
    REQUEST_ID,
    STATUS_DETAILS_CODEC,
    CallStream,
)
from credit_client.channel import CONNECT_TIMEOUT_SECONDS, ClientChannel
from credit_client.keepalive import KEEPALIVE_TIMES, KeepaliveTimes
from credit_client.pool import BACKOFF, Pool
from credit_client.retry import Backoff
from credit_client.target import Target
from credit_client.tls import Tls
from credit_client.transport import Answer, AnswerBroken, Method, ReplyT, RequestT
from credit_client.write_stream import WriteStreams

__all__ = [
    "CODEC",
    "MESSAGE_BYTES_MAX",
    "RECEIPT",
    "REQUEST_ID",
    "STATUS_DETAILS_CODEC",
    "GrpcTransport",
    "connect",
]

RECEIPT = "credit-receipt-bin"

# Writes share a stream only if at least this many attempts are under way on the connection. A lone
# write is faster as a call of its own.
CONCURRENT_MIN = 2


def connect(
    target: Target,
    *,
    channels: int,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    backoff: Backoff = BACKOFF,
    keepalive: KeepaliveTimes = KEEPALIVE_TIMES,
    tls: Tls | None = None,
    resolver: Resolve = resolve,
    engine: Engine = Engine.AUTO,
    streams: bool = False,
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
                engine=engine,
                codec=CODEC,
                status_details_codec=STATUS_DETAILS_CODEC,
            )
            for turn in range(channels)
        ],
        name=str(target),
        backoff=backoff,
        streams=streams,
    )


class GrpcTransport:
    """Sends attempts over the channels of a `Pool`."""

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        name: str,
        backoff: Backoff = BACKOFF,
        streams: bool = False,
    ) -> None:
        """Connect nothing yet.

        Args:
            channels: See `Pool`.
            name: See `Pool`.
            backoff: See `Pool`.
            streams: Whether concurrent writes share a stream of each connection.
        """
        self._pool = Pool(channels, name=name, backoff=backoff)
        self._streams = WriteStreams(self._pool) if streams else None

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
        channel = await self._pool.take()
        shared = None
        if self._streams is not None and self._pool.under_way[channel] >= CONCURRENT_MIN:
            shared = self._streams.find(channel, request, metadata)
        if shared is not None:
            try:
                shared_receipt = await shared(sending)
            finally:
                self._pool.give_back(channel)
            if shared_receipt is not None:
                return Answer(reply=method.reply_type(), receipt=shared_receipt)
            channel = await self._pool.take()
        async with CallStream(
            channel,
            method,
            Cardinality.UNARY_UNARY,
            pool=self._pool,
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
        """See `Transport.stream`. No time limit is sent to the server: the reader sets the pace."""
        async with CallStream(
            await self._pool.take(),
            method,
            Cardinality.UNARY_STREAM,
            pool=self._pool,
            request_id=request_id,
            timeout_seconds=None,
            metadata=metadata,
        ) as stream:
            await stream.send_message(request, end=True)
            while (message := await stream.recv_message()) is not None:
                yield message
            # Leaving the block does not read the status where the connection is gone already: a
            # list that the server broke off would look complete.
            await stream.recv_trailing_metadata()

    async def close(self) -> None:
        """See `Transport.close`."""
        if self._streams is not None:
            await self._streams.close()
        await self._pool.close()
