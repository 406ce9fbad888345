"""What the end-to-end tests share: a migrated database, as options of `credit-server serve`."""

import pytest
from credit_testing.server import migrated


@pytest.fixture
async def store_options(mongod_uri: str, database: str) -> list[str]:
    """The options that let a server use a fresh and migrated database of the tests' mongod."""
    return await migrated(mongod_uri, database)
