"""Provide a real server with its own database, for the tests of one module."""

from collections.abc import AsyncIterator

import pytest
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from pymongo import AsyncMongoClient

DATABASE = "test_fuzz"


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """Run a server on an empty database, for the tests of one module."""
    options = await migrated(mongod_uri, DATABASE)
    quiet = ("--log-level", "warning")  # one line per call would be megabytes
    folder = tmp_path_factory.mktemp("fuzz")
    async with running_server(folder, *quiet, *PATIENT, *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(DATABASE)
