"""Stand-ins for `mongod`: shell scripts that fail in one way each."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def fake_mongod(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes an executable shell script with the given body."""

    def write(body: str) -> Path:
        script = tmp_path / "fake-mongod"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        return script

    return write
