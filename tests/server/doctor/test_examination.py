"""The whole examination of real stores: healthy, drifted, standalone, away, embedded."""

import json
import re
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bson.int64 import Int64
from credit_models.ledger import Add, Use
from credit_server.commit import Committer
from credit_server.doctor import Finding, Verdict, examine
from credit_server.embedded import EmbeddedMongod, process
from credit_server.http2.limits import ConnectionLimits
from credit_server.settings import ServerSettings
from credit_server.store import schema
from credit_server.store.mongo import MongoStore
from credit_testing.mongod import MongodProcess, running_mongod
from credit_testing.server import migrated, run_credit_server
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import SecretStr

from tests.conftest import StartServer
from tests.server.cancelled_connects import sockets_are_collected

OK, WARNING, FAILS = Verdict.OK, Verdict.WARNING, Verdict.FAILS
LEDGER = "ledger check (sample)"


def _settings(uri: str, database: str, *, timeout_seconds: float = 30.0) -> ServerSettings:
    # A server that is only just starting is waited for by the driver itself.
    return ServerSettings(
        mongodb_uri=SecretStr(uri),
        mongodb_database=database,
        store_timeout_seconds=timeout_seconds,
        port=0,
    )


async def _examine(settings: ServerSettings) -> Mapping[str, Finding]:
    return {finding.check: finding for finding in await examine(settings)}


@pytest.fixture
def settings(mongod_uri: str, migrated_database: str) -> ServerSettings:
    """A migrated database of the tests' mongod."""
    return _settings(mongod_uri, migrated_database)


_ADD = partial(Add, user_id=7, app_id=1, credits=5, created_by=1, key="")
_USE = partial(
    Use,
    user_id=7,
    app_id=1,
    credits=3,
    created_by=1,
    key="",
    report_id="r-81",
    report_name="Traffic",
)


async def _submit(uri: str, database: str, *commands: Callable[..., Add | Use]) -> None:
    store = MongoStore(uri, database=database)
    async with Committer(store) as committer:
        for command in commands:
            ids = {"transaction_id": store.new_id()}
            if command is _USE:
                ids["purchase_id"] = store.new_id()
            await committer.submit(command(**ids))
    await store.close()


async def _add(uri: str, database: str) -> None:
    await _submit(uri, database, _ADD, _ADD, partial(_ADD, user_id=8))


async def test_a_healthy_store_has_no_finding_that_fails(
    settings: ServerSettings, mongod_uri: str, migrated_database: str
) -> None:
    await _add(mongod_uri, migrated_database)
    found = await _examine(settings)
    assert not [finding for finding in found.values() if finding.verdict is FAILS]
    for check in ("store", "topology", "majority write", "durability", "clock", "schema", LEDGER):
        assert found[check].verdict is OK, check
    assert "latest accounts: 2, their latest transactions: 3" in found[LEDGER].found
    assert "apps' totals: 1;" in found[LEDGER].found


async def test_the_database_is_not_changed(
    settings: ServerSettings, mongod_uri: str, migrated_database: str
) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    before = sorted(await client[migrated_database].list_collection_names())
    await _examine(settings)
    assert sorted(await client[migrated_database].list_collection_names()) == before
    client.close()


async def test_a_database_that_was_never_migrated_fails(mongod_uri: str, database: str) -> None:
    found = await _examine(_settings(mongod_uri, database))
    assert found["schema"].verdict is FAILS
    assert found["schema"].remedy == "run: credit-server migrate"
    assert found[LEDGER].verdict is WARNING
    assert "the ledger was not checked: the schema has drifted" in found[LEDGER].found


async def test_drift_is_reported_with_its_remedy(
    settings: ServerSettings, mongod_uri: str, migrated_database: str
) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    await client[migrated_database].command("collMod", schema.PURCHASES, validationAction="warn")
    await client[migrated_database][schema.USER_CREDITS].drop_index("user_id")
    client.close()
    finding = (await _examine(settings))["schema"]
    assert finding.verdict is FAILS
    assert "the index user_id of user_credits is missing" in finding.found
    assert "the validator of purchases does not reject bad documents" in finding.found


async def test_a_schema_of_a_later_release_asks_for_that_release(
    settings: ServerSettings, mongod_uri: str, migrated_database: str
) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    await client[migrated_database][schema.VERSION].update_one({}, {"$set": {"version": Int64(99)}})
    client.close()
    assert (await _examine(settings))["schema"].remedy == "run a later release of credit-server"


async def test_a_version_that_cannot_be_read_is_drift(
    settings: ServerSettings, mongod_uri: str, migrated_database: str
) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    await client[migrated_database].drop_collection(schema.VERSION)
    await client[migrated_database][schema.VERSION].insert_one({"_id": "credit", "version": "one"})
    client.close()
    assert "schema_version cannot be read" in (await _examine(settings))["schema"].found


