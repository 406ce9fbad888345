"""Which `mongod` program is run."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from credit_server.embedded import MongodNotFound, find_mongod, process


def test_the_one_on_path_comes_first(
    monkeypatch: pytest.MonkeyPatch, fake_mongod: Callable[[str], Path], tmp_path: Path
) -> None:
    on_path = fake_mongod("exit 0").rename(tmp_path / "mongod")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_mongod() == on_path


def test_the_one_in_the_wheel_is_found_without_importing_anything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    loaded = set(sys.modules)
    found = find_mongod()
    assert found.parts[-4:] == ("fiftyone", "db", "bin", "mongod")
    assert os.access(found, os.X_OK)
    assert not {name for name in set(sys.modules) - loaded if name.startswith("fiftyone")}


def test_one_in_the_wheel_that_lost_its_mode_is_made_executable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "mongod"
    program.touch(mode=0o644)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(process, "_in_wheel", lambda: [tmp_path / "missing", program])
    assert find_mongod() == program
    assert program.stat().st_mode & 0o777 == 0o755


def test_if_there_is_none_the_error_names_all_three_remedies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MongodNotFound) as caught:
        find_mongod()
    for remedy in (
        "pip install ./dist/*.whl 'credit-server[embedded]'",
        "PATH",
        "CREDIT_MONGODB_URI",
    ):
        assert remedy in str(caught.value)
