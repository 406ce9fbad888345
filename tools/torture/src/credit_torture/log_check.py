"""Check that faults explain each error in the logs of the servers."""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from credit_torture.record import Line

_AFTERMATH_NANOSECONDS = 60 * 10**9
"""How long after a fault a server may log an error that the fault explains."""
_STORE = (
    "kill -9 of the primary",
    "kill -9 of a secondary",
    "kill -9 of all mongods",
    "SIGSTOP of the primary",
    "SIGSTOP of a secondary",
    "step-down of the primary",
    "primary cut off from the mongods",
    "primary cut off from all",
    "secondary cut off",
    "link of two mongods cut",
    "server cut off from the primary",
    "full disk of a mongod",
)
"""The faults after which the store may be unavailable."""
_EXPLAINED: Sequence[tuple[str, dict[str, str], Sequence[str]]] = (
    (
        "the clocks of this machine and the store differ",
        {},
        ("clock moved by an hour",),
    ),
    ("a worker is replaced", {"reason": "SIGKILL"}, ("kill -9 of a worker",)),
    ("a worker did not start", {"reason": "exit status 1"}, _STORE),
    ("a worker did not start", {"reason": "SIGKILL"}, ("kill -9 of a worker",)),
    ("the restart was cancelled", {"reason": "exit status 1"}, _STORE),
    ("the restart was cancelled", {"reason": "SIGKILL"}, ("kill -9 of a worker",)),
)
"""All errors that a server may log. Each has the beginning of the event, parts of its other fields,
and the faults that explain it. These are faults of the same server, or faults of the store."""
_UNAVAILABLE = re.compile(
    "credit-server: MongoDB"
    r" (at \S+ cannot be reached\.|has no primary that can be reached|could not serve the request)"
)
"""The messages of a server that cannot start because the store is unavailable."""


def log_findings(folder: Path, faults: Sequence[Line]) -> Iterator[str]:
    """Yield each error, traceback and unknown line that no fault explains.

    Args:
        folder: The folder that has a folder with logs for each server.
        faults: The faults of the run.
    """
    for path in sorted(folder.glob("*/*.log")):
        of_server = [
            fault
            for fault in faults
            if fault["fault"] in _STORE or fault["target"].split()[0] == path.parent.name
        ]
        for line in path.read_text(errors="replace").splitlines():
            if not _is_explained(line, of_server):
                yield f"server {path.parent.name} logged in {path.name}: {line}"


def _is_explained(line: str, faults: Sequence[Line]) -> bool:
    if _UNAVAILABLE.match(line):
        return any(fault["fault"] in _STORE for fault in faults)
    try:
        fields: Line = json.loads(line)
        level, time = fields["level"], datetime.fromisoformat(fields["timestamp"])
    except (ValueError, TypeError, KeyError):
        return False  # the line is not from the logger
    if level in ("debug", "info", "warning") and "exception" not in fields:
        return True
    at = time.timestamp() * 1e9
    return "exception" not in fields and any(
        fields["event"].startswith(event)
        and all(part in str(fields.get(name)) for name, part in more.items())
        and fault["fault"] in kinds
        and fault["wall"] <= at <= fault["wall"] + _seconds(fault)
        for event, more, kinds in _EXPLAINED
        for fault in faults
    )


def _seconds(fault: Line) -> int:
    lasted: int = fault["ended"] - fault["began"]
    return lasted + _AFTERMATH_NANOSECONDS
