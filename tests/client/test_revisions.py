"""Reads that require a revision, with the fake and with a real server alike."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_client import CreditClient, InvalidField, RevisionNotReached
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from pymongo import AsyncMongoClient

from tests.client.worlds import World, fake_world, server_world

DATABASE = "test_revisions"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = BEGIN + timedelta(days=1)


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


async def _all(rows: AsyncGenerator[object, None]) -> list[object]:
    return [row async for row in rows]


# Any, here and below: the arguments and the answers of the calls have no common type.
Read = Callable[[CreditClient, dict[str, Any]], Awaitable[Any]]
OF_APP: dict[str, Read] = {
    "balance": lambda it, who: it.balance(**who),
    "balance_details": lambda it, who: it.balance_details(**who),
    "grants": lambda it, who: it.grants(**who),
    "holds": lambda it, who: _all(it.holds(**who)),
    "forecast": lambda it, who: it.forecast(**who),
    "spending_cap": lambda it, who: it.spending_cap(**who),
    "query_transactions": lambda it, who: it.query_transactions(**who).page(),
    "query_purchases": lambda it, who: it.query_purchases(**who).page(),
    "summarize": lambda it, who: it.summarize(**who, created_from=BEGIN, created_until=END),
    "balance_at": lambda it, who: it.balance_at(**who, sequence=1),
    "alerts": lambda it, who: it.alerts(**who),
}
OF_USER: dict[str, Read] = {
    "user_credits": lambda it, who: it.user_credits(**who),
    "purchases": lambda it, who: _all(it.purchases(**who)),
    "transactions": lambda it, who: _all(it.transactions(**who)),
}


@pytest.mark.parametrize("name", [*OF_APP, *OF_USER])
async def test_a_read_requires_a_revision(world: World, name: str) -> None:
    receipt = await world.credits.grant(
        user_id=world.user, app_id=world.app, credits=10, created_by=1
    )
    assert receipt.revision == 1
    who: dict[str, Any] = {"user_id": world.user, "min_revision": receipt.revision}
    read = (OF_APP | OF_USER)[name]
    if name in OF_APP:
        who["app_id"] = world.app
    await read(world.credits, who)
    with pytest.raises(RevisionNotReached) as caught:
        await read(world.credits, {**who, "min_revision": 2})
    assert (caught.value.revision, caught.value.required) == (1, 2)


async def test_a_sum_over_all_users_has_no_revision(world: World) -> None:
    with pytest.raises(InvalidField, match="min_revision"):
        await world.credits.balance(app_id=world.app, min_revision=1)
