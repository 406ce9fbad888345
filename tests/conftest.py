"""What tests of all packages share: one real mongod, fresh databases in it, and real servers."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from credit_testing.mongod import running_mongod
from credit_testing.ports import lasting_port
from credit_testing.server import ServerProcess, running_server
from pymongo import AsyncMongoClient

StartServer = Callable[..., Awaitable[ServerProcess]]


@pytest.fixture(scope="session")
async def mongod_uri(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The connection string of a replica set that lives as long as the tests of one worker.

    Its failpoints work (`configureFailPoint`); a test that sets one switches it off again.
    """
    folder = tmp_path_factory.mktemp("mongod")
    async with running_mongod(folder, "--setParameter", "enableTestCommands=1") as mongod:
        yield mongod.uri


@pytest.fixture
async def database(mongod_uri: str) -> AsyncIterator[str]:
    """The name of a database that does not exist yet; it is dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    yield name
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(name)


@pytest.fixture
def unused_tcp_port() -> int:
    """Return a free port that no test which runs at the same time can take."""
    return lasting_port()


@pytest.fixture
async def credit_server_process(tmp_path: Path) -> AsyncIterator[StartServer]:
    """Starts real servers: `await credit_server_process("--mongodb-uri", …)`; ends what still runs.

    Without options a server has an embedded mongod, with its data in `tmp_path / ".credit-data"`.
    """
    async with AsyncExitStack() as running:

        async def start(*options: str, **environment: str) -> ServerProcess:
            return await running.enter_async_context(
                running_server(tmp_path, *options, environment=environment)
            )

        yield start
