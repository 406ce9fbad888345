"""What fuzzing shares: a seed that replays, and one real server with a database of its own."""

import os
from collections.abc import AsyncIterator
from random import SystemRandom

import pytest
from credit_testing.server import ServerProcess, migrated, running_server
from pymongo import AsyncMongoClient

SEED_VARIABLE = "TEST_SEED"
DATABASE = "test_fuzz"


@pytest.fixture
def seed() -> int:
    """What everything is made from: a new one for each run, or the one to replay."""
    given = os.environ.get(SEED_VARIABLE)
    seed = SystemRandom().randrange(2**32) if given is None else int(given)
    print(f"replay with {SEED_VARIABLE}={seed}")  # noqa: T201 - pytest shows it with a failure
    return seed


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """A server on an empty database of the tests' mongod, for the tests of one module."""
    options = await migrated(mongod_uri, DATABASE)
    quiet = ("--log-level", "warning")  # one line a call would be megabytes
    # What is judged is what becomes of calls, and not how soon, on a machine that others use too.
    patient = ("--commit-wait-seconds-max", "60", "--loop-lag-seconds-max", "60")
    folder = tmp_path_factory.mktemp("fuzz")
    async with running_server(folder, *quiet, *patient, *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(DATABASE)
