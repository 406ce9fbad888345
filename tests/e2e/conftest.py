"""Fixtures of the end-to-end tests."""

from collections.abc import AsyncIterator

import pytest
from credit_testing.mongod import running_mongod


@pytest.fixture
def store_options(mongod_uri: str, migrated_database: str) -> list[str]:
    """Return the options of a server on a migrated database without documents.

    Other tests reuse the database afterwards. A test that kills a server uses
    `mongod_that_forgets` instead, because open transactions of a killed server block writes of
    their documents for a minute.
    """
    return ["--mongodb-uri", mongod_uri, "--mongodb-database", migrated_database]


@pytest.fixture(scope="session")
async def mongod_that_forgets(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Run a mongod that soon ends the transactions that a killed server leaves open.

    All tests of a worker share it, so each module uses a database with another name.
    """
    soon = ("--setParameter", "transactionLifetimeLimitSeconds=2")
    async with running_mongod(tmp_path_factory.mktemp("mongod"), *soon) as mongod:
        yield mongod.uri
