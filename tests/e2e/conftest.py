"""Fixtures of the end-to-end tests."""

from collections.abc import AsyncIterator

import pytest
from credit_testing.mongod import running_mongod
from credit_testing.server import migrated


@pytest.fixture
async def store_options(mongod_uri: str, database: str) -> list[str]:
    """Migrate a fresh database, and return the options of a server on it."""
    return await migrated(mongod_uri, database)


@pytest.fixture(scope="module")
async def mongod_that_forgets(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Run a mongod that soon ends the transactions that a killed server leaves open."""
    soon = ("--setParameter", "transactionLifetimeLimitSeconds=2")
    async with running_mongod(tmp_path_factory.mktemp("mongod"), *soon) as mongod:
        yield mongod.uri