async def test_a_ledger_that_cannot_be_read_leaves_the_other_findings(
    settings: ServerSettings, mongod_uri: str
) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    failpoint = {"configureFailPoint": "failCommand"}
    namespace = f"{settings.mongodb_database}.{schema.CREDIT_TRANSACTIONS}"
    refused = {"failCommands": ["find"], "errorCode": 72, "namespace": namespace}
    await client.admin.command({**failpoint, "mode": "alwaysOn", "data": refused})
    try:
        found = await _examine(settings)
    finally:
        await client.admin.command({**failpoint, "mode": "off"})
        client.close()
    assert found[LEDGER].verdict is FAILS
    assert found["schema"].verdict is OK


async def test_a_balance_that_another_program_changed_fails(
    settings: ServerSettings, mongod_uri: str, migrated_database: str
) -> None:
    await _add(mongod_uri, migrated_database)
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    await client[migrated_database][schema.USER_CREDITS].update_one(
        {"user_id": 7}, {"$set": {"balances.0.balance": Int64(999)}}
    )
    client.close()
    finding = (await _examine(settings))[LEDGER]
    assert finding.verdict is FAILS
    assert "user 7: sequence 2 left 10 in app 1, not 999" in finding.found


@pytest.mark.parametrize(
    ("collection", "query", "fault"),
    [
        (schema.CREDIT_TRANSACTIONS, {"sequence": 1}, "user 7: the history begins with sequence 2"),
        (schema.CREDIT_TRANSACTIONS, {"sequence": 2}, "user 7: found sequence 1 instead of 2"),
        (schema.CREDIT_TRANSACTIONS, {}, "user 7: there is no history, but 2 transactions"),
        (schema.PURCHASES, {}, "user 7: sequence 2 paid for a purchase that does not exist"),
        (schema.USER_CREDITS, {}, "user 7: there is history but no account"),
    ],
)
async def test_documents_that_another_program_removed_are_found(
    collection: str,
    query: dict[str, int],
    fault: str,
    settings: ServerSettings,
    mongod_uri: str,
    migrated_database: str,
) -> None:
    await _submit(mongod_uri, migrated_database, _ADD, _USE)
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    assert (
        await client[migrated_database][collection].delete_many({"user_id": 7, **query})
    ).deleted_count
    client.close()
    finding = (await _examine(settings))[LEDGER]
    assert finding.verdict is FAILS
    assert fault in finding.found


async def test_a_total_that_another_program_changed_is_found(
    settings: ServerSettings, mongod_uri: str, migrated_database: str
) -> None:
    await _submit(mongod_uri, migrated_database, _ADD, _USE)
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    await client[migrated_database][schema.APP_TOTALS].update_one(
        {"app_id": 1}, {"$inc": {"total": Int64(7)}}
    )
    client.close()
    finding = (await _examine(settings))[LEDGER]
    assert finding.verdict is FAILS
    assert finding.found == "app 1: its total is 9, but its users hold 2"


async def test_a_malformed_document_is_reported_without_a_traceback(
    settings: ServerSettings, mongod_uri: str, migrated_database: str
) -> None:
    await _add(mongod_uri, migrated_database)
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod_uri)
    accounts = client[migrated_database].get_collection(schema.USER_CREDITS)
    await client[migrated_database].command(
        {
            "update": accounts.name,
            "updates": [{"q": {"user_id": 7}, "u": {"$set": {"revision": "two"}}}],
            "bypassDocumentValidation": True,
        }
    )
    client.close()
    finding = (await _examine(settings))[LEDGER]
    assert finding.verdict is FAILS
    assert "user 7: a document cannot be read (AccountDocument: revision)" in finding.found


async def test_a_standalone_fails_by_its_topology(tmp_path: Path, database: str) -> None:
    async with running_mongod(tmp_path, standalone=True) as mongod:
        found = await _examine(_settings(mongod.uri, database))
    assert found["topology"].verdict is FAILS
    assert "--replSet" in found["topology"].remedy


async def test_a_set_that_was_never_initiated_is_reported(tmp_path: Path) -> None:
    mongod = MongodProcess(tmp_path)
    mongod.launch()
    uri = f"mongodb://127.0.0.1:{mongod.port}"
    try:
        asked = (await _examine(_settings(f"{uri}/?directConnection=true", "credit")))["topology"]
        # The driver connects to a set as a whole, and this one is not a set yet.
        away = await _examine(_settings(f"{uri}/?replicaSet=rs0", "credit", timeout_seconds=2))
    finally:
        await mongod.end()
    assert asked.verdict is FAILS
    assert "rs.initiate()" in asked.remedy
    assert away["store"].verdict is FAILS
    assert "was never initiated: run rs.initiate()" in away["store"].found


async def test_a_set_of_another_name_is_reported(mongod_uri: str, database: str) -> None:
    uri = re.sub(r"replicaSet=\w+", "replicaSet=another", mongod_uri)
    assert uri != mongod_uri
    found = await _examine(_settings(uri, database, timeout_seconds=2))
    assert found["store"].verdict is FAILS
    assert "none of them is in a replica set 'another'" in found["store"].found


