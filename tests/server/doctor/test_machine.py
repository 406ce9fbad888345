"""The machine's address, directory and limits, judged from facts and from the real thing."""

import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from credit_server.doctor.finding import Verdict
from credit_server.doctor.machine import (
    DirectoryFacts,
    check_address,
    check_data_directory,
    check_open_files,
    check_settings,
)
from credit_server.settings import ServerSettings
from credit_testing.certificates import private_key, private_pem
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.server import Server

from tests.server.doctor.naming import CreditService
from tests.server.doctor.papers import certificate, written

GIGABYTE = 1_000_000_000
WELL = DirectoryFacts(path=Path("/data"), mode=0o700, writable=True, free_bytes=50 * GIGABYTE)


@pytest.mark.parametrize(
    ("facts", "verdicts"),
    [
        (WELL, [Verdict.OK, Verdict.OK]),
        (replace(WELL, mode=None), [Verdict.OK, Verdict.OK]),
        (replace(WELL, mode=0o750), [Verdict.WARNING, Verdict.OK]),
        (replace(WELL, mode=0o705), [Verdict.WARNING, Verdict.OK]),
        (replace(WELL, writable=False), [Verdict.FAILS, Verdict.OK]),
        (replace(WELL, free_bytes=GIGABYTE), [Verdict.OK, Verdict.WARNING]),
        (replace(WELL, free_bytes=GIGABYTE // 10), [Verdict.OK, Verdict.FAILS]),
    ],
)
def test_a_data_directory_is_private_writable_and_on_a_disk_with_space(
    facts: DirectoryFacts, verdicts: list[Verdict]
) -> None:
    assert [finding.verdict for finding in check_data_directory(facts)] == verdicts


def test_facts_of_a_directory_that_is_not_there_are_its_parents(tmp_path: Path) -> None:
    facts = DirectoryFacts.of(tmp_path / "not" / "there")
    assert facts.path == tmp_path / "not" / "there"
    assert facts.mode is None
    assert facts.writable
    assert facts.free_bytes > 0
    assert not (tmp_path / "not").exists()


def test_facts_of_a_directory_have_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    assert DirectoryFacts.of(tmp_path / "data").mode == 0o755


@pytest.mark.parametrize(
    ("limit", "verdict"), [(10_000, Verdict.OK), (1200, Verdict.OK), (1199, Verdict.WARNING)]
)
def test_a_process_may_open_more_files_than_connections(limit: int, verdict: Verdict) -> None:
    assert check_open_files(limit, connections_max=1000).verdict is verdict


def test_insecure_beyond_loopback_is_a_warning() -> None:
    assert check_settings(ServerSettings(insecure=True, host="0.0.0.0")).verdict is Verdict.WARNING
    assert check_settings(ServerSettings(insecure=True)).verdict is Verdict.OK


async def test_a_free_port_is_ok() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    finding = await check_address("127.0.0.1", port)
    assert finding.verdict is Verdict.OK
    assert finding.found.endswith("is free")


async def test_any_port_is_ok() -> None:
    assert (await check_address("127.0.0.1", 0)).verdict is Verdict.OK


async def test_an_address_of_another_machine_fails() -> None:
    # From the range that is kept for documents: RFC 5737.
    assert (await check_address("192.0.2.1", 50051)).verdict is Verdict.FAILS


async def test_a_port_of_another_program_is_a_warning() -> None:
    server = Server([])  # answers that it knows no such method
    await server.start("127.0.0.1", 0)
    finding = await check_address("127.0.0.1", _port(server))
    server.close()
    await server.wait_closed()
    assert finding.verdict is Verdict.WARNING
    assert "does not report its health" in finding.found


async def test_a_socket_is_examined_like_a_port(tmp_path: Path) -> None:
    host = f"unix:{tmp_path / 'credit.sock'}"
    free = await check_address(host, 50051)
    assert (free.verdict, free.found.endswith("credit.sock is free")) == (Verdict.OK, True)
    status = ServiceStatus()
    status.set(True)
    service = CreditService()
    server = Server([service, Health({service: [status], OVERALL: [status]})])
    await server.start(path=str(tmp_path / "credit.sock"))
    served = await check_address(host, 50051)
    server.close()
    await server.wait_closed()
    assert served.verdict is Verdict.OK
    assert served.found.endswith("credit.sock and serves")
    fails = await check_address(f"unix:{tmp_path / 'missing' / 'credit.sock'}", 50051)
    assert fails.verdict is Verdict.FAILS


@pytest.mark.parametrize(("serving", "verdict"), [(True, Verdict.OK), (False, Verdict.WARNING)])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_port_of_a_credit_server_is_told_by_its_health(
    serving: bool, verdict: Verdict, tls: bool, tmp_path: Path
) -> None:
    status = ServiceStatus()
    status.set(serving)
    service = CreditService()
    server = Server([service, Health({service: [status], OVERALL: [status]})])
    await server.start("127.0.0.1", 0, ssl=_tls(tmp_path) if tls else None)
    finding = await check_address("127.0.0.1", _port(server), tls=tls)
    server.close()
    await server.wait_closed()
    assert finding.verdict is verdict
    assert finding.found.startswith("a credit-server listens")


def _tls(folder: Path) -> ssl.SSLContext:
    key = private_key()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(
        written(folder / "server.pem", certificate(key)),
        written(folder / "server.key", private_pem(key)),
    )
    context.set_alpn_protocols(["h2"])
    return context


def _port(server: Server) -> int:
    assert server._server is not None
    port: int = server._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined] # asyncio's own has it
    return port
