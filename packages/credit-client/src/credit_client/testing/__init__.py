"""A credit service in memory, for the tests of apps that use the SDK.

    async with fake_credits() as credits:
        await credits.add(user_id=7, app_id=1, credits=120, created_by=1)

The client is the real one and speaks the real protocol, and the ledger decides by the server's own
rules; only the sockets and the database are left out. Pass a `FakeCreditService` in tests that
inspect the service, make it fail, or move its clock:

    service = FakeCreditService()
    async with fake_credits(service) as credits:
        service.clock.advance(timedelta(days=30))
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpclib.testing import ChannelFor

from credit_client.client import CreditClient
from credit_client.grpc_transport import CODEC, STATUS_DETAILS_CODEC, GrpcTransport
from credit_client.settings import ClientSettings, Streams
from credit_client.testing.clock import FakeClock
from credit_client.testing.ledger import FakeLedger
from credit_client.testing.service import FakeCreditService

__all__ = ["FakeClock", "FakeCreditService", "FakeLedger", "fake_credits"]


@asynccontextmanager
async def fake_credits(
    service: FakeCreditService | None = None, *, settings: ClientSettings | None = None
) -> AsyncIterator[CreditClient]:
    """Open a client of a service that runs in this process and starts empty.

    Args:
        service: The service; None makes a new one.
        settings: The client's settings; None reads the environment. The target is not used.
    """
    settings = settings or ClientSettings()
    async with (
        fake_transport(service, settings) as transport,
        CreditClient(settings=settings, transport=transport) as client,
    ):
        yield client


@asynccontextmanager
async def fake_transport(
    service: FakeCreditService | None, settings: ClientSettings
) -> AsyncIterator[GrpcTransport]:
    """Connect to a service in this process; see `fake_credits`."""
    async with ChannelFor(
        [service or FakeCreditService()],
        codec=CODEC,
        status_details_codec=STATUS_DETAILS_CODEC,
    ) as channel:
        yield GrpcTransport(
            [channel], name="the fake service", streams=settings.streams is Streams.AUTO
        )
