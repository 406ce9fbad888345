"""Files of tests are in memory only where there is enough, and programs can run there."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from credit_testing import memory_files
from credit_testing.memory_files import folder_in_memory

GIGABYTE = 10**9


@pytest.mark.parametrize(
    ("free", "memory", "flags", "used"),
    [
        (9, 17, 0, True),
        (7, 17, 0, False),
        (9, 15, 0, False),
        (9, 17, os.ST_NOEXEC, False),
    ],
)
def test_memory_is_used_if_there_is_enough_and_programs_can_run_there(
    free: int, memory: int, flags: int, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SimpleNamespace(f_bavail=free * GIGABYTE // 4096, f_frsize=4096, f_flag=flags)
    monkeypatch.setattr(os, "statvfs", lambda _: files)
    monkeypatch.setattr(memory_files, "_available_bytes", lambda: memory * GIGABYTE)
    assert (folder_in_memory() is not None) is used


def test_a_system_without_such_a_folder_uses_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_files, "_FOLDER", tmp_path / "absent")
    assert folder_in_memory() is None
