"""Run a real mongod as a child process, and kill that of a server."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from credit_server.embedded import find_mongod
from credit_server.store.connection import REPLICA_SET, ensure_primary

from credit_testing.child import gone
from credit_testing.ports import HOST, lasting_port

_START_TIMEOUT_SECONDS = 60.0


class MongodProcess:
    """A mongod on a free loopback port; it keeps port and data when it restarts."""

    def __init__(self, folder: Path, *options: str, standalone: bool = False) -> None:
        """Describe a mongod.

        Args:
            folder: An empty folder, for the data and the log.
            options: More options of its command line.
            standalone: Whether it is no replica set, and has no transactions.
        """
        self._database = folder.resolve() / "database"
        self._log = folder.resolve() / "mongod.log"
        self._options: Sequence[str] = options
        self._standalone = standalone
        self._process: subprocess.Popen[bytes] | None = None
        self.port = lasting_port()

    @property
    def uri(self) -> str:
        """Return the connection string."""
        return f"mongodb://{HOST}:{self.port}/" + (
            "" if self._standalone else f"?replicaSet={REPLICA_SET}"
        )

    async def start(self) -> None:
        """Start it and wait until it accepts writes."""
        self._launch()
        if not self._standalone:
            await ensure_primary(
                HOST,
                self.port,
                timeout_seconds=_START_TIMEOUT_SECONDS,
                database_path=self._database,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal and wait for its end; do nothing if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a stopped process would not end
        await asyncio.to_thread(process.wait)

    def remove_data(self) -> None:
        """Remove its data, which take 300 MB, after its end; the log stays."""
        shutil.rmtree(self._database, ignore_errors=True)

    def _launch(self) -> None:
        self._database.mkdir(exist_ok=True)
        set_name = () if self._standalone else ("--replSet", REPLICA_SET, "--oplogSize", "64")
        self._process = subprocess.Popen(
            [
                str(find_mongod()),
                *("--bind_ip", HOST, "--port", str(self.port), "--nounixsocket"),
                *("--dbpath", str(self._database), "--logpath", str(self._log), "--logappend"),
                *("--quiet", "--wiredTigerCacheSizeGB", "0.25"),
                *("--setParameter", "diagnosticDataCollectionEnabled=false"),
                *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"),
                *set_name,
                *self._options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@asynccontextmanager
async def running_mongod(
    folder: Path, *options: str, standalone: bool = False
) -> AsyncIterator[MongodProcess]:
    """Run a mongod for as long as the context lasts, and remove its data."""
    mongod = MongodProcess(folder, *options, standalone=standalone)
    try:
        await mongod.start()
        yield mongod
    finally:
        await mongod.end()
        mongod.remove_data()


def embedded_mongod_pid(data_dir: Path) -> int:
    """Return the process id of the mongod that a server has started on its data directory."""
    return int((data_dir / "mongo" / "mongod.lock").read_text())


async def kill_embedded_mongod(data_dir: Path) -> None:
    """Kill the mongod of a server, as a machine short of memory does, and wait for its end."""
    pid = embedded_mongod_pid(data_dir)
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    await gone(descriptor)
