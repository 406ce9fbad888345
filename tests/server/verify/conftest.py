"""Provide a database with histories of every kind."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from credit_server.verify.run import Target
from credit_testing.server import migrated
from pymongo import MongoClient
from pymongo.database import Database

from tests.server.verify.histories import Histories
from tests.server.verify.stored import Stored, store

# Fixed: the damage of a test names what this seed makes.
SEED = 5


@pytest.fixture(scope="module")
async def ledger(mongod_uri: str, request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    """Return a sound database with histories of every kind."""
    name = f"verify_{request.module.__name__.rpartition('.')[2]}"
    made = Histories(SEED)
    made.play(250)
    made.end()
    with MongoClient[dict[str, Any]](mongod_uri, tz_aware=True) as client:
        client.drop_database(name)
        await migrated(mongod_uri, name)
        store(client[name], made)
        yield Target(uri=mongod_uri, database=name, timeout_seconds=30)
        client.drop_database(name)


@pytest.fixture(scope="module")
def sound(ledger: Target) -> Stored:
    """Return what the database contains."""
    with MongoClient[dict[str, Any]](ledger.uri) as client:
        return Stored.of(client[ledger.database])


@pytest.fixture
def documents(ledger: Target, sound: Stored) -> Iterator[Database[dict[str, Any]]]:
    """Return the database, for direct writes, and restore it after the test."""
    with MongoClient[dict[str, Any]](
        ledger.uri, tz_aware=True, datetime_conversion="DATETIME_AUTO"
    ) as client:
        database = client[ledger.database]
        yield database
        sound.restore(database)
