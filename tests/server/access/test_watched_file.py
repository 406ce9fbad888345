"""A file that changes: when it is checked, what is kept when it breaks, and what is logged."""

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from credit_server.access import FileUnusable
from credit_server.access.watched_file import LOOK_SECONDS, WatchedFile, WatchedFiles

from tests.server.access.signing import Clock, replace

Logged = list[MutableMapping[str, Any]]  # Any: structlog's own type


def parse(data: bytes) -> str:
    if data == b"broken":
        raise ValueError("it is broken")
    return data.decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("first")
    return path


def test_a_replaced_file_is_read_again_and_not_before_it_is_checked(path: Path) -> None:
    clock = Clock()
    file = WatchedFile(path, parse, setting="CREDIT_FILE", clock=clock)
    replace(path, b"second")
    clock.now += LOOK_SECONDS / 2
    assert file.current() == "first"
    clock.now += LOOK_SECONDS / 2
    assert file.current() == "second"


def test_the_content_is_the_same_object_until_the_file_changes(path: Path) -> None:
    clock = Clock()
    file = WatchedFile(path, bytes.split, setting="CREDIT_FILE", clock=clock)
    first = file.current()
    clock.now += LOOK_SECONDS
    assert file.current() is first
    replace(path, b"first, again")
    clock.now += LOOK_SECONDS
    assert file.current() is not first


def test_an_immediate_check_is_bounded_too(path: Path) -> None:
    clock = Clock()
    file = WatchedFile(path, parse, setting="CREDIT_FILE", clock=clock)
    clock.now += LOOK_SECONDS
    assert file.current() == "first"
    replace(path, b"second")
    assert file.current() == "first"
    assert file.current_now() == "second"
    replace(path, b"third")
    assert file.current_now() == "second"
    clock.now += LOOK_SECONDS
    assert file.current_now() == "third"


def test_a_file_behind_swapped_links_is_read_again(tmp_path: Path) -> None:
    """As Kubernetes renews a mounted secret."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "file").write_text(version)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "file").symlink_to("..data/file")
    clock = Clock()
    file = WatchedFile(tmp_path / "file", parse, setting="CREDIT_FILE", clock=clock)
    (tmp_path / "..new").symlink_to("2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    clock.now += LOOK_SECONDS
    assert file.current() == "2"


@pytest.mark.parametrize("missing", [False, True])
def test_a_broken_file_keeps_the_earlier_content_and_is_logged_once(
    missing: bool, path: Path, logged: Logged
) -> None:
    clock = Clock()
    file = WatchedFile(path, parse, setting="CREDIT_FILE", clock=clock)
    if missing:
        path.unlink()
    else:
        replace(path, b"broken")
    for _look in range(3):
        clock.now += LOOK_SECONDS
        assert file.current() == "first"
    assert [line["log_level"] for line in logged] == ["error"]
    assert str(path) in logged[0]["error"]
    replace(path, b"fixed")
    clock.now += LOOK_SECONDS
    assert file.current() == "fixed"


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(path: Path) -> None:
    clock = Clock()
    reads = []

    def parse_slowly(data: bytes) -> bytes:
        reads.append(data)
        return data

    class Slow(type(path)):  # type: ignore[misc] # PosixPath or WindowsPath
        def open(self, *arguments: object, **named: object) -> object:
            file = super().open(*arguments, **named)
            if not reads:
                replace(path, b"second")
            return file

    file = WatchedFile(Slow(path), parse_slowly, setting="CREDIT_FILE", clock=clock)
    assert file.current() == b"first"
    clock.now += LOOK_SECONDS
    assert file.current() == b"second"


def test_a_file_that_is_missing_at_the_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileUnusable, match=r"^CREDIT_FILE .*nowhere cannot be read: No such file"):
        WatchedFile(tmp_path / "nowhere", parse, setting="CREDIT_FILE")


def test_a_file_that_is_broken_at_the_start_is_named_with_the_reason(path: Path) -> None:
    path.write_text("broken")
    with pytest.raises(FileUnusable, match="file cannot be used: it is broken"):
        WatchedFile(path, parse, setting="CREDIT_FILE")


def test_a_file_without_end_is_not_read(path: Path) -> None:
    os.truncate(path, 1 << 40)
    with pytest.raises(FileUnusable, match="is longer than"):
        WatchedFile(path, parse, setting="CREDIT_FILE")


def test_files_that_belong_together_are_read_again_when_one_changes(tmp_path: Path) -> None:
    clock, paths = Clock(), [tmp_path / "certificate", tmp_path / "key"]
    for path in paths:
        path.write_text("first")
    files = WatchedFiles(paths, lambda: [path.read_text() for path in paths], clock=clock)
    before = files.current()
    clock.now += LOOK_SECONDS
    assert files.current() is before
    replace(paths[1], b"second")
    clock.now += LOOK_SECONDS
    assert files.current() == ["first", "second"]
