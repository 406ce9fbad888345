"""Finds the `mongod` that a running server has started on a data directory."""

import itertools
from pathlib import Path

from credit_server.embedded.data_directory import DataDirectory
from credit_server.embedded.orphan import holder_of, is_ours
from credit_server.embedded.process import HOST
from credit_server.store.replica_set import REPLICA_SET


def running_uri(data_dir: Path) -> str | None:
    """Return the MongoDB URI of the `mongod` on a data directory, or None where none is running.

    The port is another at every start, and is recorded nowhere: the process's command line has it.
    Where there is no /proc the answer is None.
    """
    directory = DataDirectory.at(data_dir)
    process = holder_of(directory.database)
    if not process or not is_ours(process, directory):
        return None
    port = _port(process)
    return None if port is None else f"mongodb://{HOST}:{port}/?replicaSet={REPLICA_SET}"


def has_database(data_dir: Path) -> bool:
    """Say whether a server has ever started its `mongod` on a data directory."""
    return (DataDirectory.at(data_dir).database / "WiredTiger").exists()


def _port(process: int) -> int | None:
    try:
        arguments = Path("/proc", str(process), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    for option, value in itertools.pairwise(arguments):
        if option == b"--port" and value.isdigit():
            return int(value)
    return None
