"""`watch`: with the fake and with a real server alike, and what it does when streams fail."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from credit_client import (
    ClientClosed,
    ClientSettings,
    CreditClient,
    InvalidField,
    ResumeTokenExpired,
    ResumeTokenInvalid,
    ScopeMissing,
    Unavailable,
    WatchEvent,
    watching,
)
from credit_client.testing import FakeCreditService, fake_credits
from credit_client.transport import AttemptFailed, ConnectionLost, Method, NotConnected
from credit_models import CreditTransaction, ErrorReason, UserCredits, WatchRequest
from credit_models.reasons import RULES
from credit_models.translation.refusals import error_info
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from grpclib.const import Status
from pymongo import AsyncMongoClient

from tests.client.worlds import SETTINGS, World, fake_world, server_world

DATABASE = "test_watch"


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """Run a server on an empty database, for the tests of this module."""
    options = await migrated(mongod_uri, DATABASE)
    folder = tmp_path_factory.mktemp("server")
    async with running_server(folder, "--log-level", "warning", *PATIENT, *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(DATABASE)


@pytest.fixture(params=["fake", "sync", "server"])
async def world(
    request: pytest.FixtureRequest, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    if request.param != "server":
        way = "sync" if request.param == "sync" else "call"
        async with fake_world(way, monkeypatch) as opened:
            yield opened
        return
    async with server_world(f"127.0.0.1:{server.port}") as opened:
        yield opened


async def add(world: World, number: int = 1, *, app: int | None = None, user: int = 0) -> None:
    for _ in range(number):
        await world.credits.add(
            user_id=user or world.user, app_id=app or world.app, credits=5, created_by=1
        )


async def take(events: AsyncIterator[WatchEvent], number: int) -> list[WatchEvent]:
    return [await anext(events) for _ in range(number)]


def sequences(events: list[WatchEvent]) -> list[int]:
    return [each.transaction.sequence for each in events if each.transaction is not None]


async def test_a_user_is_watched_from_a_snapshot_on(world: World) -> None:
    await add(world, 2)
    async with aclosing(world.credits.watch(user_id=world.user)) as events:
        first = await anext(events)
        assert first.snapshot is not None
        assert (first.snapshot.revision, first.snapshot.balances[0].balance) == (2, 10)
        await add(world, 2)
        await add(world, user=world.new_user())
        await add(world)
        found = await take(events, 3)
    assert sequences(found) == [3, 4, 5]
    resumed = world.credits.watch(
        user_id=world.user, resume_token=found[0].resume_token, end_when_current=True
    )
    assert sequences([each async for each in resumed]) == [4, 5]


async def test_an_app_is_watched_in_the_order_of_commits(world: World) -> None:
    other = world.new_user()
    async with aclosing(world.credits.watch(app_id=world.app, progress=True)) as events:
        first = await anext(events)
        assert first == WatchEvent(resume_token=first.resume_token)
        for user in (world.user, other, world.user):
            await add(world, user=user)
            await add(world, user=user, app=world.app + 500_000)
        found = await take(events, 3)
    users = [each.transaction.user_id for each in found if each.transaction is not None]
    assert users == [world.user, other, world.user]
    resumed = world.credits.watch(
        app_id=world.app, resume_token=first.resume_token, end_when_current=True
    )
    assert sequences([each async for each in resumed]) == sequences(found)


async def test_one_app_of_a_user_is_watched(world: World) -> None:
    await add(world, app=world.app + 500_000)
    async with aclosing(world.credits.watch(user_id=world.user, app_id=world.app)) as events:
        first = await anext(events)
        assert first.snapshot is not None
        assert first.snapshot.balances == []
        await add(world, app=world.app + 500_000)
        await add(world)
        assert sequences(await take(events, 1)) == [3]


async def test_a_user_or_an_app_is_needed(world: World) -> None:
    with pytest.raises(InvalidField, match="user_id"):
        await anext(world.credits.watch())


async def test_a_token_of_another_watch_is_rejected(world: World) -> None:
    first = await anext(world.credits.watch(user_id=world.user, end_when_current=True))
    with pytest.raises(ResumeTokenInvalid):
        await anext(world.credits.watch(app_id=world.app, resume_token=first.resume_token))


async def test_a_stream_without_a_transaction_shows_its_progress() -> None:
    async with fake_credits() as credits_:
        events = credits_.watch(app_id=1, progress=True, progress_seconds=1)
        first, second = await take(events, 2)
        assert first == second
        await events.aclose()


async def test_a_client_that_is_closed_ends_its_watches() -> None:
    async with fake_credits() as credits_:
        events = credits_.watch(user_id=7)
        await anext(events)
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
    with pytest.raises(ClientClosed):
        await waiting


async def test_a_rolled_back_batch_of_the_fake_is_not_watched() -> None:
    service = FakeCreditService()
    async with fake_credits(service) as credits_:
        events = credits_.watch(user_id=7)
        await anext(events)
        batch = credits_.batch(atomic=True)
        batch.add(user_id=7, app_id=1, credits=5, created_by=1)
        batch.use(user_id=7, app_id=1, report_id="r", report_name="R", credits=9, created_by=1)
        await batch.send()
        await credits_.add(user_id=7, app_id=1, credits=3, created_by=1)
        (event,) = await take(events, 1)
        assert event.transaction is not None
        assert event.transaction.credits == 3
        await events.aclose()


# What one attempt of a scripted transport does: send events, then fail or end.
Attempt = tuple[list[WatchEvent], AttemptFailed | None]


class ScriptedTransport:
    """Answers each attempt of a watch as the test has written it, and keeps the requests."""

    def __init__(self, *attempts: Attempt) -> None:
        self._attempts = list(attempts)
        self.requests: list[WatchRequest] = []

    # Any: the messages of any call.
    async def unary(self, method: Method[Any, Any], request: Any, **_: Any) -> Any:
        raise AssertionError("a watch makes no unary call")

    async def stream(
        self,
        method: Method[Any, Any],
        request: Any,
        *,
        request_id: str,
        metadata: Mapping[str, str],
    ) -> AsyncGenerator[Any, None]:
        self.requests.append(replace(request))
        events, failure = self._attempts.pop(0)
        for event in events:
            yield event
        if failure is not None:
            raise failure

    async def close(self) -> None:
        pass

    @property
    def tokens(self) -> list[str]:
        """Return the tokens of all requests."""
        return [request.resume_token for request in self.requests]


def event(number: int) -> WatchEvent:
    transaction = CreditTransaction(id=f"t-{number}", sequence=number)
    return WatchEvent(resume_token=str(number), transaction=transaction)


BEGIN = WatchEvent(resume_token="0", snapshot=UserCredits(user_id=7))


def refused(reason: ErrorReason, **metadata: str) -> AttemptFailed:
    return AttemptFailed(RULES[reason].status, "no", details=[error_info(reason, metadata)])


PASSING: list[Callable[[], AttemptFailed]] = [
    lambda: ConnectionLost(Status.UNAVAILABLE, "lost", first=True),
    lambda: NotConnected(Status.UNAVAILABLE, "no connection"),
    lambda: refused(ErrorReason.OVERLOADED),
    lambda: refused(ErrorReason.STORE_UNAVAILABLE),
    lambda: refused(ErrorReason.RATE_LIMITED),
    lambda: AttemptFailed(Status.DEADLINE_EXCEEDED, "the deadline has passed"),
]
FAST = ClientSettings(
    **{
        **SETTINGS.model_dump(),
        "retry_backoff_max_seconds": 0.001,
        "retry_budget_tokens": 1,
        "retry_attempts_max": 2,
    }
)


async def watched(transport: ScriptedTransport, settings: ClientSettings = FAST) -> list[str]:
    async with CreditClient(transport=transport, settings=settings) as credits_:
        return [each.resume_token async for each in credits_.watch(user_id=7)]


@pytest.mark.parametrize("failure", PASSING)
async def test_a_stream_that_breaks_off_is_continued_after_its_last_event(
    failure: Callable[[], AttemptFailed],
) -> None:
    transport = ScriptedTransport(
        ([BEGIN, event(1)], failure()), ([event(2), event(3)], failure()), ([event(4)], None)
    )
    assert await watched(transport) == ["0", "1", "2", "3", "4"]
    assert transport.tokens == ["", "1", "3"]


async def test_it_is_continued_however_often_that_fails() -> None:
    outage: list[Attempt] = [([], refused(ErrorReason.STORE_UNAVAILABLE)) for _ in range(50)]
    transport = ScriptedTransport(
        ([BEGIN], refused(ErrorReason.OVERLOADED)), *outage, ([event(1)], None)
    )
    assert await watched(transport) == ["0", "1"]


async def test_before_its_first_event_it_fails_as_any_call() -> None:
    outage: list[Attempt] = [([], refused(ErrorReason.STORE_UNAVAILABLE)) for _ in range(2)]
    with pytest.raises(Unavailable):
        await watched(ScriptedTransport(*outage))


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (refused(ErrorReason.RESUME_TOKEN_EXPIRED), ResumeTokenExpired),
        (refused(ErrorReason.SCOPE_MISSING, scope="credits:read"), ScopeMissing),
    ],
)
async def test_a_failure_that_does_not_pass_is_raised(
    failure: AttemptFailed, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await watched(ScriptedTransport(([BEGIN], failure)))


async def test_a_silent_stream_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_SILENT_INTERVALS", 0.001)

    class Silent(ScriptedTransport):
        # Any: see `ScriptedTransport`.
        async def stream(self, *args: Any, **options: Any) -> AsyncGenerator[Any, None]:
            async for each in super().stream(*args, **options):
                yield each
            if len(self.requests) == 1:
                await asyncio.Event().wait()

    transport = Silent(([BEGIN], None), ([event(1)], None))
    assert await watched(transport) == ["0", "1"]
    assert transport.tokens == ["", "0"]
