"""Test the report on a real mongod, and on one that withholds some information."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from credit_server.store.port import StoreMisconfigured
from credit_server.store.report import StoreReport, Topology, connected, inspect
from credit_testing.mongod import MongodProcess, running_mongod
from motor.motor_asyncio import AsyncIOMotorClient


async def _inspect(uri: str, database: str = "credit") -> StoreReport:
    async with connected(uri, timeout_seconds=5) as client:
        return await inspect(client, database=database, timeout_seconds=5)


async def test_the_report_on_a_replica_set_is_complete(mongod_uri: str, database: str) -> None:
    report = await _inspect(mongod_uri, database)
    assert report.topology is Topology.REPLICA_SET
    assert report.has_primary
    assert report.members is not None
    (member,) = report.members
    assert (member.votes, member.arbiter, member.up) == (1, False, True)
    assert report.majority_journaled is True
    assert report.storage_engine == "wiredTiger"
    assert report.transaction_lifetime_seconds == 60
    assert report.version.startswith(f"{report.compatibility_version}.")
    assert report.majority_write is not None
    assert report.majority_write.error == ""
    assert report.schema is not None
    assert report.schema.version == 0
    assert report.privileges is None


async def test_one_machine_has_one_clock(mongod_uri: str) -> None:
    clock = (await _inspect(mongod_uri)).clock
    # A server returns its time in whole milliseconds.
    assert clock.certain_seconds == 0


async def test_without_the_right_to_write_a_note_a_scratch_collection_is_used_and_removed(
    mongod_uri: str, database: str
) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    failpoint = {"configureFailPoint": "failCommand"}
    refused = {"failCommands": ["appendOplogNote"], "errorCode": 13}
    await client.admin.command({**failpoint, "mode": "alwaysOn", "data": refused})
    try:
        report = await _inspect(mongod_uri, database)
    finally:
        await client.admin.command({**failpoint, "mode": "off"})
    assert report.majority_write is not None
    assert report.majority_write.error == ""
    assert await client[database].list_collection_names() == []
    client.close()


async def test_a_write_that_no_majority_acknowledges_is_reported(
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
        report = await _inspect(mongod_uri, database)
    finally:
        await client.admin.command({**failpoint, "mode": "off"})
        client.close()
    assert report.majority_write is not None
    assert "waiting for replication timed out" in report.majority_write.error


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MongodProcess]:
    """Run a mongod with authentication and a user that may only read."""
    folder = tmp_path_factory.mktemp("guarded")
    async with running_mongod(folder, "--auth", standalone=True) as mongod:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod.uri)
        # Any client on the same machine may create the first user, which creates the second.
        await client.admin.command("createUser", "root", pwd="secret", roles=["root"])
        client.close()
        root: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(_as(mongod, "root:secret"))
        reads = {"role": "read", "db": "credit"}
        await root.admin.command("createUser", "reader", pwd="secret", roles=[reads])
        root.close()
        yield mongod


def _as(mongod: MongodProcess, user: str) -> str:
    return mongod.uri.replace("mongodb://", f"mongodb://{user}@")


async def test_information_that_a_user_may_not_read_stays_unknown(guarded: MongodProcess) -> None:
    report = await _inspect(_as(guarded, "reader:secret"))
    assert report.storage_engine is None
    assert report.transaction_lifetime_seconds is None
    assert report.topology is Topology.STANDALONE


async def test_the_privileges_of_a_user_are_reported(guarded: MongodProcess) -> None:
    privileges = (await _inspect(_as(guarded, "reader:secret"))).privileges
    assert privileges is not None
    (ledger,) = [one for one in privileges if (one.database, one.collection) == ("credit", "")]
    assert "find" in ledger.actions
    assert "insert" not in ledger.actions


async def test_the_error_for_an_unknown_user_does_not_contain_the_password(
    guarded: MongodProcess,
) -> None:
    with pytest.raises(StoreMisconfigured, match="rejects the user") as refused:
        await _inspect(_as(guarded, "reader:hidden"))
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("uri", ["http://db", "db1:27017"])
async def test_an_invalid_connection_string_is_rejected(uri: str) -> None:
    with pytest.raises(StoreMisconfigured, match="CREDIT_MONGODB_URI is not valid"):
        await _inspect(uri)
