"""The embedded `mongod` from start to stop, with the real program and with scripts in its place."""

import asyncio
import os
import select
import shutil
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from credit_server.embedded import DataDirectoryInUse, EmbeddedMongod, MongodFailed, mongod
from credit_server.store.connection import ensure_primary
from pymongo import AsyncMongoClient

# A start takes a second; a hang is detected long before the suite's own limit.
pytestmark = pytest.mark.timeout(60)

# `Any`: what the driver decodes has no narrower type.
Client = AsyncMongoClient[dict[str, Any]]

_SERVER_PROGRAM = Path(__file__).with_name("server_program.py")


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedMongod]:
    data_dir = tmp_path_factory.mktemp("embedded") / "data"
    async with EmbeddedMongod(data_dir=data_dir) as mongod:
        yield mongod


@pytest.fixture
async def crashing(tmp_path: Path) -> AsyncIterator[EmbeddedMongod]:
    async with EmbeddedMongod(data_dir=tmp_path / "data", stop_timeout_seconds=0.2) as mongod:
        yield mongod


def _connect(uri: str) -> Client:
    return AsyncMongoClient(uri)


async def _values(uri: str) -> list[int]:
    async with _connect(uri) as client:
        return [document["value"] async for document in client.test.written.find()]


async def _start_server(data_dir: Path) -> tuple[Process, int, int]:
    """Run the minimal server; return it and the process numbers of its `mongod` and watchdog."""
    arguments = ["-W", "error", "-X", "dev", str(_SERVER_PROGRAM), str(data_dir)]
    server = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert server.stdout is not None
    mongod_pid, watchdog_pid = (await server.stdout.readline()).split()
    return server, int(mongod_pid), int(watchdog_pid)


async def _gone(descriptor: int) -> None:
    """Wait until the process behind a descriptor of `pidfd_open` has ended."""
    await asyncio.to_thread(select.select, [descriptor], [], [])
    os.close(descriptor)


