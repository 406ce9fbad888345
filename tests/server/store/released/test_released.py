"""Test that this release takes over the database of every released one, as it was made by that."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bson.objectid import ObjectId
from credit_models.ledger import Add, Command, Receipt, ReverseTransaction
from credit_server.backup.export import export
from credit_server.commit import Committer
from credit_server.store import schema
from credit_server.store.exporting import open_reader
from credit_server.store.mongo import MongoStore
from credit_server.store.port import StoreMisconfigured
from credit_testing.ledger_check import findings
from pymongo import MongoClient

from tests.server.store.released.databases import RELEASES, Document, create

CHANGELOG = Path(__file__).parents[4] / "CHANGELOG.md"


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, mongod_uri: str, database: str) -> str:
    """Create the database of each release."""
    name = str(request.param)
    create(name, mongod_uri, database)
    return name


@pytest.fixture
def client(mongod_uri: str) -> Iterator[MongoClient[Document]]:
    with MongoClient[Document](mongod_uri, tz_aware=True) as connected:
        yield connected


def test_there_is_a_database_of_every_earlier_release() -> None:
    latest, *earlier = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", CHANGELOG.read_text(), re.MULTILINE)
    assert earlier
    assert set(earlier) <= set(RELEASES), f"a database of {latest} is needed before the next one"


def documents(client: MongoClient[Document], database: str) -> dict[str, list[Document]]:
    names = set(client[database].list_collection_names()) - {"schema_version", "leases"}
    found = {name: list(client[database][name].find().sort("_id", 1)) for name in names}
    return {name: rows for name, rows in found.items() if rows}


async def _took_over(uri: str, database: str, version: int) -> None:
    store = MongoStore(uri, database=database)
    with pytest.raises(StoreMisconfigured, match=f"the schema has version {version}"):
        await store.verify_schema()
    assert await store.migrate() == schema.SCHEMA_VERSION
    await store.verify_schema()
    await store.close()


async def _continues(uri: str, database: str) -> None:
    """Retry a write of the released server, and write what follows."""
    store = MongoStore(uri, database=database)

    async def done(command: Command) -> Receipt:
        result = await committer.submit(command)
        assert isinstance(result, Receipt), result
        return result

    def write(user: int, key: str) -> dict[str, Any]:
        fields = {"user_id": user, "app_id": 1, "created_by": 9, "key": key}
        return {**fields, "transaction_id": str(ObjectId())}

    async with Committer(store) as committer:
        replayed = await done(Add(**write(7, "order-4711"), credits=100))
        assert (replayed.replayed, replayed.transaction.sequence) == (True, 1)
        added = await done(Add(**write(8, "new"), credits=5))
        assert not added.replayed
        await done(ReverseTransaction(**write(8, "undo"), reversed_id=added.transaction.id))
    await store.close()


def test_the_database_of_a_release_is_migrated_and_written_to(
    release: str, mongod_uri: str, database: str, client: MongoClient[Document]
) -> None:
    before = documents(client, database)
    assert len(before["credit_transactions"]) >= 4
    asyncio.run(_took_over(mongod_uri, database, RELEASES[release]))
    assert documents(client, database) == before
    assert findings(client[database]) == []
    asyncio.run(_continues(mongod_uri, database))
    assert findings(client[database]) == []


def test_a_backup_of_the_database_of_a_release_does_not_depend_on_its_migration(
    release: str, mongod_uri: str, database: str, tmp_path: Path
) -> None:
    def digest(folder: str) -> str:
        with open_reader(mongod_uri, database=database, timeout_seconds=5) as reader:
            return export(reader, tmp_path / folder, secrets=False, advance=lambda _: None).digest

    before = digest("before")
    asyncio.run(_took_over(mongod_uri, database, RELEASES[release]))
    assert digest("after") == before
