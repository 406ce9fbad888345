"""Ends a `mongod` that outlived the server which started it.

A server that is killed takes its `mongod` with it through the watchdog (see `process`), but the
watchdog may be killed too, and a quick restart may find the old `mongod` still shutting down. The
caller holds the data directory's lock, so no live server stands behind such a `mongod`.
"""

import asyncio
import fcntl
import itertools
import os
import signal
from pathlib import Path

from credit_server.embedded.data_directory import DataDirectory
from credit_server.embedded.errors import DataDirectoryInUse, MongodFailed

_POLL_SECONDS = 0.02
_KILL_SECONDS = 10.0


async def end_orphan(directory: DataDirectory, *, timeout_seconds: float) -> None:
    """Stops the orphan in a data directory, if there is one, and waits until it is gone.

    Args:
        directory: A data directory whose lock is held by the caller.
        timeout_seconds: How long the orphan may take to shut down before it is killed.

    Raises:
        DataDirectoryInUse: A process that no server of ours started holds the database.
        MongodFailed: The orphan cannot be stopped.
    """
    for signal_number, patience in (
        (signal.SIGTERM, timeout_seconds),
        (signal.SIGKILL, _KILL_SECONDS),
    ):
        holder = holder_of(directory.database)
        if holder is None:
            return
        _signal(holder, signal_number, directory)
        if await _released(directory.database, timeout_seconds=patience):
            return
    raise MongodFailed(
        f"A mongod left over from an earlier run (process {holder_of(directory.database)}) holds "
        f"{directory.database} and does not end. Stop it, then start again."
    )


def _signal(holder: int, signal_number: signal.Signals, directory: DataDirectory) -> None:
    if not is_ours(holder, directory):
        raise DataDirectoryInUse(
            f"The database in {directory.database} is in use by a MongoDB that this server did not "
            f"start (process {holder}, says its lock file). Stop that MongoDB, or give this server "
            f"a directory of its own with CREDIT_DATA_DIR."
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


async def _released(database: Path, *, timeout_seconds: float) -> bool:
    try:
        async with asyncio.timeout(timeout_seconds):
            # The orphan is not our child: its lock is the one thing that tells when it is done.
            while holder_of(database) is not None:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        return False
    return True


def holder_of(database: Path) -> int | None:
    """The process that holds `mongod`'s own lock; 0 where its number cannot be read."""
    try:
        with (database / "mongod.lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                content = file.read(32).strip()
                return int(content) if content.isdigit() else 0
    except FileNotFoundError:
        return None
    return None


def is_ours(process: int, directory: DataDirectory) -> bool:
    """Whether a server on this directory started a process: its command line has both paths.

    Where there is no /proc the answer is no, and the operator is asked to stop the process.
    """
    try:
        arguments = Path("/proc", str(process), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    ours = {
        (b"--dbpath", os.fsencode(directory.database)),
        (b"--logpath", os.fsencode(directory.log)),
    }
    return ours <= set(itertools.pairwise(arguments))
