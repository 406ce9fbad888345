"""Facts about the machine, the versions and the time of a run."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pymongo import MongoClient

_PACKAGES = ("credit-server", "grpcio", "grpclib", "h2", "ngh2", "pymongo", "motor", "uvloop")

Facts = Mapping[str, str | int | float]


def facts_at_start(uri: str) -> dict[str, str | int | float]:
    """Return what is known when a run on a replica set starts."""
    client: MongoClient[dict[str, object]]  # reads no documents
    with MongoClient(uri) as client:
        mongod = str(client.server_info()["version"])
    return {
        "began_at": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": _commit(),
        "cores": os.cpu_count() or 0,
        "processor": _processor(),
        "system": platform.system(),
        "mongod": mongod,
        "python": platform.python_version(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        **{name: version(name) for name in _PACKAGES},
    }


def facts_at_end() -> dict[str, str | int | float]:
    """Return what is known when a run has ended."""
    return {"load_average_at_end": round(os.getloadavg()[0], 2)}


def _processor() -> str:
    """Return the model of the processor; where Linux does not show it, its architecture.

    Ratios of systems in Python to systems in C differ between models.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields = [line.partition(":") for line in lines]
    models = [value.strip() for name, _, value in fields if name.strip() == "model name"]
    return next(iter(models), platform.machine())


def _commit() -> str:
    """Return the commit of the source, with a mark if files differ; empty without git."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],  # noqa: S607
            cwd=Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
