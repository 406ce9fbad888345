"""The audit log's file: whole lines that only its owner may read, before and after a rotation."""

import errno
import json
import os
import stat
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from credit_server.access.audit import AuditFile
from structlog.testing import capture_logs

Logged = list[MutableMapping[str, Any]]  # Any: structlog's own type
NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


@pytest.fixture(autouse=True)
def logged() -> Iterator[Logged]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.json"


@pytest.fixture
def file(path: Path) -> Iterator[AuditFile]:
    opened = AuditFile(path, clock=lambda: NOW)
    yield opened
    opened.close()


def _lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_there_at_once_with_its_time(file: AuditFile, path: Path) -> None:
    file({"identity": "shop", "credits": 5, "replayed": False})
    assert _lines(path) == [
        {
            "timestamp": "2026-01-02T03:04:05.678000Z",
            "identity": "shop",
            "credits": 5,
            "replayed": False,
        }
    ]


def test_a_time_is_written_alike_on_the_full_second(path: Path) -> None:
    file = AuditFile(path, clock=lambda: NOW.replace(microsecond=0))
    file({})
    file.close()
    assert _lines(path) == [{"timestamp": "2026-01-02T03:04:05.000000Z"}]


def test_only_the_owner_may_read_it(file: AuditFile, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_there_is_kept(file: AuditFile, path: Path) -> None:
    file({"n": 1})
    second = AuditFile(path)
    second({"n": 2})
    file({"n": 3})
    second.close()
    assert len(_lines(path)) == 3


def test_no_text_begins_a_line_of_its_own(file: AuditFile, path: Path) -> None:
    file({"key": 'a\n{"status": "OK"}\r\u2028\x85b', "name": "\ud800 é"})
    assert len(path.read_bytes().splitlines()) == 1
    assert len(_lines(path)) == 1


def test_it_is_opened_again_after_it_was_rotated_away(file: AuditFile, path: Path) -> None:
    file({"n": 1})
    rotated = path.rename(path.with_suffix(".1"))
    file({"n": 2})
    assert [len(_lines(found)) for found in (rotated, path)] == [1, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_continues_in_the_file_that_rotation_created(file: AuditFile, path: Path) -> None:
    file({"n": 1})
    path.rename(path.with_suffix(".1"))
    path.touch()
    file({"n": 2})
    file({"n": 3})
    assert len(_lines(path)) == 2


def test_a_file_that_cannot_be_written_is_reported_once_and_stops_no_call(
    file: AuditFile, path: Path, logged: Logged
) -> None:
    folder = path.parent
    path.rename(folder.with_name("elsewhere"))
    folder.rmdir()
    file({"n": 1})
    file({"n": 2})
    assert [line["event"] for line in logged] == ["the audit log cannot be written"]
    folder.mkdir()
    file({"n": 3})
    file({"n": 4})
    assert len(_lines(path)) == 2
    again = {"log_level": "warning", "event": "the audit log is written again"}
    assert logged[1:] == [{**again, "file": str(path), "lines_failed": 2}]


def test_what_cannot_be_written_to_a_new_file_is_in_the_one_that_was_rotated_away(
    file: AuditFile, path: Path
) -> None:
    rotated = path.rename(path.with_suffix(".1"))
    path.mkdir()
    file({"n": 1})
    assert len(_lines(rotated)) == 1


def test_a_full_disk_is_reported_once_and_stops_no_call(
    file: AuditFile, path: Path, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    def write(number: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        file({"n": 1})
        file({"n": 2})
    file({"n": 3})
    assert len(_lines(path)) == 1
    assert [line.get("lines_failed") for line in logged] == [None, 2]
    assert "No space left" in logged[0]["reason"]


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o602, 1)])
def test_a_file_that_everybody_can_read_is_warned_of(
    mode: int, warned: int, path: Path, logged: Logged
) -> None:
    path.touch()
    path.chmod(mode)
    AuditFile(path).close()
    assert len(logged) == warned


def test_after_half_a_line_a_new_one_begins(
    file: AuditFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda number, data: write(number, data[:5]))
        file({"n": 1})
    file({"n": 2})
    file({"n": 3})
    half, *whole = path.read_text().splitlines()
    assert len(half) == 5
    assert [json.loads(line)["n"] for line in whole] == [2, 3]


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        AuditFile(tmp_path / "absent" / "audit.json")
