"""Provide a ledger, an empty database, and chunks of a few records."""

import uuid
from collections.abc import AsyncIterator

import pytest
from credit_server.backup import records
from credit_server.store import importing
from pymongo import AsyncMongoClient

from tests.server.backup.ledgers import Ledger, make_ledger


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small ledger have many chunks, and a chunk several batches."""
    monkeypatch.setattr(records, "RECORDS_MAX", 3)
    monkeypatch.setattr(importing, "_BATCH", 2)


@pytest.fixture(scope="module")
async def ledger(mongod_uri: str) -> AsyncIterator[Ledger]:
    """Provide a ledger that no test changes."""
    name = f"test_{uuid.uuid4().hex}"
    yield await make_ledger(mongod_uri, name)
    await _drop(mongod_uri, name)


@pytest.fixture
async def changing(mongod_uri: str, database: str) -> Ledger:
    """Provide a ledger for one test."""
    return await make_ledger(mongod_uri, database)


@pytest.fixture
async def target(mongod_uri: str) -> AsyncIterator[Ledger]:
    """Provide a database that does not exist yet."""
    name = f"test_{uuid.uuid4().hex}"
    yield Ledger(mongod_uri, name)
    await _drop(mongod_uri, name)


async def _drop(uri: str, database: str) -> None:
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(uri) as client:
        await client.drop_database(database)
