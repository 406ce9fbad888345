"""What an inspection learns from a real server, and from one that does not tell everything."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from credit_server.store.connection import StoreMisconfigured
from credit_server.store.inspection import connected, inspect
from credit_server.store.report import StoreReport, Topology
from credit_testing.mongod import MongodProcess, running_mongod
from motor.motor_asyncio import AsyncIOMotorClient


async def _inspect(uri: str, database: str = "credit") -> StoreReport:
    async with connected(uri, timeout_seconds=5) as client:
        return await inspect(client, database=database, timeout_seconds=5)


async def test_everything_is_known_of_a_replica_set(mongod_uri: str, database: str) -> None:
    facts = await _inspect(mongod_uri, database)
    assert facts.topology is Topology.REPLICA_SET
    assert facts.has_primary
    assert facts.members is not None
    (member,) = facts.members
    assert (member.votes, member.arbiter, member.up) == (1, False, True)
    assert facts.majority_journaled is True
    assert facts.storage_engine == "wiredTiger"
    assert facts.transaction_lifetime_seconds == 60
    assert facts.version.startswith(f"{facts.compatibility_version}.")
    assert facts.majority_write is not None
    assert facts.majority_write.error == ""
    assert facts.schema is not None
    assert facts.schema.version == 0
    assert facts.privileges is None


async def test_one_machine_has_one_clock(mongod_uri: str) -> None:
    clock = (await _inspect(mongod_uri)).clock
    # A server tells its time in whole milliseconds.
    assert clock.certain_seconds == 0


async def test_where_no_note_may_be_written_a_scratch_collection_is_and_is_removed(
    mongod_uri: str, database: str
) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    failpoint = {"configureFailPoint": "failCommand"}
    refused = {"failCommands": ["appendOplogNote"], "errorCode": 13}
    await client.admin.command({**failpoint, "mode": "alwaysOn", "data": refused})
    try:
        facts = await _inspect(mongod_uri, database)
    finally:
        await client.admin.command({**failpoint, "mode": "off"})
    assert facts.majority_write is not None
    assert facts.majority_write.error == ""
    assert await client[database].list_collection_names() == []
    client.close()


async def test_a_write_that_no_majority_acknowledges_is_told(
    mongod_uri: str, database: str
) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    failpoint = {"configureFailPoint": "failCommand"}
    late = {
        "failCommands": ["appendOplogNote"],
        "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"},
    }
    await client.admin.command({**failpoint, "mode": "alwaysOn", "data": late})
    try:
        facts = await _inspect(mongod_uri, database)
    finally:
        await client.admin.command({**failpoint, "mode": "off"})
        client.close()
    assert facts.majority_write is not None
    assert "waiting for replication timed out" in facts.majority_write.error


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MongodProcess]:
    """A server that asks who is there, and has a user that may only read."""
    folder = tmp_path_factory.mktemp("guarded")
    async with running_mongod(folder, "--auth", standalone=True) as mongod:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod.uri)
        # The first user may be made by anybody on the same machine; it makes the second.
        await client.admin.command("createUser", "root", pwd="secret", roles=["root"])
        client.close()
        root: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(_as(mongod, "root:secret"))
        reads = {"role": "read", "db": "credit"}
        await root.admin.command("createUser", "reader", pwd="secret", roles=[reads])
        root.close()
        yield mongod


def _as(mongod: MongodProcess, user: str) -> str:
    return mongod.uri.replace("mongodb://", f"mongodb://{user}@")


async def test_what_a_user_may_not_ask_stays_unknown(guarded: MongodProcess) -> None:
    facts = await _inspect(_as(guarded, "reader:secret"))
    assert facts.storage_engine is None
    assert facts.transaction_lifetime_seconds is None
    assert facts.topology is Topology.STANDALONE


async def test_what_a_user_may_do_is_known(guarded: MongodProcess) -> None:
    privileges = (await _inspect(_as(guarded, "reader:secret"))).privileges
    assert privileges is not None
    (books,) = [one for one in privileges if (one.database, one.collection) == ("credit", "")]
    assert "find" in books.actions
    assert "insert" not in books.actions


async def test_a_user_that_is_not_known_is_told_so_without_the_password(
    guarded: MongodProcess,
) -> None:
    with pytest.raises(StoreMisconfigured, match="rejects the user") as refused:
        await _inspect(_as(guarded, "reader:hidden"))
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("uri", ["http://db", "db1:27017"])
async def test_a_connection_string_that_is_not_one_is_refused(uri: str) -> None:
    with pytest.raises(StoreMisconfigured, match="CREDIT_MONGODB_URI is not valid"):
        await _inspect(uri)
