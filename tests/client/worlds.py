"""The services that the suite of the new calls runs against: the fake, and a real server."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from credit_client import ClientSettings, CreditClient
from credit_client.testing import FakeCreditService

from tests.client.ways import credits_over

# The tests of a run share a server: each has users and apps of its own.
_numbers = itertools.count(1000)

SETTINGS = ClientSettings(retry_backoff_initial_seconds=0.001)


@dataclass(kw_only=True)
class World:
    """A service, and a client of it.

    Attributes:
        credits: The client.
        wait: Returns when the service's clock has gone on so far.
        now: Returns the service's time.
        user: A user without history.
        app: An app without users.
    """

    credits: CreditClient
    wait: Callable[[timedelta], Awaitable[None]]
    now: Callable[[], datetime]
    user: int = field(default_factory=lambda: next(_numbers))
    app: int = field(default_factory=lambda: next(_numbers))

    def new_user(self) -> int:
        """Return another user without history."""
        return next(_numbers)


@asynccontextmanager
async def fake_world(way: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Open a client of a fake service, whose clock is moved and which is not waited for."""
    service = FakeCreditService()

    async def wait(duration: timedelta) -> None:
        service.clock.advance(duration)

    async with credits_over(way, monkeypatch, service, SETTINGS) as credits_:
        yield World(credits=credits_, wait=wait, now=service.clock.now)


@asynccontextmanager
async def server_world(target: str) -> AsyncIterator[World]:
    """Open a client of a real server, whose clock is that of the machine."""

    async def wait(duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())

    async with CreditClient(target, settings=SETTINGS) as credits_:
        yield World(credits=credits_, wait=wait, now=lambda: datetime.now(UTC))
