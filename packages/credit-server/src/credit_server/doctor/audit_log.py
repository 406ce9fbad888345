"""The audit log's file: could a server append to it?"""

import os
from pathlib import Path

from credit_server.doctor.finding import Finding, fails, ok
from credit_server.doctor.permissions import readable_by_others

_CHECK = "audit log"


def check_audit_log(path: Path) -> Finding:
    """Judge the file that is named for it. It need not exist, and it is not made."""
    try:
        # Not blocking: it may be a pipe that nobody reads.
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK))
    except FileNotFoundError:
        return _absent(path)
    except OSError as error:
        return _unusable(path, str(error.strerror))
    return readable_by_others(path, _CHECK) or ok(_CHECK, f"{path} can be written to")


def _absent(path: Path) -> Finding:
    folder = path.resolve().parent  # where a link leads, the file is made
    if not folder.is_dir():
        return _unusable(path, f"there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        return _unusable(path, f"no file can be made in {folder}")
    return ok(_CHECK, f"{path} is not there yet; the first start makes it")


def _unusable(path: Path, why: str) -> Finding:
    remedy = "no server starts with it: name another with --audit-log, or make its folder"
    return fails(_CHECK, f"{path} cannot be opened: {why}", remedy)
