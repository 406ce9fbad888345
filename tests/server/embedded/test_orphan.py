"""A database that is held by a process which this server did not start."""

import fcntl
import os
from pathlib import Path

import pytest
from credit_server.embedded import DataDirectoryInUse
from credit_server.embedded.data_directory import DataDirectory
from credit_server.embedded.orphan import end_orphan


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory.at(tmp_path / "data")
    directory.create()
    return directory


async def test_a_database_that_was_never_used_has_no_orphan(directory: DataDirectory) -> None:
    await end_orphan(directory, timeout_seconds=0)


async def test_a_stale_lock_file_is_no_orphan(directory: DataDirectory) -> None:
    (directory.database / "mongod.lock").write_text(f"{os.getpid()}\n")
    await end_orphan(directory, timeout_seconds=0)


@pytest.mark.parametrize(
    "content", [f"{os.getpid()}\n", "not a number", ""], ids=["own number", "not a number", "empty"]
)
async def test_a_process_of_somebody_else_is_named_and_left_alone(
    directory: DataDirectory, content: str
) -> None:
    lock = directory.database / "mongod.lock"
    lock.write_text(content)
    holder = str(os.getpid()) if content.strip().isdigit() else "0"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataDirectoryInUse, match=rf"\(process {holder}, .*CREDIT_DATA_DIR"):
            await end_orphan(directory, timeout_seconds=0)
