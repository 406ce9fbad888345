"""Test that a run reports why it cannot limit a disk, and continues with the other faults."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from credit_testing.child import ChildFailed
from credit_torture.disk import Disk, NotMounted
from credit_torture.faults import FAULTS, FULL_DISK
from credit_torture.nemesis import Pace
from credit_torture.run import Plan, Run

_PACE = Pace(hold_seconds=(0, 0), pause_seconds=0, writes=0, concurrent_max=1)


def _mount(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Replace the program `mount` by a script for the shell."""
    program = folder / "bin" / "mount"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


@pytest.fixture
def forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all mounts fail."""
    _mount(tmp_path, monkeypatch, "echo must be superuser >&2; exit 1")


def _run(folder: Path, *kinds: str) -> Run:
    return Run(Plan(seed=1, seconds=1, faults=None, kinds=kinds, pace=_PACE), folder / "run")


@pytest.mark.usefixtures("forbidden")
def test_a_full_disk_that_is_not_possible_is_left_out_with_the_reason(tmp_path: Path) -> None:
    run = _run(tmp_path, *FAULTS)
    assert run._disk(AsyncExitStack(), tmp_path / "data") is None
    assert run.left_out == {FULL_DISK: "its file system cannot be mounted: must be superuser"}


@pytest.mark.usefixtures("forbidden")
def test_a_run_of_a_full_disk_alone_fails_if_it_is_not_possible(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="must be superuser"):
        _run(tmp_path, FULL_DISK)._disk(AsyncExitStack(), tmp_path / "data")


@pytest.mark.usefixtures("forbidden")
def test_nothing_is_mounted_if_no_fault_fills_a_disk(tmp_path: Path) -> None:
    run = _run(tmp_path, *(FAULTS.keys() - {FULL_DISK}))
    assert run._disk(AsyncExitStack(), tmp_path / "data") is None
    assert run.left_out == {}


def test_a_disk_is_filled_by_making_it_as_small_as_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    # The first attempt to make it smaller fails: a mongod has written meanwhile.
    fails_once = f'case "$4" in remount*) if mkdir {tmp_path}/once; then exit 1; fi;; esac'
    _mount(tmp_path, monkeypatch, f'echo "$4" >> {calls}; {fails_once}')
    disk = Disk(tmp_path / "data")
    disk.fill()
    disk.free()
    mounted, failed, filled, freed = calls.read_text().split()
    assert failed.startswith("remount,size=")
    assert filled.startswith("remount,size=")
    assert filled != freed == f"remount,{mounted}"


def test_a_disk_that_cannot_be_filled_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _mount(tmp_path, monkeypatch, 'case "$4" in remount*) exit 1;; esac')
    disk = Disk(tmp_path / "data")
    with pytest.raises(NotMounted):
        disk.fill()
