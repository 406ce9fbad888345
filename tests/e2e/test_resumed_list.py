"""Test that a list continues after its last row: after a server's deadline, and after its death."""

import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from credit_client import ClientSettings, CreditClient
from credit_server.store.mongo import MongoStore
from credit_testing.ports import lasting_port
from credit_testing.server import LogLine, migrated, running_server
from pymongo import AsyncMongoClient

from tests.conftest import StartServer
from tests.e2e.long_history import write_history

USER = 7
# Together they are larger than the client's HTTP/2 window of 4 MiB, which grows again only by what
# the reader has read. So while the reader pauses the server cannot send them all.
ROWS, KEY_LENGTH = 40_000, 128
PATIENT = ClientSettings(timeout_seconds=300, retry_attempts_max=100, retry_budget_tokens=1000)


@pytest.fixture(scope="module")
async def history_options(mongod_uri: str) -> AsyncIterator[list[str]]:
    """Write the history once, and return the options of a server on its database."""
    database = f"test_{uuid.uuid4().hex}"
    options = await migrated(mongod_uri, database)
    store = MongoStore(mongod_uri, database=database)
    await write_history(store, user=USER, count=ROWS, key_length=KEY_LENGTH)
    await store.close()
    yield options
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(database)


async def test_a_list_survives_the_death_of_its_server(
    history_options: list[str], credit_server_process: StartServer
) -> None:
    options = [*history_options, "--port", str(lasting_port())]
    server = await credit_server_process(*options)
    sequences: list[int] = []
    async with CreditClient(server.address, settings=PATIENT) as client:
        async for row in client.transactions(user_id=USER):
            sequences.append(row.sequence)
            if len(sequences) == 10:
                await server.stop(signal.SIGKILL)
                server = await credit_server_process(*options)
    assert sequences == list(range(1, ROWS + 1))
    await server.logged(_is_list)


async def test_a_list_may_take_longer_than_the_servers_deadline(
    history_options: list[str], tmp_path: Path
) -> None:
    sequences: list[int] = []
    short = {"call": {"stream_deadline_seconds": 5.0}}
    async with (
        running_server(tmp_path, *history_options, constants=short) as server,
        CreditClient(server.address, settings=PATIENT) as client,
    ):
        async for row in client.transactions(user_id=USER):
            sequences.append(row.sequence)
            if len(sequences) == 1:
                await server.logged(
                    lambda line: _is_list(line) and line["status"] == "DEADLINE_EXCEEDED"
                )
    assert sequences == list(range(1, ROWS + 1))


def _is_list(line: LogLine) -> bool:
    return str(line.get("method", "")).endswith("/ListUserTransactions")
