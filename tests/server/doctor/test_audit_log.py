"""What a server could not open for its audit log fails, and nothing is made."""

import os
from pathlib import Path

import pytest
from credit_server.doctor.audit_log import check_audit_log
from credit_server.doctor.finding import Verdict


def test_a_file_that_is_not_there_yet_is_ok_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    assert check_audit_log(path).verdict is Verdict.OK
    assert not path.exists()


def test_a_file_in_the_working_directory_is_ok(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_audit_log(Path("audit.log")).verdict is Verdict.OK


@pytest.mark.parametrize(("mode", "verdict"), [(0o600, Verdict.OK), (0o644, Verdict.WARNING)])
def test_a_file_is_its_owners_alone_and_left_as_it_is(
    mode: int, verdict: Verdict, tmp_path: Path
) -> None:
    path = tmp_path / "audit.log"
    path.write_text("a line\n")
    path.chmod(mode)
    assert check_audit_log(path).verdict is verdict
    assert path.read_text() == "a line\n"


def test_a_folder_that_is_not_there_fails(tmp_path: Path) -> None:
    finding = check_audit_log(tmp_path / "not" / "there" / "audit.log")
    assert finding.verdict is Verdict.FAILS
    assert f"there is no folder {tmp_path / 'not' / 'there'}" in finding.found


def test_a_folder_fails(tmp_path: Path) -> None:
    assert check_audit_log(tmp_path).verdict is Verdict.FAILS


def test_a_folder_that_takes_no_files_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # modes do not bind root
    finding = check_audit_log(tmp_path / "audit.log")
    assert finding.verdict is Verdict.FAILS
    assert f"no file can be made in {tmp_path}" in finding.found


def test_a_link_into_a_folder_that_is_not_there_fails(tmp_path: Path) -> None:
    link = tmp_path / "audit.log"
    link.symlink_to(tmp_path / "unmounted" / "audit.log")
    assert check_audit_log(link).verdict is Verdict.FAILS
