"""The alerts, with the fake and with a real server alike."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from credit_client import (
    Alert,
    AlertDirection,
    AlertEvent,
    AlertEventsExpired,
    DeadLetterNotFound,
    InvalidField,
    TooManyAlerts,
    TooManyWebhooks,
    TransactionType,
    WebhookUrlNotAllowed,
)
from credit_client.testing import FakeCreditService, fake_credits
from credit_client.testing.alerts import FakeAlerts
from credit_models import ListAlertEventsRequest, ListAlertEventsResponse
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from pymongo import AsyncMongoClient

from tests.client.worlds import World, fake_world, server_world

DATABASE = "test_alerts"
REPORT: dict[str, Any] = {"report_id": "r-1", "report_name": "Answer"}
BELOW_20 = Alert(credits=20, direction=AlertDirection.FALLS_BELOW)
RISES_20 = Alert(credits=20, direction=AlertDirection.RISES_TO)


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    options = await migrated(mongod_uri, DATABASE)
    folder = tmp_path_factory.mktemp("server")
    async with running_server(folder, "--log-level", "warning", *PATIENT, *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(DATABASE)


@pytest.fixture(params=["fake call", "fake sync", "server"])
async def world(
    request: pytest.FixtureRequest, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    kind, _, way = request.param.partition(" ")
    if kind == "fake":
        async with fake_world(way, monkeypatch) as opened:
            yield opened
        return
    async with server_world(f"127.0.0.1:{server.port}") as opened:
        yield opened


# Any: the arguments of a call have no common type.
def _who(world: World, user: int = 0) -> dict[str, Any]:
    return {"user_id": world.user + user, "app_id": world.app, "created_by": 1}


async def _events(world: World, count: int, **options: Any) -> list[AlertEvent]:
    """Return the events once there are so many: a server orders them some time after the write."""
    found: list[AlertEvent] = []
    while len(found) < count:
        found = [each async for each in world.credits.alert_events(app_id=world.app, **options)]
        await asyncio.sleep(0.02)
    return found


async def test_alerts_are_set_listed_and_removed(world: World) -> None:
    credits_ = world.credits
    rises = AlertDirection.RISES_TO
    for user in ({"user_id": world.user}, {}):
        at: dict[str, Any] = {"app_id": world.app, "credits": 20, "created_by": 1, **user}
        assert await credits_.set_alert(**at, direction=rises) == [RISES_20]
        for _ in range(2):
            assert await credits_.set_alert(**at) == [BELOW_20, RISES_20]
        listed = await credits_.alerts(app_id=world.app, user_id=world.user)
        own, shared = listed.user_alerts, listed.app_alerts
        assert (own, shared) == (([BELOW_20, RISES_20], []) if user else ([], [BELOW_20, RISES_20]))
        for _ in range(2):
            assert await credits_.remove_alert(**at, direction=rises) == [BELOW_20]
        assert await credits_.remove_alert(**at) == []


async def test_a_position_that_no_event_has_is_rejected(world: World) -> None:
    newest = await world.credits.alert_position(app_id=world.app)
    at: dict[str, Any] = {"app_id": world.app, "after_position": 2**62}
    for read in (world.credits.alert_events, world.credits.watch_alerts):
        with pytest.raises(AlertEventsExpired) as caught:
            await anext(read(**at))
        # Other tests may add events to the same server.
        assert newest <= caught.value.position < 2**62


async def test_the_number_of_alerts_is_limited(world: World) -> None:
    at: dict[str, Any] = {"app_id": world.app, "created_by": 1}
    users: list[dict[str, Any]] = [{"user_id": world.user}, {}]
    for user in users:
        for limit in range(1, 9):
            await world.credits.set_alert(**at, **user, credits=limit)
        with pytest.raises(TooManyAlerts) as caught:
            await world.credits.set_alert(**at, **user, credits=9)
        assert caught.value.limit == 8
        assert len(await world.credits.set_alert(**at, **user, credits=8)) == 8


async def test_each_crossing_has_one_event(world: World) -> None:
    # First, because a server reads the policy of an app again after some seconds.
    await world.credits.set_alert(
        app_id=world.app, created_by=1, credits=20, direction=AlertDirection.RISES_TO
    )
    await world.credits.set_alert(**_who(world), credits=20)
    added = await world.credits.add(**_who(world), credits=25)
    other = await world.credits.add(**_who(world, 1), credits=30)
    used = await world.credits.use(**_who(world), **REPORT, credits=6)
    found = await _events(world, 3)
    assert [(each.user_id, each.alert, each.balance, each.transaction_id) for each in found] == [
        (world.user, RISES_20, 25, added.transaction_id),
        (world.user + 1, RISES_20, 30, other.transaction_id),
        (world.user, BELOW_20, 19, used.transaction_id),
    ]
    positions = [each.position for each in found]
    assert positions == sorted(set(positions))
    assert await _events(world, 1, user_id=world.user + 1) == [found[1]]
    assert await _events(world, 1, after_position=positions[1]) == [found[2]]
    history = [each async for each in world.credits.transactions(user_id=world.user)]
    assert (history[0].type, history[0].credits, history[0].effect) == (
        TransactionType.ALERT,
        20,
        0,
    )


async def test_events_are_watched_as_they_come(world: World) -> None:
    at: dict[str, Any] = {"app_id": world.app, "created_by": 1, "credits": 20}
    await world.credits.set_alert(**at, direction=AlertDirection.RISES_TO)
    watched = world.credits.watch_alerts(app_id=world.app, after_position=0)
    for user in range(2):
        first = asyncio.create_task(anext(watched))
        await asyncio.sleep(0.01)
        added = await world.credits.add(**_who(world, user), credits=30)
        event = await first
        assert (event.transaction_id, event.user_id) == (added.transaction_id, world.user + user)
    await watched.aclose()
    again = world.credits.watch_alerts(app_id=world.app, after_position=event.position - 1)
    assert await anext(again) == event
    await again.aclose()


async def test_events_from_now_on_are_those_after_a_position(world: World) -> None:
    at: dict[str, Any] = {"app_id": world.app, "created_by": 1, "credits": 20}
    await world.credits.set_alert(**at, direction=AlertDirection.RISES_TO)
    await world.credits.add(**_who(world), credits=30)
    (past,) = await _events(world, 1)
    position = await world.credits.alert_position(app_id=world.app)
    assert position >= past.position
    watched = world.credits.watch_alerts(app_id=world.app, after_position=position)
    await world.credits.add(**_who(world, 1), credits=30)
    event = await anext(watched)
    assert (event.user_id, event.position > position) == (world.user + 1, True)
    await watched.aclose()


async def test_a_watch_goes_on_after_the_position_of_each_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Service(FakeAlerts):
        asked: ClassVar[list[int]] = []

        def __len__(self) -> int:
            return 1000

        def page(self, request: ListAlertEventsRequest) -> ListAlertEventsResponse:
            self.asked.append(request.after_position)
            return ListAlertEventsResponse(position=request.after_position + 7)

    monkeypatch.setattr("credit_client.testing.ledger.FakeAlerts", Service)
    monkeypatch.setattr("credit_client.alerts._PAUSE_SECONDS", 0.001)
    async with fake_credits() as credits_:
        watched = credits_.watch_alerts(app_id=1, after_position=3)
        waiting = asyncio.create_task(anext(watched))
        while len(Service.asked) < 4:  # noqa: ASYNC110 - the fake reports no call
            await asyncio.sleep(0.001)
        waiting.cancel()
    assert Service.asked[:4] == [3, 10, 17, 24]


async def test_what_expires_has_an_event(world: World) -> None:
    await world.credits.set_alert(**_who(world), credits=20)
    await world.credits.grant(**_who(world), credits=20, expires_after=timedelta(seconds=1))
    await world.wait(timedelta(seconds=1.1))
    (event,) = await _events(world, 1)
    assert (event.alert, event.balance) == (BELOW_20, 0)


async def test_the_fake_drops_the_events_of_a_rejected_atomic_batch() -> None:
    who: dict[str, Any] = {"user_id": 7, "app_id": 1, "created_by": 1}
    async with fake_credits() as credits_:
        await credits_.set_alert(**who, credits=20, direction=AlertDirection.RISES_TO)
        for use in (31, 1):
            batch = credits_.batch(atomic=True)
            batch.add(**who, credits=30)
            batch.use(**who, **REPORT, credits=use)
            await batch.send()
            found = [each async for each in credits_.alert_events(app_id=1)]
            assert len(found) == (use == 1)


async def test_webhooks_are_set_listed_and_removed(world: World) -> None:
    at: dict[str, Any] = {"app_id": world.app, "created_by": 1}
    url = "https://example.com/hook"
    secret = await world.credits.set_webhook(**at, url=url)
    assert secret.startswith("whsec_")
    assert await world.credits.set_webhook(**at, url=url, secret=secret) == secret
    (webhook,) = await world.credits.webhooks(app_id=world.app)
    assert (webhook.url, webhook.created_by) == (url, 1)
    with pytest.raises(WebhookUrlNotAllowed):
        await world.credits.set_webhook(**at, url="http://example.com")
    with pytest.raises(InvalidField):
        await world.credits.set_webhook(**at, url=url, secret="secret")
    for number in range(3):
        await world.credits.set_webhook(**at, url=f"{url}/{number}")
    with pytest.raises(TooManyWebhooks):
        await world.credits.set_webhook(**at, url=f"{url}/9")
    assert [each async for each in world.credits.dead_letters(app_id=world.app)] == []
    assert await world.credits.resend_dead_letters(**at) == 0
    with pytest.raises(DeadLetterNotFound):
        await world.credits.resend_dead_letters(**at, dead_letter_id="none")
    for _ in range(2):
        await world.credits.remove_webhook(**at, url=url)
    assert len(await world.credits.webhooks(app_id=world.app)) == 3


async def test_the_fake_shows_what_a_server_would_send() -> None:
    service = FakeCreditService()
    who: dict[str, Any] = {"user_id": 7, "app_id": 1, "created_by": 1}
    async with fake_credits(service) as credits_:
        await credits_.set_alert(**who, credits=20, direction=AlertDirection.RISES_TO)
        await credits_.set_webhook(app_id=2, created_by=1, url="https://example.com/2")
        await credits_.add(**who, credits=30)
        await credits_.set_webhook(app_id=1, created_by=1, url="https://example.com/1")
        assert service.webhook_messages == []
        await credits_.use(**who, **REPORT, credits=30)
        await credits_.add(**who, credits=30)
        ((url, event),) = service.webhook_messages
        assert (url, event.user_id, event.alert, event.balance) == (
            "https://example.com/1",
            7,
            RISES_20,
            30,
        )
        await credits_.remove_webhook(app_id=1, created_by=1, url="https://example.com/1")
        assert service.webhook_messages == []
