"""`EventRetention`: what is removed, and what ends neither it nor the server."""

import asyncio
from datetime import datetime, timedelta

import pytest
import structlog.testing
from credit_server.commit import ClockSkewed, EventRetention
from credit_server.commit.event_retention import KEPT
from credit_server.store.memory import MemoryStore
from credit_server.store.port import StoreUnavailable
from credit_testing.stores import FailingStore

from tests.server.clocks import NOON, Clocks, skewed_clock


class Found:
    """Finds a number of things at a time, up to the limit."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.before: set[datetime] = set()

    async def __call__(self, before: datetime, limit: int) -> int:
        self.before.add(before)
        found = min(self.left, limit)
        self.left -= found
        return found


async def test_everything_is_removed_that_is_older_than_30_days(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, events, dead = MemoryStore(), Found(1700), Found(1000)
    monkeypatch.setattr(store.alert_events, "remove_before", events)
    monkeypatch.setattr(store.webhooks, "remove_dead", dead)
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            await EventRetention(store, Clocks().clock()).remove()
    assert (events.left, dead.left) == (0, 0)
    assert events.before == dead.before == {NOON - timedelta(days=30)}
    assert [(line["dead_letters"], line["days"]) for line in lines] == [(1000, KEPT.days)]


async def test_nothing_is_removed_while_the_clocks_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, events, dead = MemoryStore(), Found(1), Found(1)
    monkeypatch.setattr(store.alert_events, "remove_before", events)
    monkeypatch.setattr(store.webhooks, "remove_dead", dead)
    with pytest.raises(ClockSkewed):
        await EventRetention(store, skewed_clock(60 * 86_400)).remove()
    assert (events.left, dead.left) == (1, 1)


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), RuntimeError("a bug")])
async def test_a_failure_is_logged_and_retried(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr("credit_server.commit.event_retention._INTERVAL_SECONDS", 0.001)
    with structlog.testing.capture_logs() as lines:
        running = asyncio.create_task(EventRetention(FailingStore(fault), Clocks().clock()).run())
        while len(lines) < 2:  # noqa: ASYNC110 - a log reports no event
            await asyncio.sleep(0.001)
        running.cancel()
    assert lines[0]["event"] == "old events of alerts cannot be removed; the server retries"
    assert (lines[0]["exc_info"] is fault) == isinstance(fault, RuntimeError)