def _is_alive(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


async def test_it_takes_transactions(running: EmbeddedMongod) -> None:
    async with _connect(running.uri) as client, client.start_session() as session:
        async with await session.start_transaction():
            await client.test.transactions.insert_one({"value": 1}, session=session)
        assert await client.test.transactions.count_documents({}) == 1


async def test_it_listens_on_one_loopback_address_and_on_no_socket_file(
    running: EmbeddedMongod,
) -> None:
    for family, path in (
        (socket.AF_INET, ("127.0.0.2", running.port)),
        (socket.AF_UNIX, f"/tmp/mongodb-{running.port}.sock"),
    ):
        with socket.socket(family) as client:
            assert client.connect_ex(path) != 0


async def test_ctrl_c_at_a_terminal_does_not_reach_it(running: EmbeddedMongod) -> None:
    assert os.getpgid(running.pid) == running.pid != os.getpgid(0)


async def test_it_cannot_be_started_twice(running: EmbeddedMongod) -> None:
    with pytest.raises(RuntimeError, match="started already"):
        await running.start()


async def test_a_second_server_on_its_directory_is_rejected(running: EmbeddedMongod) -> None:
    second = EmbeddedMongod(data_dir=running._directory.root)
    with pytest.raises(DataDirectoryInUse, match=rf"credit-server \(process {os.getpid()}\)"):
        await second.start()
    assert _is_alive(running.pid)


async def test_a_mongod_of_another_directory_is_not_reconfigured(
    running: EmbeddedMongod, tmp_path: Path
) -> None:
    with pytest.raises(TimeoutError, match="not elected"):
        await ensure_primary("127.0.0.1", running.port, timeout_seconds=0.3, database_path=tmp_path)


async def test_the_data_survives_a_restart_on_another_port(tmp_path: Path) -> None:
    first = EmbeddedMongod(data_dir=tmp_path)
    async with first, _connect(first.uri) as client:
        await client.test.written.insert_one({"value": 7})
        pid = first.pid
    assert not _is_alive(pid)
    async with EmbeddedMongod(data_dir=tmp_path) as second:
        assert second.port != first.port
        assert await _values(second.uri) == [7]


async def test_a_port_that_is_taken_after_it_was_chosen_makes_the_start_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        ports = iter([thief.getsockname()[1], mongod.free_port()])
        monkeypatch.setattr(mongod, "free_port", lambda: next(ports))
        async with EmbeddedMongod(data_dir=tmp_path) as embedded:
            assert embedded.port != thief.getsockname()[1]
            assert next(ports, None) is None


async def test_its_death_is_reported_and_a_restart_keeps_address_and_data(tmp_path: Path) -> None:
    reported: list[str] = []
    async with (
        EmbeddedMongod(data_dir=tmp_path, on_exit=reported.append) as embedded,
        _connect(embedded.uri) as client,
    ):
        uri = embedded.uri
        await client.test.written.insert_one({"value": 7})
        os.kill(embedded.pid, signal.SIGKILL)
        sentence = await embedded.wait_exited()
        assert reported == [sentence]
        assert "ended while it was serving. It was killed (SIGKILL)" in sentence
        assert (tmp_path / "mongo" / "mongod.lock").read_text() == f"{embedded.pid}\n"

        with (
            socket.create_server(("127.0.0.1", embedded.port)),
            pytest.raises(MongodFailed, match="port was taken"),
        ):
            await embedded.restart()

        assert await embedded.restart() == uri
        assert await client.test.written.count_documents({"value": 7}) == 1
        assert len(reported) == 1


async def test_one_that_does_not_shut_down_is_killed(crashing: EmbeddedMongod) -> None:
    pid = crashing.pid
    os.kill(pid, signal.SIGSTOP)
    await crashing.stop()
    assert not _is_alive(pid)
    await crashing.stop()


async def test_it_leaves_nothing_behind_under_uvloop(tmp_path: Path) -> None:
    server, mongod_pid, watchdog_pid = await _start_server(tmp_path)
    _, errors = await server.communicate(b"")
    assert (server.returncode, errors) == (0, b"")
    assert not _is_alive(mongod_pid)
    assert not _is_alive(watchdog_pid)


async def test_it_ends_when_its_server_is_killed(tmp_path: Path) -> None:
    server, mongod_pid, _ = await _start_server(tmp_path)
    mongod_end = os.pidfd_open(mongod_pid)
    server.kill()
    await server.communicate()
    await _gone(mongod_end)


async def test_one_that_outlived_its_server_and_its_watchdog_is_replaced_without_loss(
    tmp_path: Path,
) -> None:
    server, mongod_pid, watchdog_pid = await _start_server(tmp_path)
    mongod_end = os.pidfd_open(mongod_pid)
    os.kill(watchdog_pid, signal.SIGKILL)
    server.kill()
    await server.communicate()
    assert _is_alive(mongod_pid)
    async with EmbeddedMongod(data_dir=tmp_path) as embedded:
        await _gone(mongod_end)
        assert await _values(embedded.uri) == [1]


async def test_a_program_that_ends_at_once_is_quoted_and_the_directory_released(
    tmp_path: Path, fake_mongod: Callable[[str], Path]
) -> None:
    (tmp_path / "mongod.log").write_text('{"t":1,"s":"E","msg":"of an earlier run"}\n')
    embedded = EmbeddedMongod(
        data_dir=tmp_path, executable=fake_mongod("echo 'no such option' >&2; exit 3")
    )
    for _ in range(2):
        with pytest.raises(MongodFailed, match="exited with status 3") as caught:
            await embedded.start()
        assert "no such option" in str(caught.value)
        assert "earlier run" not in str(caught.value)
        assert str(tmp_path / "mongod.log") in str(caught.value)


async def test_little_free_space_on_the_disk_is_reported(
    tmp_path: Path, fake_mongod: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly_full = SimpleNamespace(free=20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: nearly_full)
    with pytest.raises(MongodFailed, match="Only 20 MB are free"):
        await EmbeddedMongod(data_dir=tmp_path, executable=fake_mongod("exit 3")).start()


async def test_a_missing_library_is_explained(
    tmp_path: Path, fake_mongod: Callable[[str], Path]
) -> None:
    line = "error while loading shared libraries: libcurl.so.4: cannot open shared object file"
    script = fake_mongod(f"echo 'mongod: {line}' >&2; exit 127")
    with pytest.raises(MongodFailed, match=r"libcurl\.so\.4.*apt install libcurl4"):
        await EmbeddedMongod(data_dir=tmp_path, executable=script).start()


async def test_a_program_that_cannot_be_executed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MongodFailed, match="cannot be started"):
        await EmbeddedMongod(data_dir=tmp_path, executable=tmp_path / "missing").start()


async def test_a_port_that_is_always_taken_is_an_error_after_five_attempts(
    tmp_path: Path, fake_mongod: Callable[[str], Path]
) -> None:
    script = fake_mongod("echo . >> $(dirname $0)/attempts; echo 'Address already in use'; exit 48")
    with pytest.raises(MongodFailed, match="port was taken"):
        await EmbeddedMongod(data_dir=tmp_path / "data", executable=script).start()
    assert (tmp_path / "attempts").read_text() == ".\n" * 5


async def test_a_program_that_never_listens_is_killed_after_the_timeout(
    tmp_path: Path, fake_mongod: Callable[[str], Path]
) -> None:
    script = fake_mongod("echo $$ > $(dirname $0)/pid; exec sleep 600")
    embedded = EmbeddedMongod(
        data_dir=tmp_path / "data", executable=script, start_timeout_seconds=0.5
    )
    with pytest.raises(MongodFailed, match=r"within 0\.5 s \(nothing listens on its port\)"):
        await embedded.start()
    assert not _is_alive(int((tmp_path / "pid").read_text()))


async def test_a_start_that_is_cancelled_leaves_nothing_behind(
    tmp_path: Path, fake_mongod: Callable[[str], Path]
) -> None:
    os.mkfifo(tmp_path / "pid")
    script = fake_mongod("echo $$ > $(dirname $0)/pid; exec sleep 600")
    embedded = EmbeddedMongod(data_dir=tmp_path / "data", executable=script)
    starting = asyncio.create_task(embedded.start())
    pid = int(await asyncio.to_thread((tmp_path / "pid").read_text))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not _is_alive(pid)
    embedded._directory.lock().release()


async def test_before_the_start_it_has_no_process_no_port_and_no_address(tmp_path: Path) -> None:
    embedded = EmbeddedMongod(data_dir=tmp_path)
    await embedded.stop()
    for read in (lambda: embedded.pid, lambda: embedded.port, lambda: embedded.uri):
        with pytest.raises(RuntimeError, match="not"):
            read()
    for action in (embedded.restart, embedded.wait_exited):
        with pytest.raises(RuntimeError, match="not been started"):
            await action()
