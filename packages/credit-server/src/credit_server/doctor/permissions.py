"""Permissions of files: who may read secrets, and who may change what is believed."""

import stat
from pathlib import Path

from credit_server.doctor.finding import Finding, fails, warning


def readable_by_others(path: Path, check: str) -> Finding | None:
    """Return a warning when others than its owner can read or change a secret file."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        return None
    return warning(
        check, f"{path} is open to other users (mode {mode:04o})", f"run: chmod 600 {path}"
    )


def changeable_by_others(path: Path, check: str) -> Finding | None:
    """Return a failure when others than its owner can change a file that decides who is who."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o022:
        return None
    return fails(
        check,
        f"{path} can be changed by other users (mode {mode:04o}): whoever does, decides who may"
        " do what",
        f"run: chmod go-w {path}",
    )
