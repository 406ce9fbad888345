"""The `mongod` that runs on a data directory is found by its lock and its command line."""

import fcntl
import os
from pathlib import Path

import pytest
from credit_server.embedded import (
    DataDirectoryInUse,
    EmbeddedMongod,
    MongodFailed,
    has_database,
    running_uri,
)
from credit_server.embedded.data_directory import DataDirectory
from credit_server.embedded.running import end_orphan


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory.at(tmp_path / "data")
    directory.create()
    return directory


def test_a_missing_directory_has_no_mongod_and_no_database(tmp_path: Path) -> None:
    assert running_uri(tmp_path / "missing") is None
    assert not has_database(tmp_path / "missing")


@pytest.mark.parametrize("place", ["a file", "a link to itself", "below a file"])
def test_a_path_that_is_no_directory_is_rejected_with_the_reason(
    place: str, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    if place == "a link to itself":
        path.symlink_to(path)
    else:
        path.touch()
    if place == "below a file":
        path /= "deeper"
    with pytest.raises(MongodFailed, match=r"cannot be used: .*CREDIT_DATA_DIR"):
        running_uri(path)
    with pytest.raises(MongodFailed, match=r"cannot be used: .*CREDIT_DATA_DIR"):
        has_database(path)


async def test_it_is_found_while_it_runs_and_not_afterwards(tmp_path: Path) -> None:
    async with EmbeddedMongod(data_dir=tmp_path) as mongod:
        assert running_uri(tmp_path) == mongod.uri
    assert running_uri(tmp_path) is None
    assert has_database(tmp_path)


@pytest.mark.parametrize(
    "content", [f"{os.getpid()}\n", "no number"], ids=["a number", "no number"]
)
def test_another_program_that_holds_the_lock_is_not_a_mongod(content: str, tmp_path: Path) -> None:
    (tmp_path / "mongo").mkdir()
    lock = tmp_path / "mongo" / "mongod.lock"
    lock.write_text(content)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert running_uri(tmp_path) is None


async def test_a_database_that_was_never_used_has_no_orphan(directory: DataDirectory) -> None:
    await end_orphan(directory, timeout_seconds=0)


async def test_a_stale_lock_file_is_not_an_orphan(directory: DataDirectory) -> None:
    (directory.database / "mongod.lock").write_text(f"{os.getpid()}\n")
    await end_orphan(directory, timeout_seconds=0)


@pytest.mark.parametrize(
    "content", [f"{os.getpid()}\n", "not a number", ""], ids=["a number", "no number", "empty"]
)
async def test_a_process_of_another_program_is_named_and_not_stopped(
    directory: DataDirectory, content: str
) -> None:
    lock = directory.database / "mongod.lock"
    lock.write_text(content)
    holder = str(os.getpid()) if content.strip().isdigit() else "0"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataDirectoryInUse, match=rf"\(process {holder}, .*CREDIT_DATA_DIR"):
            await end_orphan(directory, timeout_seconds=0)
