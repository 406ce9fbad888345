"""The machine that a server would run on: addresses, limits, folders, and the audit log's file."""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from credit_server.doctor.machine import (
    check_address,
    check_audit_log,
    check_data_directory,
    check_disk,
    check_metrics,
    check_open_files,
    check_settings,
    check_variables,
    check_workers,
)
from credit_server.doctor.report import Finding, Verdict
from credit_server.doctor.subject import DataDirectory, Subject, read_addresses
from credit_server.http2.limits import ConnectionLimits
from credit_server.settings import ServerSettings
from credit_server.telemetry import Telemetry, exposed
from credit_testing.certificates import private_key, private_pem
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.server import Server

from tests.server.doctor.credential_files import NOW, certificate, written
from tests.server.doctor.naming import CreditService
from tests.server.doctor.subject import subject_of

GIGABYTE = 1_000_000_000
WELL = DataDirectory(path=Path("/data"), mode=0o700, writable=True, free_bytes=50 * GIGABYTE)


async def _address(host: str, port: int, *, tls: bool = False) -> Finding:
    certificate = Path("server.pem") if tls else None
    settings = {"host": host, "port": port, "tls_certificate": certificate, "metrics": False}
    (finding,) = check_address(await read_addresses(subject_of(settings)))
    return finding


async def _metrics(settings: ServerSettings) -> Finding:
    subject = Subject(settings=settings, now=NOW, open_files_max=10_000, cpus=2)
    (finding,) = check_metrics(await read_addresses(subject))
    return finding


def _audit_log(path: Path) -> Finding:
    (finding,) = check_audit_log(subject_of({"audit_log": path}))
    return finding


@pytest.mark.parametrize(
    ("directory", "verdicts"),
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
    directory: DataDirectory, verdicts: list[Verdict]
) -> None:
    subject = subject_of(data_directory=directory)
    findings = [*check_data_directory(subject), *check_disk(subject)]
    assert [finding.verdict for finding in findings] == verdicts


def test_a_disk_with_little_space_is_named_with_the_space_that_mongod_needs() -> None:
    directory = replace(WELL, free_bytes=57_400_000)
    (finding,) = check_disk(subject_of(data_directory=directory))
    assert finding.found == "57 MB are free on the disk of /data"
    assert "starts again in a running server when 128 MB are free" in finding.remedy


