"""Test `credit-server serve`: its start, its output, its errors at the start, and its end."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path

import pytest
from credit_client import ClientSettings, CreditClient, Receipt, Unavailable
from credit_server.app import SECOND_SIGNAL_SECONDS
from credit_server.embedded import EmbeddedMongod
from credit_testing.calls import SERVICE, call_headers
from credit_testing.certificates import private_key, private_pem
from credit_testing.child import gone, is_alive
from credit_testing.http2_client import Connection
from credit_testing.mongod import embedded_mongod_pid, running_mongod
from credit_testing.ports import lasting_port
from credit_testing.server import Ended, ServerProcess, run_credit_server, running_server

from tests.conftest import StartServer
from tests.e2e.failpoint import blocked_commits
from tests.ipv6 import HAS_IPV6
from tests.server.doctor.credential_files import certificate, written
from tests.server.store.old_schemas import make_schema_1

USER, APP, CREDITS = 7, 1, 120
CALLERS = 16


@pytest.fixture(scope="module")
async def embedded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """Run a server as `make serve` starts it, on another port."""
    async with running_server(tmp_path_factory.mktemp("embedded"), forked=False) as server:
        yield server


async def test_the_banner_names_the_address_the_data_and_how_to_stop(
    embedded: ServerProcess,
) -> None:
    first, store, http2, scrape, stop, line_to_try = embedded.banner.splitlines()
    assert first == (
        f"credit-server listens on 127.0.0.1:{embedded.port}"
        " (no TLS, no identities, open to all of this machine)"
    )
    assert store == f"  store  embedded mongod, data in {embedded.folder / '.credit-data'}"
    assert http2 == "  http2  nghttp2"
    assert re.fullmatch(r"  scrape http://127\.0\.0\.1:\d+/metrics", scrape)
    assert stop == "  stop   Ctrl-C or SIGTERM"
    assert embedded.address in line_to_try


async def test_the_example_in_the_banner_works(embedded: ServerProcess) -> None:
    command, *arguments = shlex.split(embedded.banner.partition("  try    ")[2])
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name(command),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_a_second_server_on_the_same_data_does_not_start(embedded: ServerProcess) -> None:
    ended = await run_credit_server(embedded.folder, "serve", "--port", "0")
    directory = str(embedded.folder / ".credit-data")
    _assert_refused(ended, 1, directory, f"process {embedded.pid}", "CREDIT_DATA_DIR")
    assert (await _add(embedded.address)).balance >= CREDITS


async def test_its_mongod_stops_too_and_the_data_survive_a_restart(
    tmp_path: Path, credit_server_process: StartServer
) -> None:
    data_dir = tmp_path / "ledger"
    server = await credit_server_process("--data-dir", str(data_dir))
    receipt = await _add(server.address)
    mongod = embedded_mongod_pid(data_dir)
    assert await server.stop(signal.SIGINT) == 0
    assert not is_alive(mongod)
    again = await credit_server_process("--data-dir", str(data_dir))
    async with CreditClient(again.address) as client:
        (entry,) = [entry async for entry in client.transactions(user_id=USER)]
        assert (entry.id, entry.balance_after) == (receipt.transaction_id, receipt.balance)
        assert await client.balance(app_id=APP, user_id=USER) == receipt.balance
    mongod = embedded_mongod_pid(data_dir)
    assert await again.stop(signal.SIGTERM) == 0
    assert not is_alive(mongod)


async def test_a_second_signal_ends_it_at_once_and_quietly(
    tmp_path: Path, credit_server_process: StartServer
) -> None:
    server = await credit_server_process()
    mongod = os.pidfd_open(embedded_mongod_pid(tmp_path / ".credit-data"))
    async with _unfinished_call(server.port):
        server.send(signal.SIGTERM)
        await server.logged(lambda line: line.get("event") == "stopping")
        await asyncio.sleep(SECOND_SIGNAL_SECONDS)
        assert await server.stop(signal.SIGINT) == 130
    await gone(mongod)
    assert "Traceback" not in server.stderr.read_text()


@contextlib.asynccontextmanager
async def _unfinished_call(port: int) -> AsyncIterator[None]:
    """Delay the end of a server with a call whose request never ends."""
    async with Connection.connect(port) as wire:
        wire.begin(call_headers(f"{SERVICE}GetAppBalance"), end=False)
        await wire.in_order()
        yield


async def test_a_signal_that_comes_twice_within_milliseconds_counts_once(
    store_options: list[str], credit_server_process: StartServer
) -> None:
    server = await credit_server_process(*store_options, "--grace-seconds", "2")
    async with _unfinished_call(server.port):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            server.send(number)
        assert await server.wait() == 0
    events = [json.loads(line).get("event") for line in server.stderr.read_text().splitlines()]
    assert events[-1] == "stopped"
    assert "stopped at once, by a second signal" not in events


async def test_readiness_ends_with_the_first_signal(
    store_options: list[str], credit_server_process: StartServer
) -> None:
    server = await credit_server_process(*store_options)
    (scraped,) = re.findall(r"http://(\S+)/metrics", server.banner)
    assert await _status(scraped, "/readyz") == 200
    async with _unfinished_call(server.port):
        server.send(signal.SIGTERM)
        await server.logged(lambda line: line.get("event") == "stopping")
        assert await _status(scraped, "/readyz") == 503
        assert await _status(scraped, "/healthz") == 200
    assert await server.wait() == 0


async def _status(address: str, path: str) -> int:
    def ask() -> int:
        connection = HTTPConnection(address, timeout=60)
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
        return status

    return await asyncio.to_thread(ask)


async def test_a_server_whose_certificate_has_ended_starts_and_warns(
    tmp_path: Path, store_options: list[str], credit_server_process: StartServer
) -> None:
    key = private_key()
    now = datetime.now(UTC)
    ended = certificate(key, begins=now - timedelta(days=9), ends=now - timedelta(days=1))
    server = await credit_server_process(
        *store_options,
        *("--tls-certificate", str(written(tmp_path / "server.pem", ended))),
        *("--tls-key", str(written(tmp_path / "server.key", private_pem(key)))),
    )
    await server.logged(lambda line: "certificate has expired" in line["event"])
    (scraped,) = re.findall(r"http://(\S+)/metrics", server.banner)
    shown = await asyncio.to_thread(_metrics, scraped)
    (days,) = re.findall(
        r"^credit_certificate_days_left\{.*server\.pem.*\} (\S+)$", shown, re.MULTILINE
    )
    assert -2 < float(days) < 0
    assert await server.stop(signal.SIGTERM) == 0


def _metrics(address: str) -> str:
    connection = HTTPConnection(address, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


async def test_a_killed_server_leaves_no_mongod_behind(
    tmp_path: Path, credit_server_process: StartServer
) -> None:
    server = await credit_server_process()
    mongod = os.pidfd_open(embedded_mongod_pid(tmp_path / ".credit-data"))
    assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
    await gone(mongod)


async def test_a_port_in_use_is_reported(tmp_path: Path, store_options: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ended = await run_credit_server(tmp_path, "serve", "--port", port, *store_options)
    _assert_refused(ended, 1, f"Cannot listen on 127.0.0.1 port {port}", "--port")


async def test_a_standalone_mongod_is_rejected_with_the_remedy(tmp_path: Path) -> None:
    async with running_mongod(tmp_path, standalone=True) as mongod:
        ended = await run_credit_server(
            tmp_path, "serve", "--port", "0", "--mongodb-uri", mongod.uri
        )
    _assert_refused(ended, 1, "standalone", "--replSet")


async def test_a_database_is_rejected_until_it_is_migrated(
    tmp_path: Path, mongod_uri: str, database: str, credit_server_process: StartServer
) -> None:
    options = ["--mongodb-uri", mongod_uri, "--mongodb-database", database]
    ended = await run_credit_server(tmp_path, "serve", "--port", "0", *options)
    _assert_refused(ended, 1, f"'{database}'", "credit-server migrate")
    ended = await run_credit_server(tmp_path, "migrate", *options)
    assert (ended.status, ended.errors) == (0, "")
    assert database in ended.output
    server = await credit_server_process(*options)
    assert (await _add(server.address)).sequence == 1


async def test_a_database_of_release_0_1_0_is_served_once_it_is_migrated(
    tmp_path: Path, mongod_uri: str, database: str, credit_server_process: StartServer
) -> None:
    await make_schema_1(mongod_uri, database)
    options = ["--mongodb-uri", mongod_uri, "--mongodb-database", database]
    ended = await run_credit_server(tmp_path, "serve", "--port", "0", *options)
    _assert_refused(ended, 1, "has version 1, this server needs 4", "credit-server migrate")
    ended = await run_credit_server(tmp_path, "migrate", *options)
    assert (ended.status, ended.output) == (0, f"the database '{database}' has schema version 4\n")
    await _assert_upgraded(await credit_server_process(*options))


async def test_embedded_data_of_release_0_1_0_are_migrated_at_the_start(
    tmp_path: Path, credit_server_process: StartServer
) -> None:
    async with EmbeddedMongod(data_dir=tmp_path / ".credit-data") as mongod:
        await make_schema_1(mongod.uri, "credit")
    await _assert_upgraded(await credit_server_process())


async def _assert_upgraded(server: ServerProcess) -> None:
    """Check that old entries and keys exist, and that an old key is free in another app."""
    async with CreditClient(server.address) as client:
        old, new = [
            await client.add(
                user_id=7, app_id=app, credits=100, created_by=9, idempotency_key="order-4711"
            )
            for app in (1, 2)
        ]
        sequences = [entry.sequence async for entry in client.transactions(user_id=7)]
    assert (old.replayed, old.sequence) == (True, 1)
    assert (new.replayed, new.sequence) == (False, 5)
    assert sequences == [1, 2, 3, 4, 5]


async def test_an_unreachable_mongodb_is_reported(tmp_path: Path) -> None:
    address = f"127.0.0.1:{lasting_port()}"
    uri = tmp_path / "uri"
    uri.write_text(f"mongodb://user:secret@{address}/?replicaSet=nowhere\n")
    options = ["--mongodb-uri-file", str(uri), "--store-timeout-seconds", "0.5"]
    ended = await run_credit_server(tmp_path, "serve", "--port", "0", *options)
    _assert_refused(ended, 1, "MongoDB", address)
    assert "secret" not in ended.errors
    assert "<" not in ended.errors, "the driver's description of its state is no sentence"


async def test_an_invalid_connection_string_is_reported(tmp_path: Path) -> None:
    ended = await run_credit_server(tmp_path, "serve", "--port", "0", "--mongodb-uri", "nonsense")
    _assert_refused(ended, 1, "CREDIT_MONGODB_URI")


async def test_an_address_that_others_can_reach_requires_the_option_insecure(
    tmp_path: Path, store_options: list[str], credit_server_process: StartServer
) -> None:
    ended = await run_credit_server(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0")
    _assert_refused(ended, 2, "0.0.0.0", "--insecure")
    server = await credit_server_process("--host", "0.0.0.0", "--insecure", *store_options)
    assert (await _add(f"127.0.0.1:{server.port}")).sequence == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["serve", "--port", "70000"], "--port (CREDIT_PORT)"),
        (["serve", "--colour", "red"], "--colour"),
        (["sevre"], "'sevre'"),
    ],
)
async def test_a_usage_error_is_one_sentence(
    tmp_path: Path, arguments: list[str], named: str
) -> None:
    ended = await run_credit_server(tmp_path, *arguments)
    assert ended.status == 2
    assert named in ended.output + ended.errors
    assert "Traceback" not in ended.errors


async def test_settings_may_come_from_the_environment(
    mongod_uri: str, migrated_database: str, credit_server_process: StartServer
) -> None:
    host, shown = ("::1", "[::1]") if HAS_IPV6 else ("127.0.0.1", "127.0.0.1")
    server = await credit_server_process(
        CREDIT_HOST=host, CREDIT_MONGODB_URI=mongod_uri, CREDIT_MONGODB_DATABASE=migrated_database
    )
    hosts = mongod_uri.removeprefix("mongodb://").partition("/")[0]
    assert server.address == f"{shown}:{server.port}"
    assert f"  store  MongoDB {hosts}, database {migrated_database}\n" in server.banner
    assert (await _add(server.address)).sequence == 1


async def test_every_call_is_one_line_of_json(
    store_options: list[str], credit_server_process: StartServer
) -> None:
    server = await credit_server_process(*store_options)
    async with CreditClient(server.address) as client:
        await client.add(user_id=USER, app_id=APP, credits=5, created_by=1)
        assert await client.balance(app_id=APP) == 5
        assert [entry.credits async for entry in client.transactions(user_id=USER)] == [5]
    assert await server.stop() == 0
    calls = [line for line in server.log if line["event"] == "call"]
    assert [(line["method"], line["status"]) for line in calls] == [
        ("/credit.v1.CreditService/AddCredits", "OK"),
        ("/credit.v1.CreditService/GetAppBalance", "OK"),
        ("/credit.v1.CreditService/ListUserTransactions", "OK"),
    ]
    assert len({line["request_id"] for line in calls}) == len(calls)
    assert all(line["milliseconds"] > 0 for line in calls)


async def test_a_running_call_is_answered_at_the_end_and_a_new_one_finds_no_server(
    mongod_uri: str, store_options: list[str], credit_server_process: StartServer
) -> None:
    server = await credit_server_process(*store_options)
    once = ClientSettings(target=server.address, retry_attempts_max=1, channels=1)
    async with CreditClient(settings=once) as client:
        async with blocked_commits(mongod_uri) as blocked:
            running = asyncio.create_task(
                client.add(user_id=USER, app_id=APP, credits=5, created_by=1)
            )
            await blocked.met()
            server.send(signal.SIGTERM)
            await server.logged(lambda line: line["event"] == "stopping")
            with pytest.raises(Unavailable, match="refused"):
                await _read_until_it_fails(client)
            assert not running.done()
        assert (await running).balance == 5
    assert await server.wait() == 0


async def _read_until_it_fails(client: CreditClient) -> None:
    while True:  # calls that cross the GOAWAY are served
        await client.balance(app_id=APP)


async def test_a_client_that_reads_the_last_answer_with_the_goaway_gets_it(
    mongod_uri: str, store_options: list[str], credit_server_process: StartServer
) -> None:
    server = await credit_server_process(*store_options)
    once = ClientSettings(target=server.address, retry_attempts_max=1)
    async with CreditClient(settings=once) as client, blocked_commits(mongod_uri) as blocked:
        running = asyncio.create_task(client.add(user_id=USER, app_id=APP, credits=5, created_by=1))
        await blocked.met()
        server.send(signal.SIGTERM)
        assert server.wait_standing_still() == 0
        assert (await running).balance == 5


async def test_a_stop_under_load_loses_no_acknowledged_write(
    store_options: list[str], credit_server_process: StartServer
) -> None:
    server = await credit_server_process(*store_options)
    settings = ClientSettings(target=server.address, retry_attempts_max=1)
    receipts: list[Receipt] = []
    under_load = asyncio.Event()

    async def call(client: CreditClient, user: int) -> None:
        while True:
            try:
                receipt = await client.add(user_id=user, app_id=APP, credits=1, created_by=1)
            except Unavailable:
                return
            receipts.append(receipt)
            if len(receipts) >= 10 * CALLERS:
                under_load.set()

    async with CreditClient(settings=settings) as client, asyncio.TaskGroup() as callers:
        for user in range(1, CALLERS + 1):
            callers.create_task(call(client, user))
        await under_load.wait()
        assert await server.stop(signal.SIGTERM) == 0
    assert {line["status"] for line in server.log if line["event"] == "call"} <= {
        "OK",
        "UNAVAILABLE",
    }
    again = await credit_server_process(*store_options)
    async with CreditClient(again.address) as client:
        kept = {
            entry.id
            for user in range(1, CALLERS + 1)
            async for entry in client.transactions(user_id=user)
        }
        assert {receipt.transaction_id for receipt in receipts} <= kept
        assert await client.balance(app_id=APP) == len(kept)


def _assert_refused(ended: Ended, status: int, *named: str) -> None:
    """Check that the server ended with the status, and printed the reason and nothing else."""
    assert ended.status == status, ended
    assert ended.output == ""
    assert ended.errors.startswith("credit-server: ") or status == 2
    assert "Traceback" not in ended.errors
    for word in named:
        assert word in ended.errors


async def _add(address: str) -> Receipt:
    async with CreditClient(address) as client:
        return await client.add(user_id=USER, app_id=APP, credits=CREDITS, created_by=1)
