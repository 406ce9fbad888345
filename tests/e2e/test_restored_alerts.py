"""Test which events readers of alerts get after the restore of an older backup."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from credit_client import AlertDirection, AlertEventsExpired, CreditClient
from credit_testing.server import PATIENT, migrated, run_credit_server
from pymongo import AsyncMongoClient

from tests.conftest import StartServer

APP, OTHER_APP = 1, 2


@asynccontextmanager
async def client_of(start: StartServer, *options: str) -> AsyncIterator[CreditClient]:
    server = await start(*options, *PATIENT)
    async with CreditClient(server.address) as credits_:
        yield credits_
    await server.stop()


async def cross(credits_: CreditClient, *users: int) -> list[int]:
    """Add credits to new users. Each of these writes has an event; return the events' positions."""
    if not users:
        return []
    for user in users:
        await credits_.add(user_id=user, app_id=APP, credits=20, created_by=1)
    watch = credits_.watch_alerts(app_id=APP, after_position=0)
    positions = {}
    async for event in watch:
        positions[event.user_id] = event.position
        if positions.keys() >= set(users):
            break
    await watch.aclose()
    return [positions[user] for user in users]


async def read(credits_: CreditClient, after: int, *, app: int = APP) -> list[int]:
    found = credits_.alert_events(app_id=app, after_position=after)
    return [event.user_id async for event in found]


async def test_a_reader_with_a_position_from_before_a_restore_misses_no_event(
    mongod_uri: str, database: str, tmp_path: Path, credit_server_process: StartServer
) -> None:
    async def command(*arguments: str) -> str:
        ended = await run_credit_server(tmp_path, *arguments)
        assert ended.status == 0, ended.errors
        return ended.output

    backup = tmp_path / "backup"
    options = await migrated(mongod_uri, database)
    async with client_of(credit_server_process, *options) as credits_:
        await credits_.set_alert(
            app_id=APP, credits=20, created_by=1, direction=AlertDirection.RISES_TO
        )
        assert await cross(credits_, 1, 2, 3) == [1, 2, 3]
        await command("export", "--folder", str(backup), *options)
        assert await cross(credits_, 4, 5, 6, 7) == [4, 5, 6, 7]

    old = [4, 5, 6, 7]
    for number in (1, 2):
        target = f"{database}_{number}"
        to = ("--mongodb-uri", mongod_uri, "--mongodb-database", target)
        shown = await command("import", "--folder", str(backup), *to)
        assert "newest event of alerts: position 3\n" in shown
        async with client_of(credit_server_process, *to) as credits_:
            assert await credits_.alert_position(app_id=APP) == 3
            for after in old:
                with pytest.raises(AlertEventsExpired) as rejected:
                    await read(credits_, after)
                assert rejected.value.position == 3
            # More events than were lost.
            users = range(14, 22)
            new = await cross(credits_, *users)
            assert new == list(range(new[0], new[0] + len(users)))
            for after in old:
                for app in (APP, OTHER_APP):
                    with pytest.raises(AlertEventsExpired) as rejected:
                        await read(credits_, after, app=app)
                    assert rejected.value.position == 3
            for after in (0, 2, 3):
                assert await read(credits_, after) == [*range(1 + after, 4), *users]
            for index, after in enumerate(new, 1):
                assert await read(credits_, after) == [*users][index:]
        # The second restore loses the events of the first one.
        old += new

    # The third restore is of a backup of the second one, and loses no event of it.
    second = tmp_path / "second"
    await command("export", "--folder", str(second), *to)
    to = ("--mongodb-uri", mongod_uri, "--mongodb-database", f"{database}_3")
    await command("import", "--folder", str(second), *to)
    kept, lost = new, [*old[: -len(new)], new[-1] + 1]
    async with client_of(credit_server_process, *to) as credits_:
        await cross(credits_, 30)
        for after in lost:
            for app in (APP, OTHER_APP):
                with pytest.raises(AlertEventsExpired) as rejected:
                    await read(credits_, after, app=app)
                assert rejected.value.position == (3 if after < kept[0] else kept[-1])
        for index, after in enumerate(kept, 1):
            assert await read(credits_, after) == [*users[index:], 30]
    async with AsyncMongoClient[dict[str, object]](mongod_uri) as client:
        for number in (1, 2, 3):
            await client.drop_database(f"{database}_{number}")


async def test_a_reader_with_a_position_from_before_a_restore_without_events_is_rejected(
    mongod_uri: str, database: str, tmp_path: Path, credit_server_process: StartServer
) -> None:
    backup = str(tmp_path / "backup")
    options = await migrated(mongod_uri, database)
    target = f"{database}_restored"
    to = ("--mongodb-uri", mongod_uri, "--mongodb-database", target)
    async with client_of(credit_server_process, *options) as credits_:
        await credits_.set_alert(
            app_id=APP, credits=20, created_by=1, direction=AlertDirection.RISES_TO
        )
        for arguments in (("export", *options), ("import", *to)):
            ended = await run_credit_server(tmp_path, *arguments, "--folder", backup)
            assert ended.status == 0, ended.errors
        lost = await cross(credits_, 1, 2)
    async with client_of(credit_server_process, *to) as credits_:
        for users in ((), (3,), (3, 4)):
            await cross(credits_, *users[-1:])
            for after in lost:
                for app in (APP, OTHER_APP):
                    with pytest.raises(
                        AlertEventsExpired, match="Begin with after_position 0"
                    ) as rejected:
                        await read(credits_, after, app=app)
                    assert rejected.value.position == 0
            assert await read(credits_, 0) == [*users]
    async with AsyncMongoClient[dict[str, object]](mongod_uri) as client:
        await client.drop_database(target)
