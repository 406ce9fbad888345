"""Test when events of alerts get positions and deliveries."""

import asyncio
from random import Random

import pytest
from credit_models.ledger import Alert, Direction, Policy
from credit_server.commit import Committer, EventOrder
from credit_server.commit.event_order import _CHUNK
from credit_server.store.memory import MemoryStore
from credit_server.store.port import AppPolicy, Conflict

from tests.server.clocks import NOON, Clocks
from tests.server.commit.scripted_store import add

NEVER = 3600.0


@pytest.fixture
def no_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only those searches that follow an event of this process."""
    monkeypatch.setattr("credit_server.commit.event_order._INTERVAL_SECONDS", NEVER)
    monkeypatch.setattr("credit_server.commit.event_order._GATHER_SECONDS", 0.0)


@pytest.fixture
async def store() -> MemoryStore:
    """Return a store with an alert for each user who gets 5 credits."""
    store = MemoryStore()
    rises = Policy(alerts=(Alert(credits=5, direction=Direction.RISES_TO),))
    changed = AppPolicy(app_id=1, policy=rises, revision=1, updated_at=NOON, updated_by=1)
    await store.set_policy(changed)
    return store


@pytest.mark.usefixtures("no_searches")
async def test_an_event_of_this_process_is_ordered_before_the_next_search(
    store: MemoryStore,
) -> None:
    ordered = asyncio.Event()
    order = EventOrder(store)
    running = asyncio.create_task(order.run(ordered.set))
    async with Committer(store, clock=Clocks().clock(), on_events=order.wake) as committer:
        await committer.submit(add(store, 4))
        await asyncio.sleep(0)
        assert not ordered.is_set()
        await committer.submit(add(store, 1))
        await ordered.wait()
    running.cancel()
    (event,) = (await store.alert_events.page(1, limit=10)).events
    assert event.position == 1


@pytest.mark.usefixtures("no_searches")
async def test_after_another_process_was_faster_the_search_is_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, calls, done = MemoryStore(), 0, asyncio.Event()

    async def contended(_limit: int) -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise Conflict("another process has ordered the events")
        return _CHUNK if calls == 3 else 1

    monkeypatch.setattr(store.alert_events, "order", contended)
    order = EventOrder(store, random=Random(1))
    running = asyncio.create_task(order.run(done.set))
    order.wake()
    await done.wait()
    running.cancel()
    assert calls == 4


async def test_a_search_reports_whether_there_were_events(store: MemoryStore) -> None:
    assert not await EventOrder(store).order()
    async with Committer(store, clock=Clocks().clock()) as committer:
        await committer.submit(add(store, 5))
    assert await EventOrder(store).order()
    assert not await EventOrder(store).order()
