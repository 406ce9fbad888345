"""The ways in which a write travels: a call, a stream, and what a client does without streams.

One more way is the synchronous client, whose methods the suite awaits all the same.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from credit_client import ClientSettings, CreditClient, grpc_transport
from credit_client.grpc_transport import GrpcTransport
from credit_client.methods import WRITE
from credit_client.testing import FakeCreditService, fake_credits
from credit_models import WriteRequest, WriteResponse
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

from tests.client.over_sync import sync_credits

WAYS = ("call", "stream", "unimplemented", "broken", "sync")


class OtherStreams:
    """The service of another one, with other streams of writes, or none."""

    def __init__(
        self,
        service: FakeCreditService,
        handle: Callable[[Stream[WriteRequest, WriteResponse]], object] | None,
    ) -> None:
        self._service = service
        self._handle = handle

    def __mapping__(self) -> Mapping[str, Handler]:
        handlers = dict(self._service.__mapping__())
        del handlers[WRITE.path]
        if self._handle is not None:
            types = WRITE.request_type, WRITE.reply_type
            # A handler of grpclib's has no type of its own.
            handlers[WRITE.path] = Handler(self._handle, Cardinality.STREAM_STREAM, *types)
        return handlers


async def break_off(stream: Stream[WriteRequest, WriteResponse]) -> None:
    """End a stream when its first operation has come, without an outcome."""
    await stream.send_initial_metadata()
    await stream.recv_message()
    await stream.send_trailing_metadata()


@asynccontextmanager
async def credits_over(
    way: str,
    monkeypatch: pytest.MonkeyPatch,
    service: FakeCreditService | None = None,
    settings: ClientSettings | None = None,
) -> AsyncIterator[CreditClient]:
    """Open a client of a fake service whose writes travel in one way, also those that are alone."""
    service = service or FakeCreditService()
    settings = settings or ClientSettings()
    if way == "sync":
        async with sync_credits(service, settings) as over_sync:
            yield over_sync  # type: ignore[misc]  # it has the client's methods, by their names
        return
    if way == "call":
        settings = ClientSettings(**{**settings.model_dump(), "streams": "off"})
    monkeypatch.setattr(grpc_transport, "CONCURRENT_MIN", 1)
    other = {"unimplemented": None, "broken": break_off}
    served = OtherStreams(service, other[way]) if way in other else service
    # Any service of grpclib's will do; the fixture's type names the usual one.
    async with fake_credits(served, settings=settings) as client:  # type: ignore[arg-type]
        if way != "call":
            await opened(client)
        yield client


async def opened(client: CreditClient) -> None:
    """Open the stream of the first channel, and wait until the server has answered."""
    transport = client._transport
    assert isinstance(transport, GrpcTransport)
    streams = transport._streams
    assert streams is not None
    channel = next(iter(transport._pool.under_way))
    streams.open(channel, {})
    await streams._streams[channel].answered.wait()
