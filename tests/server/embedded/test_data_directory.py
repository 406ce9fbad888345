"""The layout, the mode and the lock of the data directory."""

import os
from pathlib import Path

import pytest
from credit_server.embedded import DataDirectoryInUse, MongodFailed
from credit_server.embedded.data_directory import DataDirectory


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory.at(tmp_path / "new" / "data")
    directory.create()
    return directory


def test_the_directories_are_for_their_owner_alone(directory: DataDirectory) -> None:
    assert directory.root.stat().st_mode & 0o777 == 0o700
    assert directory.database.stat().st_mode & 0o777 == 0o700


def test_a_relative_path_with_a_symbolic_link_becomes_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert DataDirectory.at(Path("link")).root == tmp_path.resolve() / "real"


def test_a_second_lock_is_rejected_and_names_the_process_of_the_first(
    directory: DataDirectory,
) -> None:
    lock = directory.lock()
    with pytest.raises(DataDirectoryInUse, match=rf"process {os.getpid()}\).*CREDIT_DATA_DIR"):
        directory.lock()
    lock.release()
    directory.lock().release()


def test_a_file_in_place_of_the_directory_is_rejected_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(MongodFailed, match=r"cannot be used: File exists\. Make it a writable"):
        DataDirectory.at(tmp_path / "data").create()


def test_a_log_of_moderate_size_is_continued(directory: DataDirectory) -> None:
    directory.log.write_text("an earlier run\n")
    assert directory.begin_log() == 15
    assert directory.log.exists()


def test_a_log_that_has_grown_large_is_renamed(directory: DataDirectory) -> None:
    directory.log.touch()
    os.truncate(directory.log, 16 * 1024 * 1024 + 1)
    assert directory.begin_log() == 0
    assert not directory.log.exists()
    assert (directory.root / "mongod.log.1").exists()


def test_a_log_that_cannot_be_renamed_is_an_error_with_the_reason(directory: DataDirectory) -> None:
    directory.log.touch()
    os.truncate(directory.log, 16 * 1024 * 1024 + 1)
    (directory.root / "mongod.log.1").mkdir()
    with pytest.raises(MongodFailed, match="cannot be used: Is a directory"):
        directory.begin_log()


def test_a_link_to_itself_is_rejected_with_the_reason(tmp_path: Path) -> None:
    link = tmp_path / "data"
    link.symlink_to(link)
    with pytest.raises(MongodFailed, match=r"cannot be used: .*\. Make it a writable"):
        DataDirectory.at(link).create()
