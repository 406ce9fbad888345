"""A real mongod for tests, in a session of its own, stopped by its process number."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import SystemRandom

from credit_server.embedded import find_mongod
from credit_server.store.replica_set import REPLICA_SET, ensure_primary

HOST = "127.0.0.1"
_START_TIMEOUT_SECONDS = 60.0
# Below the ports that Linux gives to outgoing connections and to `bind(0)` (from 32768): another
# test that runs at the same time cannot take one of these while its owner restarts.
_LASTING_PORTS = range(20_000, 32_000)


class MongodProcess:
    """A mongod on a free loopback port; it keeps port and data when it is started again."""

    def __init__(self, folder: Path, *options: str, standalone: bool = False) -> None:
        """Describe a mongod.

        Args:
            folder: An empty folder, for the data and the log.
            options: Further options of its command line.
            standalone: No replica set, and therefore no transactions.
        """
        self._database = folder.resolve() / "database"
        self._log = folder.resolve() / "mongod.log"
        self._options: Sequence[str] = options
        self._standalone = standalone
        self._process: subprocess.Popen[bytes] | None = None
        self.port = lasting_port()

    @property
    def uri(self) -> str:
        """The connection string."""
        return f"mongodb://{HOST}:{self.port}/" + (
            "" if self._standalone else f"?replicaSet={REPLICA_SET}"
        )

    async def start(self) -> None:
        """Start it; it takes writes when this returns."""
        self._launch()
        if not self._standalone:
            await ensure_primary(
                HOST,
                self.port,
                timeout_seconds=_START_TIMEOUT_SECONDS,
                database_path=self._database,
            )

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal and wait until it is gone; nothing happens when none runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # one that a test has stopped would not end
        await asyncio.to_thread(process.wait)

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


def lasting_port() -> int:
    """Return a free loopback port that stays free while its owner restarts."""
    random = SystemRandom()
    while True:
        port = random.choice(_LASTING_PORTS)
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                continue
            return port


@asynccontextmanager
async def running_mongod(
    folder: Path, *options: str, standalone: bool = False
) -> AsyncIterator[MongodProcess]:
    """Run a mongod for as long as the context lasts."""
    mongod = MongodProcess(folder, *options, standalone=standalone)
    try:
        await mongod.start()
        yield mongod
    finally:
        await mongod.end()


def embedded_mongod_pid(data_dir: Path) -> int:
    """The process number of the mongod that a server has started on its data directory."""
    return int((data_dir / "mongo" / "mongod.lock").read_text())


async def kill_embedded_mongod(data_dir: Path) -> None:
    """Kill the mongod of a server, as a machine short of memory would, and wait for its end."""
    pid = embedded_mongod_pid(data_dir)
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    await gone(descriptor)


async def gone(descriptor: int) -> None:
    """Wait until the process behind a descriptor of `os.pidfd_open` has ended; closes it."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def is_alive(pid: int) -> bool:
    """Whether there is a process with this number."""
    return Path("/proc", str(pid)).exists()
