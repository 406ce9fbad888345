"""Users that are named by text, with the fake and with a real server alike."""

import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any, cast

import pytest
from credit_client import (
    BatchAborted,
    ClientSettings,
    CreditClient,
    ImportRow,
    InvalidField,
    Outcome,
    Unavailable,
    UserIdsExhausted,
    UserNotFound,
)
from credit_client.testing import FakeCreditService, FakeLedger, fake_credits
from credit_client.testing.directory import FakeDirectory
from credit_models import (
    ErrorReason,
    FindUserRequest,
    FindUserResponse,
    ResolveUserRequest,
    ResolveUserResponse,
)
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from pymongo import AsyncMongoClient

from tests.client.worlds import World, fake_world, server_world

DATABASE = "test_users"
REPORT: dict[str, Any] = {"report_id": "r-1", "report_name": "Answer"}
FIRST = 2_000_000_000

_texts = (f"user-{number}" for number in itertools.count(1))


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


@pytest.fixture(params=["fake", "server"])
async def world(
    request: pytest.FixtureRequest, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    if request.param == "fake":
        async with fake_world("call", monkeypatch) as opened:
            yield opened
        return
    async with server_world(f"127.0.0.1:{server.port}") as opened:
        yield opened


# Any, here and below: the arguments of a call have no common type.
def _who(world: World, text: str) -> dict[str, Any]:
    return {"user_id": text, "app_id": world.app, "created_by": 1}


async def test_a_text_takes_the_place_of_the_number_in_each_call(world: World) -> None:
    credits_, text, app = world.credits, next(_texts), world.app
    who = _who(world, text)
    await credits_.add(**who, credits=100)
    user = (await credits_.find_user(app_id=app, external_id=text)).user_id
    await credits_.grant(**who, credits=20, priority=1)
    used = await credits_.use(**who, **REPORT, credits=5)
    once = await credits_.use(**who, **REPORT, credits=5, min_available_after=1)
    await credits_.refund(used, **who)
    await credits_.adjust(**who, delta=-1, note="a correction")
    await credits_.set_spending_cap(**who, per_day=90)
    hold = await credits_.place_hold(**who, credits=10)
    await credits_.release_hold(**who, hold_id=hold.transaction_id)
    async with credits_.hold(**who, credits=3) as handle:
        assert handle.user_id == text
        await handle.capture(2, **REPORT)
    # 100 + 20 - 5 - 5 + 5 - 1 - 2
    assert await credits_.balance(user_id=text, app_id=app) == 112
    assert await credits_.balance(user_id=user, app_id=app) == 112
    assert (await credits_.user_credits(user_id=user)).balances[0].balance == 112
    assert len(await credits_.grants(user_id=text, app_id=app)) == 1
    assert [each async for each in credits_.holds(user_id=text, app_id=app)] == []
    assert (await credits_.forecast(user_id=text, app_id=app)).balance == 112
    assert (await credits_.spending_cap(user_id=text, app_id=app)).statuses
    found = [each async for each in credits_.query_transactions(user_id=text, app_id=app)]
    assert {each.user_id for each in found} == {user}
    assert once.transaction_id in {each.id for each in found}


async def test_a_text_takes_the_place_of_the_number_in_the_calls_of_the_history(
    world: World,
) -> None:
    credits_, text, app = world.credits, next(_texts), world.app
    who: dict[str, Any] = {"user_id": text, "app_id": app}
    began = world.now() - timedelta(minutes=1)
    added = await credits_.add(**who, created_by=1, credits=100, idempotency_key="key")
    used = await credits_.use(**who, **REPORT, created_by=1, credits=5)
    user = (await credits_.find_user(app_id=app, external_id=text)).user_id
    bought = [each async for each in credits_.query_purchases(**who)]
    assert [(each.user_id, each.transaction_id) for each in bought] == [(user, used.transaction_id)]
    found = await credits_.transaction(**who, idempotency_key="key")
    assert (found.user_id, found.id) == (user, added.transaction_id)
    until = world.now() + timedelta(minutes=1)
    sums = await credits_.summarize(**who, created_from=began, created_until=until)
    assert [(each.credits_in, each.spent) for each in sums.summaries] == [(100, 5)]
    assert (await credits_.balance_at(**who, sequence=1)).balance == 100
    details = await credits_.balance_details(**who, min_revision=used.revision)
    assert (details.balance, details.revision) == (95, 2)
    events = [each async for each in credits_.watch(**who, end_when_current=True)]
    assert [each.snapshot.user_id for each in events if each.snapshot is not None] == [user]
    await credits_.use(**who, **REPORT, created_by=1, credits=5)
    later = credits_.watch(**who, resume_token=events[-1].resume_token, end_when_current=True)
    written = [each.transaction async for each in later if each.transaction is not None]
    assert [(each.user_id, each.sequence) for each in written] == [(user, 3)]


async def test_a_watch_of_a_user_without_a_number_is_not_found(world: World) -> None:
    text = next(_texts)
    with pytest.raises(UserNotFound):
        await anext(world.credits.watch(user_id=text, app_id=world.app))
    with pytest.raises(InvalidField, match="app_id must be set where user_id is text"):
        world.credits.watch(user_id=text)


async def test_the_error_for_a_text_without_a_number_names_the_text_and_the_app(
    world: World,
) -> None:
    text = next(_texts)
    with pytest.raises(UserNotFound) as refused:
        await world.credits.use(**_who(world, text), **REPORT, credits=1)
    assert refused.value.message == (
        f"the directory of app {world.app} has no user {text!r}: `add` and `grant` create the user"
    )
    assert refused.value.user == text


async def test_a_user_of_another_type_is_rejected(world: World) -> None:
    with pytest.raises(TypeError, match="user_id must be int or str, not NoneType"):
        await world.credits.add(**_who(world, cast("str", None)), credits=1)


async def test_a_text_names_the_user_of_alerts(world: World) -> None:
    credits_, text, app = world.credits, next(_texts), world.app
    who: dict[str, Any] = {"user_id": text, "app_id": app}
    await credits_.add(**who, created_by=1, credits=100)
    user = (await credits_.find_user(app_id=app, external_id=text)).user_id
    alerts = await credits_.set_alert(**who, created_by=1, credits=20)
    assert (await credits_.alerts(**who)).user_alerts == alerts
    await credits_.use(**who, **REPORT, created_by=1, credits=90)
    watched = credits_.watch_alerts(**who, after_position=0)
    assert (await anext(watched)).user_id == user
    await watched.aclose()
    assert [each.user_id async for each in credits_.alert_events(**who)] == [user]
    assert await credits_.remove_alert(**who, created_by=1, credits=20) == []
    with pytest.raises(UserNotFound):
        await credits_.set_alert(user_id=next(_texts), app_id=app, created_by=1, credits=20)


async def test_numbers_are_above_those_of_shops_and_are_remembered(world: World) -> None:
    text = next(_texts)
    first = await world.credits.resolve_user(app_id=world.app, external_id=text)
    assert first.user_id >= FIRST
    assert await world.credits.resolve_user(app_id=world.app, external_id=text) == first
    assert await world.credits.find_user(user_id=first.user_id) == first
    assert (first.app_id, first.external_id) == (world.app, text)


async def test_a_user_without_a_number_is_not_found(world: World) -> None:
    text, app = next(_texts), world.app
    calls: list[Callable[[], Coroutine[Any, Any, object]]] = [
        lambda: world.credits.balance(user_id=text, app_id=app),
        lambda: world.credits.use(**_who(world, text), **REPORT, credits=1),
        lambda: world.credits.use(**_who(world, text), **REPORT, credits=1, once=True),
        lambda: world.credits.grant(**_who(world, text), credits=1, validate_only=True),
        lambda: world.credits.transfer(
            user_id=world.user, to_user_id=text, app_id=app, created_by=1, credits=1
        ),
    ]
    for call in calls:
        with pytest.raises(UserNotFound) as caught:
            await call()
        assert (caught.value.user, caught.value.outcome) == (text, Outcome.NO_CHANGE)


async def test_credits_are_moved_between_users_with_text_ids(world: World) -> None:
    giver, receiver = next(_texts), next(_texts)
    await world.credits.add(**_who(world, giver), credits=10)
    await world.credits.resolve_user(app_id=world.app, external_id=receiver)
    await world.credits.transfer(**_who(world, giver), to_user_id=receiver, credits=4)
    assert await world.credits.balance(user_id=receiver, app_id=world.app) == 4


async def test_each_app_has_its_own_users(world: World) -> None:
    text, other = next(_texts), world.new_user()
    await world.credits.add(**_who(world, text), credits=10)
    await world.credits.add(user_id=text, app_id=other, created_by=1, credits=7)
    assert await world.credits.balance(user_id=text, app_id=world.app) == 10
    assert await world.credits.balance(user_id=text, app_id=other) == 7


async def test_a_batch_takes_texts_and_numbers(world: World) -> None:
    known, new, absent = next(_texts), next(_texts), next(_texts)
    await world.credits.add(**_who(world, known), credits=10)
    batch = world.credits.batch()
    batch.use(**_who(world, known), **REPORT, credits=1)
    for _ in range(3):
        batch.add(**_who(world, new), credits=5)
    failed = batch.use(**_who(world, absent), **REPORT, credits=1)
    batch.add(user_id=world.user, app_id=world.app, created_by=1, credits=1)
    done = await batch.send()
    assert [each.error is None for each in done] == [True, True, True, True, False, True]
    assert isinstance(failed.error, UserNotFound)
    assert failed.error.idempotency_key == failed.idempotency_key
    assert await world.credits.balance(user_id=new, app_id=world.app) == 15
    # The failed write can be sent again once the user has a number.
    await world.credits.add(**_who(world, absent), credits=10)
    await batch.send()
    assert failed.receipt.balance == 9


async def test_an_atomic_batch_without_a_user_makes_no_change(world: World) -> None:
    batch = world.credits.batch(atomic=True)
    first = batch.add(user_id=world.user, app_id=world.app, created_by=1, credits=1)
    second = batch.use(**_who(world, next(_texts)), **REPORT, credits=1)
    await batch.send()
    assert isinstance(second.error, UserNotFound)
    assert isinstance(first.error, BatchAborted)
    assert first.error.index == 1
    assert await world.credits.balance(user_id=world.user, app_id=world.app) == 0


async def test_an_import_gives_numbers_to_new_users(world: World) -> None:
    texts = [next(_texts) for _ in range(40)]
    rows = [
        ImportRow(user_id=text, app_id=world.app, credits=credits_, created_by=1)
        for credits_ in (1, 2)
        for text in texts
    ]
    unknown = ImportRow(
        kind="use", user_id=next(_texts), app_id=world.app, credits=1, created_by=1, **REPORT
    )
    report = await world.credits.import_([*rows, unknown], name=f"import-{world.app}")
    assert (report.rows, report.applied, report.rejected) == (81, 80, 1)
    assert isinstance(report.rejections[0].error, UserNotFound)
    for text in texts:
        assert await world.credits.balance(user_id=text, app_id=world.app) == 3


async def test_a_call_without_an_app_needs_the_app_of_the_users(world: World) -> None:
    text = next(_texts)
    with pytest.raises(InvalidField, match="app_id must be set where user_id is text"):
        await world.credits.user_credits(user_id=text)
    with pytest.raises(InvalidField, match="app_id must be set where user_id is text"):
        world.credits.transactions(user_id=text)


@pytest.mark.parametrize("text", ["", "x" * 129, "a\nb", "\ud800"])
async def test_a_text_that_is_no_external_id_names_the_argument(text: str) -> None:
    async with fake_credits() as credits_:
        with pytest.raises(InvalidField) as caught:
            await credits_.add(user_id=text, app_id=1, created_by=1, credits=1)
        assert [each.field for each in caught.value.violations] == ["user_id"]
        with pytest.raises(InvalidField):
            credits_.batch().add(user_id=text, app_id=1, created_by=1, credits=1)


@pytest.mark.parametrize("number", [0, 2**32, 7.0, True, None])
async def test_a_number_is_checked_as_before(number: Any) -> None:
    async with fake_credits() as credits_:
        with pytest.raises((InvalidField, TypeError)):
            await credits_.add(user_id=number, app_id=1, created_by=1, credits=1)


async def test_apps_can_share_users() -> None:
    service, settings = FakeCreditService(), ClientSettings(users_app_id=9)
    async with fake_credits(service, settings=settings) as credits_:
        for app in (1, 2):
            await credits_.add(user_id="ada", app_id=app, created_by=1, credits=app)
        held = await credits_.user_credits(user_id="ada")
        assert {each.app_id: each.balance for each in held.balances} == {1: 1, 2: 2}
        assert [each.app_id async for each in credits_.transactions(user_id="ada")] == [1, 2]
        assert [each async for each in credits_.purchases(user_id="ada")] == []
        assert (await credits_.find_user(user_id=held.user_id)).app_id == 9


class CountingDirectory(FakeDirectory):
    """Notes each call."""

    def __init__(self, ledger: FakeLedger) -> None:
        super().__init__(ledger)
        self.calls: list[str] = []

    def resolve(self, request: ResolveUserRequest) -> ResolveUserResponse:
        self.calls.append("resolve")
        return super().resolve(request)

    def find(self, request: FindUserRequest) -> FindUserResponse:
        self.calls.append("find")
        return super().find(request)


async def test_the_number_of_a_user_is_looked_up_once() -> None:
    service = FakeCreditService()
    service.directory = directory = CountingDirectory(service.ledger)
    async with fake_credits(service) as credits_:
        for _ in range(3):
            await credits_.add(user_id="ada", app_id=1, created_by=1, credits=1)
            await credits_.balance(user_id="ada", app_id=1)
    async with fake_credits(service) as credits_:
        for _ in range(3):
            assert await credits_.balance(user_id="ada", app_id=1) == 3
    assert directory.calls == ["resolve", "find"]


async def test_a_search_that_fails_leaves_no_doubt_about_the_write() -> None:
    service = FakeCreditService()
    async with fake_credits(service) as credits_:
        service.fail_next(ErrorReason.STORE_UNAVAILABLE, times=100)
        key = CreditClient.new_key()
        with pytest.raises(Unavailable) as caught:
            await credits_.add(
                user_id="ada",
                app_id=1,
                created_by=1,
                credits=1,
                idempotency_key=key,
                timeout_seconds=0.5,
            )
        assert (caught.value.outcome, caught.value.idempotency_key) == (Outcome.NO_CHANGE, key)


async def test_the_fake_has_a_last_number_too() -> None:
    service = FakeCreditService()
    service.directory = FakeDirectory(service.ledger, user_ids_from=2**32 - 1)
    async with fake_credits(service) as credits_:
        await credits_.add(user_id="ada", app_id=1, created_by=1, credits=1)
        with pytest.raises(UserIdsExhausted):
            await credits_.add(user_id="bob", app_id=1, created_by=1, credits=1)
