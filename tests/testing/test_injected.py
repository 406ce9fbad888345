"""Test that a process reads the clock that a test moves."""

import sys
import time
from pathlib import Path

import pytest
from credit_testing.child import complete
from credit_testing.injected import MovedClock

_HOUR = 3600


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = Path("server")
    folder.mkdir()
    return folder


async def test_a_process_in_another_folder_reads_a_clock_with_a_relative_path(
    folder: Path,
) -> None:
    clock = MovedClock(folder)
    clock.move(_HOUR)
    assert not clock.is_read
    log = folder / "log"
    program = [sys.executable, "-c", "import time; print(time.time())"]
    await complete(program, log, variables=clock.environment)
    assert clock.is_read
    assert float(log.read_text()) > time.time() + _HOUR / 2