async def test_a_set_that_has_lost_its_majority_is_checked(tmp_path: Path) -> None:
    async with running_mongod(tmp_path) as mongod:
        await _lose_majority(mongod)
        found = await _examine(_settings(mongod.uri, "credit", timeout_seconds=1.0))
    assert found["topology"].verdict is FAILS
    assert "without a primary" in found["topology"].found
    assert found["members"].verdict is FAILS
    assert "1 of 3 voting members with data are up" in found["members"].found
    assert "schema" not in found
    assert "the ledger was not checked: the store has no schema" in found[LEDGER].found


async def _lose_majority(mongod: MongodProcess) -> None:
    """Make it one of three members, of which two do not exist, and wait until it steps down."""
    uri = f"mongodb://127.0.0.1:{mongod.port}/?directConnection=true"
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(uri)
    configuration = (await client.admin.command("replSetGetConfig"))["config"]
    lost = [{"_id": number, "host": f"127.0.0.1:{number}"} for number in (1, 2)]
    changed = {
        **configuration,
        "version": configuration["version"] + 1,
        "members": [*configuration["members"], *lost],
        "settings": {**configuration["settings"], "electionTimeoutMillis": 200},
    }
    await client.admin.command("replSetReconfig", changed, force=True)
    # The server answers as soon as its topology changes, so this does not poll.
    hello = await client.admin.command("hello")
    while hello["isWritablePrimary"]:
        hello = await client.admin.command(
            "hello", topologyVersion=hello["topologyVersion"], maxAwaitTimeMS=10_000
        )
    client.close()


@sockets_are_collected
async def test_an_unreachable_store_fails_in_one_line(tmp_path: Path) -> None:
    away = MongodProcess(tmp_path)  # never started
    found = await _examine(_settings(away.uri, "credit", timeout_seconds=0.1))
    assert found["store"].verdict is FAILS
    assert f"127.0.0.1:{away.port}: [Errno 111] Connection refused" in found["store"].found
    assert "timeouts" not in found["store"].found
    assert "schema" not in found


async def test_a_malformed_connection_string_fails() -> None:
    assert (await _examine(_settings("http://db", "credit")))["store"].verdict is FAILS


async def test_credentials_and_limits_are_checked(settings: ServerSettings, tmp_path: Path) -> None:
    missing = {"tls_certificate": tmp_path / "missing", "tls_key": tmp_path / "missing"}
    more = {**missing, "connection": ConnectionLimits(connections_max=1_000_000)}
    found = await _examine(settings.model_copy(update=more))
    assert found["TLS certificate"].verdict is FAILS
    assert found["open files"].verdict is WARNING


async def test_faults_that_serve_rejects_or_warns_of_are_found(
    settings: ServerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDIT_PROT", "50052")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        more = {"audit_log": tmp_path / "not" / "x", "metrics_port": taken.getsockname()[1]}
        found = await _examine(settings.model_copy(update=more))
    assert found["audit log"].verdict is FAILS
    assert found["metrics"].verdict is FAILS
    assert found["variables"].verdict is WARNING


async def test_an_embedded_store_that_was_never_started_is_not_created(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    found = await _examine(ServerSettings(data_dir=data_dir, port=0))
    assert {finding.verdict for finding in found.values()} <= {OK, WARNING}
    assert not data_dir.exists()


async def test_a_file_in_place_of_the_data_directory_fails(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.touch()
    found = await _examine(ServerSettings(data_dir=data_dir, port=0))
    assert found["data directory"].verdict is FAILS
    assert found["store"].verdict is FAILS
    assert f"The data directory {data_dir} cannot be used" in found["store"].found


async def test_an_embedded_store_without_a_program_to_run_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(process, "_in_wheel", list[Path])
    found = await _examine(ServerSettings(data_dir=tmp_path / "data", port=0))
    assert found["store"].verdict is FAILS
    assert "no `mongod` was found" in found["store"].found


async def test_an_embedded_store_at_rest_is_started_for_the_examination(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with EmbeddedMongod(data_dir=data_dir) as mongod:
        await migrated(mongod.uri, "credit")
    found = await _examine(ServerSettings(data_dir=data_dir, port=0))
    assert found["schema"].verdict is OK
    assert found["members"].verdict is OK
    assert found["transaction lifetime"].verdict is OK


async def test_an_embedded_store_in_use_is_examined_where_it_runs(
    credit_server_process: StartServer, tmp_path: Path
) -> None:
    server = await credit_server_process()
    ended = await run_credit_server(tmp_path, "doctor", "--json", "--port", str(server.port))
    assert ended.status == 0, ended.output
    report = json.loads(ended.output)
    found = {finding["check"]: finding["verdict"] for finding in report["findings"]}
    assert found["address"] == "ok"
    assert found["schema"] == "ok"
    assert found["majority write"] == "ok"
