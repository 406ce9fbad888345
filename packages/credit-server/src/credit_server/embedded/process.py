"""One run of the `mongod` program: its command line, its watchdog, its end."""

import asyncio
import contextlib
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from credit_server.embedded.data_directory import DataDirectory
from credit_server.embedded.diagnosis import Diagnosis, diagnose
from credit_server.embedded.errors import MongodFailed
from credit_server.store.replica_set import REPLICA_SET

HOST = "127.0.0.1"

# Of a log that may have grown for months, the end is what tells about the end.
_LOG_TAIL_BYTES = 64 * 1024

# Waits until its input closes, which happens when the server is gone in whatever way, and then asks
# mongod to shut down. The kernel's own means, PR_SET_PDEATHSIG, would need code between fork and
# exec, follows the starting thread instead of the process, and is Linux's alone.
_WATCHDOG = 'read -r _; kill -TERM "$0" 2>/dev/null'


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchSettings:
    """How to run `mongod`.

    Attributes:
        executable: The program.
        directory: Where its data are.
        cache_gigabytes: The storage engine's cache; MongoDB's least is 0.25.
    """

    executable: Path
    directory: DataDirectory
    cache_gigabytes: float

    def command(self, port: int) -> list[str]:
        """The command line that serves on a loopback port and nowhere else."""
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
            # What a server that crashed has left open would block its users for 60 s, the default.
            *("--setParameter", "transactionLifetimeLimitSeconds=10"),
            # One node has nobody to catch up with; the default is 5 % of the disk.
            *("--oplogSize", "256"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # The default lets clients of other nodes finish for up to 15 s; there are none.
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
        """Starts `mongod`.

        Raises:
            MongodFailed: The program cannot be executed, or the data directory be written to.
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
        """The process's number."""
        return self._process.pid

    @property
    def watchdog_pid(self) -> int:
        """The watchdog's process number."""
        return self._watchdog.pid

    async def wait(self) -> None:
        """Waits for the end, and dismisses the watchdog, whose target's number is now free."""
        await self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            self._watchdog.kill()
        await self._watchdog.wait()

    async def end(self, *, timeout_seconds: float) -> None:
        """Shuts `mongod` down, and kills it when that takes longer than it may.

        A killed `mongod` loses nothing that was acknowledged: its journal is replayed next time.
        """
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Ends `mongod` at once."""
        self._send(signal.SIGKILL)
        await self.wait()

    def diagnosis(self) -> Diagnosis:
        """Explains from what it left behind why this run ended, or what holds it up."""
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
