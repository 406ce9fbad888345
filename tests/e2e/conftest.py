"""Fixtures of the end-to-end tests."""

import pytest
from credit_testing.server import migrated


@pytest.fixture
async def store_options(mongod_uri: str, database: str) -> list[str]:
    """Migrate a fresh database, and return the options of a server on it."""
    return await migrated(mongod_uri, database)