def test_a_directory_that_does_not_exist_is_as_writable_as_its_parent(tmp_path: Path) -> None:
    directory = DataDirectory.of(tmp_path / "not" / "there")
    assert directory.path == tmp_path / "not" / "there"
    assert directory.mode is None
    assert directory.writable
    assert directory.free_bytes > 0
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("kind", ["a link to itself", "a file"])
def test_what_is_no_directory_is_not_writable(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    if kind == "a file":
        path.touch()
    else:
        path.symlink_to(path)
    for each in (path, path / "below"):
        assert not DataDirectory.of(each).writable


def test_a_directory_is_read_with_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    assert DataDirectory.of(tmp_path / "data").mode == 0o755


@pytest.mark.parametrize(
    ("limit", "verdict"), [(10_000, Verdict.OK), (1200, Verdict.OK), (1199, Verdict.WARNING)]
)
def test_a_process_may_open_more_files_than_connections(limit: int, verdict: Verdict) -> None:
    subject = subject_of(
        {"connection": ConnectionLimits(connections_max=1000)}, open_files_max=limit
    )
    (finding,) = check_open_files(subject)
    assert finding.verdict is verdict


def test_each_worker_opens_its_part_of_the_connections() -> None:
    settings = {"connection": ConnectionLimits(connections_max=4000), "workers": 4}
    (finding,) = check_open_files(subject_of(settings, open_files_max=1200))
    assert finding.verdict is Verdict.OK


@pytest.mark.parametrize(
    ("workers", "verdict"), [(1, Verdict.OK), (2, Verdict.OK), (3, Verdict.WARNING)]
)
def test_there_is_a_cpu_for_each_worker(workers: int, verdict: Verdict) -> None:
    (finding,) = check_workers(subject_of({"workers": workers}, cpus=2))
    assert finding.verdict is verdict


def test_insecure_beyond_loopback_is_a_warning() -> None:
    (exposed,) = check_settings(subject_of({"insecure": True, "host": "0.0.0.0"}))
    assert exposed.verdict is Verdict.WARNING
    (local,) = check_settings(subject_of({"insecure": True}))
    assert local.verdict is Verdict.OK


async def test_a_free_port_is_ok() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    finding = await _address("127.0.0.1", port)
    assert finding.verdict is Verdict.OK
    assert finding.found.endswith("is free")


async def test_any_port_is_ok() -> None:
    assert (await _address("127.0.0.1", 0)).verdict is Verdict.OK


async def test_an_address_of_another_machine_fails() -> None:
    # An address that RFC 5737 reserves for documentation.
    assert (await _address("192.0.2.1", 50051)).verdict is Verdict.FAILS


async def test_a_port_of_another_program_is_a_warning() -> None:
    server = Server([])  # answers that it knows no such method
    await server.start("127.0.0.1", 0)
    finding = await _address("127.0.0.1", _port(server))
    server.close()
    await server.wait_closed()
    assert finding.verdict is Verdict.WARNING
    assert "does not report its health" in finding.found


async def test_a_socket_is_examined_like_a_port(tmp_path: Path) -> None:
    host = f"unix:{tmp_path / 'credit.sock'}"
    free = await _address(host, 50051)
    assert (free.verdict, free.found.endswith("credit.sock is free")) == (Verdict.OK, True)
    status = ServiceStatus()
    status.set(True)
    service = CreditService()
    server = Server([service, Health({service: [status], OVERALL: [status]})])
    await server.start(path=str(tmp_path / "credit.sock"))
    served = await _address(host, 50051)
    server.close()
    await server.wait_closed()
    assert served.verdict is Verdict.OK
    assert served.found.endswith("credit.sock and serves")
    fails = await _address(f"unix:{tmp_path / 'missing' / 'credit.sock'}", 50051)
    assert fails.verdict is Verdict.FAILS


@pytest.mark.parametrize(("serving", "verdict"), [(True, Verdict.OK), (False, Verdict.WARNING)])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_port_of_a_credit_server_is_recognized_by_its_health(
    serving: bool, verdict: Verdict, tls: bool, tmp_path: Path
) -> None:
    status = ServiceStatus()
    status.set(serving)
    service = CreditService()
    server = Server([service, Health({service: [status], OVERALL: [status]})])
    await server.start("127.0.0.1", 0, ssl=_tls(tmp_path) if tls else None)
    finding = await _address("127.0.0.1", _port(server), tls=tls)
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


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program uses."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


async def test_a_free_port_for_metrics_is_ok(free: int) -> None:
    finding = await _metrics(ServerSettings(port=0, metrics_port=free))
    assert finding.verdict is Verdict.OK
    assert finding.found.endswith("is free")


async def test_a_port_for_metrics_that_is_set_and_in_use_fails(taken: int) -> None:
    finding = await _metrics(ServerSettings(port=0, metrics_port=taken))
    assert finding.verdict is Verdict.FAILS
    assert "--metrics-port" in finding.remedy


async def test_the_default_port_for_metrics_in_use_is_a_warning_since_another_is_taken(
    taken: int,
) -> None:
    settings = ServerSettings(port=0)
    settings.metrics_port = taken  # in the default's place
    settings.model_fields_set.discard("metrics_port")
    assert (await _metrics(settings)).verdict is Verdict.WARNING


@pytest.fixture
def shown() -> Iterator[int]:
    """A port on which a credit-server serves its metrics."""
    telemetry = Telemetry()
    with exposed(telemetry.registry, ready=lambda: True, host="127.0.0.1", port=0) as exposition:
        yield exposition.port


@pytest.mark.parametrize("serving", [True, False])
async def test_metrics_of_the_credit_server_that_answers_on_the_address_are_ok(
    shown: int, serving: bool
) -> None:
    subject = await read_addresses(subject_of({"port": 0, "metrics_port": shown}))
    (finding,) = check_metrics(replace(subject, address_serving=serving))
    assert finding.verdict is Verdict.OK
    assert finding.found == f"a credit-server serves its metrics on 127.0.0.1 port {shown}"


async def test_metrics_of_a_credit_server_beside_another_program_on_the_address_fail(
    shown: int, taken: int
) -> None:
    finding = await _metrics(ServerSettings(port=taken, metrics_port=shown))
    assert finding.verdict is Verdict.FAILS
    assert "another credit-server" in finding.found


async def test_metrics_of_a_credit_server_with_another_address_fail(shown: int) -> None:
    finding = await _metrics(ServerSettings(port=0, metrics_port=shown))
    assert finding.verdict is Verdict.FAILS
    assert "another credit-server" in finding.found


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 200 OK\r\n\r\n# HELP go_threads Threads.\n"])
async def test_a_port_for_metrics_that_another_program_has_is_not_the_running_servers(
    taken: int, answer: bytes
) -> None:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        finding = await _metrics(ServerSettings(port=taken, metrics_port=port))
    assert finding.verdict is Verdict.FAILS
    assert "a program that serves no metrics of a credit-server" in finding.found


async def test_a_port_for_metrics_that_does_not_answer_is_another_programs(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = ServerSettings(port=taken, metrics_port=silent.getsockname()[1])
        assert (await _metrics(settings)).verdict is Verdict.FAILS


async def test_metrics_on_the_port_of_the_calls_fail(free: int) -> None:
    finding = await _metrics(ServerSettings(port=free, metrics_port=free))
    assert finding.verdict is Verdict.FAILS


async def test_metrics_on_an_address_of_another_machine_fail() -> None:
    # An address that RFC 5737 reserves for documentation.
    settings = ServerSettings(port=0, metrics_host="192.0.2.1")
    assert (await _metrics(settings)).verdict is Verdict.FAILS


@pytest.mark.parametrize("settings", [{"metrics": False}, {"metrics_port": 0}])
async def test_no_metrics_and_metrics_on_any_port_are_ok(
    settings: dict[str, int], taken: int
) -> None:
    everything = ServerSettings.model_validate({"metrics_port": taken, **settings})
    assert (await _metrics(everything)).verdict is Verdict.OK


def test_an_audit_log_that_does_not_exist_yet_is_ok_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    assert _audit_log(path).verdict is Verdict.OK
    assert not path.exists()


def test_an_audit_log_in_the_working_directory_is_ok(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _audit_log(Path("audit.log")).verdict is Verdict.OK


@pytest.mark.parametrize(("mode", "verdict"), [(0o600, Verdict.OK), (0o644, Verdict.WARNING)])
def test_an_audit_log_is_its_owners_alone_and_left_as_it_is(
    mode: int, verdict: Verdict, tmp_path: Path
) -> None:
    path = tmp_path / "audit.log"
    path.write_text("a line\n")
    path.chmod(mode)
    assert _audit_log(path).verdict is verdict
    assert path.read_text() == "a line\n"


def test_an_audit_log_in_a_folder_that_does_not_exist_fails(tmp_path: Path) -> None:
    finding = _audit_log(tmp_path / "not" / "there" / "audit.log")
    assert finding.verdict is Verdict.FAILS
    assert f"there is no folder {tmp_path / 'not' / 'there'}" in finding.found


def test_an_audit_log_that_is_a_folder_fails(tmp_path: Path) -> None:
    assert _audit_log(tmp_path).verdict is Verdict.FAILS


def test_an_audit_log_in_a_folder_that_is_not_writable_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # modes do not bind root
    finding = _audit_log(tmp_path / "audit.log")
    assert finding.verdict is Verdict.FAILS
    assert f"no file can be created in {tmp_path}" in finding.found


def test_an_audit_log_that_links_into_a_folder_that_does_not_exist_fails(tmp_path: Path) -> None:
    link = tmp_path / "audit.log"
    link.symlink_to(tmp_path / "unmounted" / "audit.log")
    assert _audit_log(link).verdict is Verdict.FAILS


def test_variables_that_are_settings_are_ok() -> None:
    (finding,) = check_variables(subject_of(unknown_variables=()))
    assert finding.verdict is Verdict.OK


def test_a_variable_that_is_not_a_setting_is_a_warning() -> None:
    unknown = ("CREDIT_PROT (CREDIT_PORT?)", "CREDIT_X")
    (finding,) = check_variables(subject_of(unknown_variables=unknown))
    assert finding.verdict is Verdict.WARNING
    assert finding.found == "no setting has the name CREDIT_PROT (CREDIT_PORT?), CREDIT_X"
