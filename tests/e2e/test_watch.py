"""Watchers of what is killed while others write: no event is lost, comes twice or is moved."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from signal import SIGKILL

from credit_client import CreditClient, WatchEvent
from credit_testing.mongod import running_mongod
from credit_testing.ports import lasting_port
from credit_testing.server import migrated

from tests.conftest import StartServer
from tests.e2e.watchers import PATIENT

USERS, WRITES, APP = range(1, 5), 100, 3

# The user and the sequence of each transaction.
Record = list[tuple[int, int]]


async def test_watchers_survive_the_death_of_their_server(
    mongod_that_forgets: str, credit_server_process: StartServer
) -> None:
    store = await migrated(mongod_that_forgets, "watch")
    options = [*store, "--port", str(lasting_port())]
    server = await credit_server_process(*options)

    async def restart() -> None:
        await server.stop(SIGKILL)
        await credit_server_process(*options)

    await _watch_during(restart, server.address)


async def test_watchers_survive_the_death_of_the_primary(
    tmp_path: Path, credit_server_process: StartServer
) -> None:
    folder = tmp_path / "mongod"
    folder.mkdir()
    async with running_mongod(folder) as mongod:
        server = await credit_server_process(*await migrated(mongod.uri, "credit"))

        async def restart() -> None:
            await mongod.end(SIGKILL)
            await mongod.start()

        await _watch_during(restart, server.address)


async def _watch_during(disturb: Callable[[], Awaitable[None]], address: str) -> None:
    """Write and watch, disturb both in the middle, and check each record."""
    of_user: dict[int, Record] = {user: [] for user in USERS}
    of_app: Record = []
    async with (
        CreditClient(address, settings=PATIENT) as writing,
        CreditClient(address, settings=PATIENT) as watching,
    ):
        streams = [(watching.watch(user_id=user), of_user[user], WRITES) for user in USERS] + [
            (watching.watch(app_id=APP, progress=True), of_app, WRITES * len(USERS))
        ]
        for stream, _, _ in streams:
            await anext(stream)
        watched = asyncio.gather(*(_read(*each) for each in streams))
        written = asyncio.gather(*(_write(writing, user) for user in USERS))
        while len(of_app) < WRITES:  # noqa: ASYNC110 - the test is in the middle of its writes
            await asyncio.sleep(0.01)
        await disturb()
        await asyncio.gather(written, watched)
        for stream, _, _ in streams:
            await stream.aclose()
    for user, record in of_user.items():
        assert record == [(user, sequence) for sequence in range(1, WRITES + 1)]
        assert [each for each in of_app if each[0] == user] == record
    assert len(of_app) == WRITES * len(USERS)


async def _read(events: AsyncIterator[WatchEvent], record: Record, number: int) -> None:
    """Read until the record has so many transactions."""
    while len(record) < number:
        event = await anext(events)
        if event.transaction is not None:
            record.append((event.transaction.user_id, event.transaction.sequence))


async def _write(client: CreditClient, user: int) -> None:
    for number in range(WRITES):
        await client.add(user_id=user, app_id=APP, credits=1 + number, created_by=1)
