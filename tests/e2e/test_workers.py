"""Test a real server with several workers: its connections, metrics, deaths, restarts and stop."""

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from credit_client import ClientSettings, CreditClient
from credit_models import AppId, CreditRequest, Empty
from credit_models.codec import encode
from credit_server.app import SECOND_SIGNAL_SECONDS
from credit_server.development.certificate import key_of, make_certificates
from credit_testing.calls import SERVICE, call_headers, framed
from credit_testing.child import descendants, gone
from credit_testing.http2_client import Connection
from credit_testing.server import PATIENT, LogLine, ServerProcess, migrated, run_credit_server
from grpclib.const import Status

from tests.conftest import StartServer
from tests.e2e.audit import audit, read_ledger
from tests.e2e.failpoint import blocked_commits
from tests.e2e.scrape import Samples, scrape
from tests.e2e.workload import APPS, USERS, Journal, Workload, operations

CLIENTS = 4
OPERATIONS_OF_EACH = 150
ADD = SERVICE + "AddCredits"


def _workers(server: ServerProcess) -> list[int]:
    """Return the processes of the workers of a server without an embedded mongod."""
    return list(descendants(server.pid))


def _serves(line: LogLine) -> bool:
    return line.get("event") == "serving" and "worker" in line


def _restarted(line: LogLine) -> bool:
    return line.get("event") == "all workers were restarted"


async def _balance(wire: Connection) -> None:
    answer = await wire.call("GetAppBalance", AppId(app_id=1, user_id=7))
    assert answer.status is Status.OK


async def test_workers_share_the_connections_and_restart_and_stop_without_a_failed_call(
    seed: int, mongod_uri: str, store_options: list[str], credit_server_process: StartServer
) -> None:
    server = await credit_server_process(*store_options, *PATIENT, "--workers", "2")
    assert "  work   2 workers" in server.banner
    first = _workers(server)
    await _each_serves_half(server)
    before = await scrape(server)
    await _restarts_under_load(server, seed, mongod_uri)
    assert not set(first) & set(_workers(server))
    after = await scrape(server)
    _assert_no_total_decreases(before, after)
    assert after["credit_workers_replaced_total", frozenset()] == 0
    for code in ("Unavailable", "Internal", "Unknown"):
        assert _handled(after, code) == 0
    await _drains(server, mongod_uri)


async def _each_serves_half(server: ServerProcess) -> None:
    """Open connections, and find each worker with half of them, and their calls added up."""
    async with AsyncExitStack() as connections:
        for _ in range(8):
            await _balance(await connections.enter_async_context(Connection.connect(server.port)))
        await server.logged(lambda line: line["event"] == "call", times=8)
        by_worker = Counter(line["worker"] for line in server.log if line["event"] == "call")
        assert by_worker == {1: 4, 2: 4}
        samples = await scrape(server)
    assert _handled(samples, "OK") == 8
    assert samples["credit_connections", frozenset()] == 8
    assert samples["credit_store_healthy", frozenset()] == 1
    assert samples["credit_workers", frozenset()] == 2
    assert not [name for name, _ in samples if name.endswith("_created")]


