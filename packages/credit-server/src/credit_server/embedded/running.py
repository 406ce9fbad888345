"""The `mongod` that runs on a data directory: find it, and stop one that outlived its server.

A server that is killed ends its `mongod` through the watchdog (see `process`), but the watchdog may
be killed too, and a quick restart may find the old `mongod` still shutting down.
"""

import asyncio
import fcntl
import itertools
import os
import signal
from pathlib import Path

from credit_models.timeouts import Timeout

from credit_server.embedded.data_directory import DataDirectory
from credit_server.embedded.errors import DataDirectoryInUse, MongodFailed
from credit_server.embedded.process import HOST
from credit_server.store.connection import REPLICA_SET

_POLL_SECONDS = 0.02
_KILL_SECONDS = 10.0


def running_uri(data_dir: Path) -> str | None:
    """Return the MongoDB URI of the `mongod` on a data directory, or None if none is running.

    The port is another one at every start and is not recorded: it is read from the process's
    command line. Without /proc the result is None.

    Raises:
        MongodFailed: The directory cannot be read.
    """
    directory = DataDirectory.at(data_dir)
    process = _holder(directory)
    if not process or not _is_ours(process, directory):
        return None
    port = _port(process)
    return None if port is None else f"mongodb://{HOST}:{port}/?replicaSet={REPLICA_SET}"


def has_database(data_dir: Path) -> bool:
    """Return whether a server has ever started its `mongod` on a data directory.

    Raises:
        MongodFailed: The directory cannot be read.
    """
    directory = DataDirectory.at(data_dir)
    try:
        (directory.database / "WiredTiger").stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise directory.unusable(error) from error
    return True


async def end_orphan(directory: DataDirectory, *, timeout_seconds: float) -> None:
    """Stop a `mongod` that outlived its server on a data directory, and wait until it has ended.

    Args:
        directory: A data directory that the caller has locked, so that no live server uses it.
        timeout_seconds: How long the orphan may take to shut down before it is killed.

    Raises:
        DataDirectoryInUse: A process that no server of ours started holds the database.
        MongodFailed: The orphan cannot be stopped.
    """
    for signal_number, seconds in (
        (signal.SIGTERM, timeout_seconds),
        (signal.SIGKILL, _KILL_SECONDS),
    ):
        holder = _holder(directory)
        if holder is None:
            return
        _signal(holder, signal_number, directory)
        if await _released(directory, timeout_seconds=seconds):
            return
    raise MongodFailed(
        f"A mongod left over from an earlier run (process {_holder(directory)}) holds "
        f"{directory.database} and does not end. Stop it, then start again."
    )


def _signal(holder: int, signal_number: signal.Signals, directory: DataDirectory) -> None:
    if not _is_ours(holder, directory):
        raise DataDirectoryInUse(
            f"The database in {directory.database} is in use by a MongoDB that this server did not "
            f"start (process {holder}, according to its lock file). Stop that MongoDB, or give "
            f"this server a directory of its own with CREDIT_DATA_DIR."
        )
    try:
        os.kill(holder, signal_number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise MongodFailed(
            f"A mongod left over from an earlier run (process {holder}) belongs to another user. "
            f"Stop it with `kill {holder}` as that user, then start again."
        ) from error


async def _released(directory: DataDirectory, *, timeout_seconds: float) -> bool:
    try:
        async with Timeout(timeout_seconds):
            # The orphan is not our child: only its lock shows when it has ended.
            while _holder(directory) is not None:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        return False
    return True


def _holder(directory: DataDirectory) -> int | None:
    """Return the process that holds `mongod`'s own lock; 0 if its number cannot be read."""
    try:
        with (directory.database / "mongod.lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                content = file.read(32).strip()
                return int(content) if content.isdigit() else 0
    except FileNotFoundError:
        return None
    except OSError as error:
        raise directory.unusable(error) from error
    return None


def _is_ours(process: int, directory: DataDirectory) -> bool:
    """Return whether a server on this directory started a process.

    Its command line has both paths. Without /proc the result is False, and the operator is asked to
    stop the process.
    """
    ours = {
        (b"--dbpath", os.fsencode(directory.database)),
        (b"--logpath", os.fsencode(directory.log)),
    }
    return ours <= set(_options(process))


def _port(process: int) -> int | None:
    for option, value in _options(process):
        if option == b"--port" and value.isdigit():
            return int(value)
    return None


def _options(process: int) -> list[tuple[bytes, bytes]]:
    """Return each argument of a process's command line with the next one; none without /proc."""
    try:
        arguments = Path("/proc", str(process), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    return list(itertools.pairwise(arguments))
