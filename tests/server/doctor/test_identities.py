"""A file of identities that cannot be read, or that others can change."""

from pathlib import Path

import pytest
from credit_server.doctor.finding import Verdict
from credit_server.doctor.identities import check_identities

from tests.server.doctor.papers import written


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b"{}"), ("a.json", b'{"shop": {"scopes": []}}'), ("a.toml", b"[shop]\nscopes=[]")],
)
def test_a_file_that_can_be_read_is_ok(name: str, content: bytes, tmp_path: Path) -> None:
    assert check_identities(written(tmp_path / name, content)).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"a = 1"),
        ("a.toml", b"{}"),
        ("a.json", b"\xff"),
        ("a.toml", b"a = 1"),
        ("a.json", b'{"shop": {"scope": "all"}}'),
        ("a.json", b'{"shop": {"scopes": []}, "shop": {"scopes": ["credits:issue"]}}'),
    ],
)
def test_a_file_that_is_not_what_it_should_be_fails(
    name: str, content: bytes, tmp_path: Path
) -> None:
    assert check_identities(written(tmp_path / name, content)).verdict is Verdict.FAILS


def test_a_file_that_others_can_change_fails(tmp_path: Path) -> None:
    finding = check_identities(written(tmp_path / "a.json", b"{}", 0o646))
    assert finding.verdict is Verdict.FAILS
    assert finding.remedy.startswith("run: chmod go-w")


def test_a_file_that_is_not_there_fails(tmp_path: Path) -> None:
    assert check_identities(tmp_path / "missing").verdict is Verdict.FAILS
