"""Health follows the store, and is wrong for no longer than the interval and the timeout."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from credit_server.commit import Clock
from credit_server.store.memory import MemoryStore
from credit_server.store.port import ClockReading, StoreUnavailable
from credit_server.telemetry import HealthWatch, Telemetry
from grpclib.health.check import ServiceStatus

from tests.server.telemetry.driven_loop import on_driven_loop

INTERVAL, TIMEOUT = 2.0, 3.0


class FaultyStore(MemoryStore):
    """A store that is healthy, raises an error, or does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: Exception | None = None
        self.silent = False

    async def ping(self) -> ClockReading:
        if self.silent:
            await asyncio.get_running_loop().create_future()
        if self.refuses is not None:
            raise self.refuses
        return await super().ping()


class Watched:
    """A watch that runs on a driven loop, and the times at which the status changes."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = FaultyStore()
        self.telemetry = Telemetry()
        self.clock = Clock()
        self.status = ServiceStatus()
        self.status.set(True)
        watch = HealthWatch(
            self.store,
            self.status,
            self.telemetry.store,
            self.clock,
            interval_seconds=INTERVAL,
            timeout_seconds=TIMEOUT,
        )
        self.task = self.loop.create_task(watch.run())

    async def becomes(self, *, healthy: bool) -> float:
        """Wait for a status and return the seconds until it came."""
        began = self.loop.time()
        changed = await self.status.__subscribe__()
        while self.status.__status__() is not healthy:
            changed.clear()
            await changed.wait()
        await self.status.__unsubscribe__(changed)
        return self.loop.time() - began

    def healthy(self) -> float | None:
        return self.telemetry.registry.get_sample_value("credit_store_healthy")


@pytest.mark.parametrize("moment", [0.0, 0.1, 1.999])
@pytest.mark.parametrize("silent", [False, True])
@on_driven_loop
async def test_an_outage_and_its_end_are_reported_within_interval_and_timeout(
    moment: float, *, silent: bool
) -> None:
    watched = Watched()
    await asyncio.sleep(10 * INTERVAL + moment)
    assert watched.status.__status__()
    watched.store.silent = silent
    watched.store.refuses = StoreUnavailable("there is no primary")
    assert await watched.becomes(healthy=False) <= INTERVAL + TIMEOUT
    assert watched.healthy() == 0
    watched.store.silent, watched.store.refuses = False, None
    # A check that started during the outage gets no answer.
    assert await watched.becomes(healthy=True) <= INTERVAL + TIMEOUT
    assert watched.healthy() == 1
    watched.task.cancel()


@on_driven_loop
async def test_any_error_of_the_check_counts_as_an_outage_and_does_not_end_the_watch() -> None:
    watched = Watched()
    watched.store.refuses = RuntimeError("a bug")
    await watched.becomes(healthy=False)
    watched.store.refuses = None
    await watched.becomes(healthy=True)
    watched.task.cancel()


@on_driven_loop
async def test_an_outage_and_its_end_are_logged_once(
    logged: list[MutableMapping[str, Any]],
) -> None:
    watched = Watched()
    watched.store.silent = True
    await watched.becomes(healthy=False)
    await asyncio.sleep(10 * (INTERVAL + TIMEOUT))
    watched.store.silent = False
    await watched.becomes(healthy=True)
    await asyncio.sleep(10 * INTERVAL)
    watched.task.cancel()
    assert [line["event"] for line in logged] == [
        "the store is unavailable",
        "the store is available again",
    ]
    assert logged[0]["error"] == "TimeoutError"
