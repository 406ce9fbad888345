"""The file of a Unix domain socket: which server may listen on it, and which may remove it."""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from credit_server.http2.unix_socket import SocketFile, socket_path, try_socket


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "credit.sock")


@pytest.fixture
def listening(path: str) -> Iterator[SocketFile]:
    file = SocketFile(path, backlog=8)
    yield file
    file.remove()
    file.socket.close()


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError:
            return False
    return True


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("127.0.0.1", None),
        ("unix.example", None),
        ("unix:credit.sock", "credit.sock"),
        ("unix:/run/credit.sock", "/run/credit.sock"),
        ("unix:///run/credit.sock", "/run/credit.sock"),
    ],
)
def test_a_path_has_the_forms_that_grpc_names(host: str, path: str | None) -> None:
    assert socket_path(host) == path


@pytest.mark.parametrize(
    "host", ["unix:", "unix://", "unix://run/a", "unix:a\0", "unix:" + "a" * 108]
)
def test_a_socket_without_a_usable_path_is_rejected(host: str) -> None:
    with pytest.raises(ValueError, match="unix:"):
        socket_path(host)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o007, 0o770), (0o077, 0o700)])
def test_the_umask_decides_which_users_may_connect(path: str, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        file = SocketFile(path, backlog=8)
    finally:
        os.umask(before)
    file.socket.close()
    assert stat.S_IMODE(Path(path).stat().st_mode) == mode


def test_a_socket_whose_server_has_ended_is_replaced(path: str) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    try_socket(path)
    file = SocketFile(path, backlog=8)
    assert _answers(path)
    file.socket.close()


def test_a_server_that_listens_keeps_its_socket(path: str, listening: SocketFile) -> None:
    for take in (lambda: SocketFile(path, backlog=8), lambda: try_socket(path)):
        with pytest.raises(OSError, match="in use") as caught:
            take()
        assert caught.value.errno == errno.EADDRINUSE
    assert _answers(path)


def test_a_server_whose_backlog_is_full_keeps_its_socket(path: str) -> None:
    file = SocketFile(path, backlog=0)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(path)
        with pytest.raises(OSError, match="in use") as caught:
            try_socket(path)
        assert caught.value.errno == errno.EADDRINUSE
    file.socket.close()


def test_a_file_that_is_not_a_socket_is_never_removed(path: str) -> None:
    Path(path).write_text("precious")
    for take in (lambda: SocketFile(path, backlog=8), lambda: try_socket(path)):
        with pytest.raises(OSError, match="no socket") as caught:
            take()
        assert caught.value.errno == errno.EEXIST
    assert Path(path).read_text() == "precious"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "credit.sock")
    for take in (lambda: SocketFile(path, backlog=8), lambda: try_socket(path)):
        with pytest.raises(FileNotFoundError, match="missing"):
            take()


def test_a_check_creates_no_file(path: str) -> None:
    try_socket(path)
    assert not Path(path).exists()


def test_the_file_is_removed_only_once(path: str, listening: SocketFile) -> None:
    listening.remove()
    assert not Path(path).exists()
    listening.remove()


def test_the_file_of_another_server_is_not_removed(path: str, listening: SocketFile) -> None:
    Path(path).unlink()
    successor = SocketFile(path, backlog=8)
    listening.remove()
    assert _answers(path)
    successor.socket.close()


def test_two_servers_that_start_at_once_do_not_remove_each_other_s_file(path: str) -> None:
    folder = os.open(Path(path).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another server starts") as caught:
            SocketFile(path, backlog=8)
        assert caught.value.errno == errno.EADDRINUSE
    finally:
        os.close(folder)
    file = SocketFile(path, backlog=8)
    file.socket.close()
