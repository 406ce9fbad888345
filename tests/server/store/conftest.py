"""Provide an empty store, once for each driver and once in memory."""

from collections.abc import AsyncIterator

import pytest
from credit_server.store.driver import Driver
from credit_server.store.memory import MemoryStore
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Store


@pytest.fixture(params=["memory", *Driver])
async def store(
    request: pytest.FixtureRequest, mongod_uri: str, migrated_database: str
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    mongo = MongoStore(mongod_uri, database=migrated_database, driver=request.param)
    yield mongo
    await mongo.close()
