"""The synchronous client of a credit service in memory; see `credit_client.testing`.

service = FakeCreditService()
with fake_credits(service) as credits:
credits.add(user_id=7, app_id=1, credits=120, created_by=1)
service.clock.advance(timedelta(days=30))
"""

from collections.abc import Iterator
from contextlib import contextmanager

from credit_client.settings import ClientSettings
from credit_client.sync.client import CreditClient
from credit_client.sync.loop import Call, start_once
from credit_client.testing import FakeClock, FakeCreditService, FakeLedger, fake_transport
from credit_client.transport import Transport

__all__ = ["FakeClock", "FakeCreditService", "FakeLedger", "fake_credits"]


@contextmanager
def fake_credits(
    service: FakeCreditService | None = None, *, settings: ClientSettings | None = None
) -> Iterator[CreditClient]:
    """Open a client of a service that runs in this process and starts empty.

    All threads may use it. A forked process cannot: the service remains in its parent.

    Args:
        service: The service; None makes a new one.
        settings: The client's settings; None reads the environment. The target is not used.
    """
    settings = settings or ClientSettings()
    connecting = fake_transport(service, settings)
    thread = start_once(lambda thread: thread)
    transport = Call[Transport](thread).run(thread.enter(connecting))
    try:
        with CreditClient(settings=settings, transport=transport) as client:
            yield client
    finally:
        Call[None](thread).run(thread.leave(connecting))