async def _restarts_under_load(server: ServerProcess, seed: int, uri: str) -> None:
    """Restart the workers while clients write that do not retry."""
    journal, workloads = Journal(), []
    settings = ClientSettings(target=server.address, retry_attempts_max=1)
    async with AsyncExitStack() as clients, asyncio.TaskGroup() as callers:
        for number in range(CLIENTS):
            client = await clients.enter_async_context(CreditClient(settings=settings))
            workload = Workload(client, operations(seed + number, OPERATIONS_OF_EACH))
            workload.journal = journal
            workloads.append(workload)
            callers.create_task(workload.run())
        await journal.acknowledged(CLIENTS * OPERATIONS_OF_EACH // 8)
        server.send(signal.SIGHUP)
        await server.logged(_restarted)
    await _assert_audited(server, journal, workloads, uri)


async def _drains(server: ServerProcess, uri: str) -> None:
    """Stop the server while each worker has a call that waits for its commit."""
    workers = [os.pidfd_open(pid) for pid in _workers(server)]
    async with AsyncExitStack() as connections:
        wires = [
            await connections.enter_async_context(Connection.connect(server.port)) for _ in range(4)
        ]
        async with blocked_commits(uri) as blocked:
            running = []
            for user, wire in enumerate(wires):
                add = CreditRequest(user_id=user + 1, app_id=1, credits=5, created_by=9)
                running.append(wire.begin(call_headers(ADD), framed(encode(add)))[1])
            await blocked.met()
            server.send(signal.SIGTERM)
            for wire in wires:
                await wire.received_goaways(1)
        for wire, answer in zip(wires, running, strict=True):
            assert (await wire.ended(answer)).message(Empty) == Empty()
            await wire.closed.wait()
    assert await server.wait() == 0
    for worker in workers:
        await gone(worker)


async def test_a_killed_worker_is_replaced_and_a_killed_supervisor_leaves_no_worker(
    seed: int, mongod_that_forgets: str, tmp_path: Path, credit_server_process: StartServer
) -> None:
    store = await migrated(mongod_that_forgets, "killed_worker")
    log = tmp_path / "audit.json"
    server = await credit_server_process(
        *store, *PATIENT, "--workers", "2", "--audit-log", str(log), "--log-level", "info"
    )
    rotated = tmp_path / "audit.json.1"
    journal = await _survives_the_death_of_a_worker(server, seed, mongod_that_forgets, log, rotated)
    lines = [*log.read_text().splitlines(), *rotated.read_text().splitlines()]
    audited = {json.loads(line).get("transaction_id") for line in lines}
    receipts = [receipt for each in journal.receipts.values() for receipt in each]
    assert {receipt.transaction_id for receipt in receipts} <= audited

    workers = [os.pidfd_open(pid) for pid in _workers(server)]
    async with Connection.connect(server.port) as wire:
        await _balance(wire)
        server.send(signal.SIGKILL)
        await wire.received_goaways(1)
        with socket.create_server(("127.0.0.1", server.port)):
            pass  # the port is free although the workers still drain
    for worker in workers:
        await gone(worker)
    assert await server.wait() == -signal.SIGKILL


async def _survives_the_death_of_a_worker(
    server: ServerProcess, seed: int, uri: str, log: Path, rotated: Path
) -> Journal:
    """Kill a worker while clients write, and rotate the audit log; return what they received."""
    journal, workloads, serving = Journal(), [], asyncio.Event()
    serving.set()  # clients continue after an error
    async with AsyncExitStack() as clients, asyncio.TaskGroup() as callers:
        for number in range(CLIENTS):
            client = await clients.enter_async_context(CreditClient(server.address))
            workload = Workload(client, operations(seed + number, OPERATIONS_OF_EACH))
            workload.journal, workload.serving = journal, serving
            workloads.append(workload)
            callers.create_task(workload.run())
        await journal.acknowledged(CLIENTS * OPERATIONS_OF_EACH // 8)
        before = await scrape(server)
        os.rename(log, rotated)  # noqa: PTH104 - a test may wait for a file
        os.kill(_workers(server)[0], signal.SIGKILL)
        await server.logged(_serves, times=3)
    after = await scrape(server)
    _assert_no_total_decreases(before, after)
    assert after["credit_workers_replaced_total", frozenset()] == 1
    await _assert_audited(server, journal, workloads, uri)
    return journal


async def test_the_workers_share_one_embedded_mongod_and_a_second_signal_ends_all_at_once(
    credit_server_process: StartServer,
) -> None:
    server = await credit_server_process("--workers", "2")
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(server.pid)]  # noqa: ASYNC240
    assert len([command for command in commands if b"--replSet" in command]) == 1
    processes = [os.pidfd_open(pid) for pid in descendants(server.pid)]
    async with Connection.connect(server.port) as wire:
        await _balance(wire)
        wire.begin(call_headers(f"{SERVICE}GetAppBalance"), end=False)
        await wire.in_order()
        server.send(signal.SIGTERM)
        await server.logged(lambda line: line["event"] == "stopping" and "worker" not in line)
        await asyncio.sleep(SECOND_SIGNAL_SECONDS)
        assert await server.stop(signal.SIGINT) == 130
    for process in processes:
        await gone(process)
    assert "Traceback" not in server.stderr.read_text()


async def test_workers_serve_tls_on_one_unix_domain_socket(
    tmp_path: Path, store_options: list[str], credit_server_process: StartServer
) -> None:
    path = tmp_path / "credit.sock"
    made = make_certificates(tmp_path / "certificates", client="shop", days=1)
    files = ("--tls-certificate", str(made.server), "--tls-key", str(key_of(made.server)))
    server = await credit_server_process(
        "--host", f"unix:{path}", *store_options, *files, "--workers", "2"
    )
    with socket.socket(socket.AF_UNIX) as stranger:  # to the first worker
        stranger.connect(str(path))
        stranger.send(b"no TLS at all, but enough bytes for a record")
        settings = ClientSettings(target=server.address, tls_ca=made.ca)
        async with AsyncExitStack() as clients:
            for _ in range(3):
                client = CreditClient(settings=settings)
                await clients.enter_async_context(client)
                assert await client.balance(app_id=1, user_id=7) == 0
    line = await server.logged(lambda line: line.get("reason") == "TLS handshake")
    assert line["worker"] in (1, 2)
    served = {line["worker"] for line in server.log if line["event"] == "call"}
    assert served == {1, 2}
    assert await server.stop() == 0
    assert not path.exists()


async def test_the_error_of_a_worker_that_cannot_start_is_printed_once(
    tmp_path: Path, mongod_uri: str, database: str
) -> None:
    store = ("--mongodb-uri", mongod_uri, "--mongodb-database", database)
    ended = await run_credit_server(tmp_path, "serve", "--port", "0", *store, "--workers", "2")
    assert ended.status == 1
    assert ended.errors.count("credit-server migrate") == 1
    assert ended.errors.startswith("credit-server: ")
    assert "Traceback" not in ended.errors


async def _assert_audited(
    server: ServerProcess, journal: Journal, workloads: list[Workload], uri: str
) -> None:
    async with CreditClient(server.address) as client:
        view = await read_ledger(client, USERS, APPS)
    sent = [operation for workload in workloads for operation in workload.operations]
    assert audit(view, sent, journal, uri=uri, calm=False) == []


def _assert_no_total_decreases(before: Samples, after: Samples) -> None:
    for (name, labels), value in before.items():
        if name.endswith(("_total", "_count", "_sum", "_bucket")):
            assert after[name, labels] >= value, name


def _handled(samples: Samples, code: str) -> float:
    """Return how many calls ended with a code, without the streams that a drain ends."""
    return sum(
        value
        for (name, labels), value in samples.items()
        if name == "grpc_server_handled_total"
        and ("grpc_code", code) in labels
        and ("grpc_method", "Write") not in labels
    )
