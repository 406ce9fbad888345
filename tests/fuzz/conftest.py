"""A real server with a database of its own, for the tests of one module."""

from collections.abc import AsyncIterator

import pytest
from credit_testing.server import ServerProcess, migrated, running_server
from pymongo import AsyncMongoClient

DATABASE = "test_fuzz"


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """Run a server on an empty database, for the tests of one module."""
    options = await migrated(mongod_uri, DATABASE)
    quiet = ("--log-level", "warning")  # one line a call would be megabytes
    # The tests judge the answers, not how soon they come: other processes use the machine too.
    patient = ("--commit-wait-seconds-max", "60", "--loop-lag-seconds-max", "60")
    folder = tmp_path_factory.mktemp("fuzz")
    async with running_server(folder, *quiet, *patient, *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(DATABASE)
