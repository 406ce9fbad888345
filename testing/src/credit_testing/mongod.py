"""Run real mongods as child processes, alone or as a replica set of three, and kill them."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from credit_server.embedded import find_mongod
from credit_server.store.connection import REPLICA_SET, ensure_primary
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from credit_testing.child import gone
from credit_testing.ports import HOST, lasting_port

_START_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.05

# A replica set of three, with the settings of "Recovery of the replica set" in docs/deployment.md.
_NODES = 3
_ELECTION_MILLISECONDS = 1700
_CATCH_UP_MILLISECONDS = 500
_HEARTBEAT_MILLISECONDS = 500
_REPLICATION = (
    *("--setParameter", "oplogNetworkTimeoutBufferSeconds=1"),
    *("--setParameter", "oplogFetcherSteadyStateMaxFetcherRestarts=0"),
)
_STEP_DOWN_SECONDS = 10
_SELECT_MILLISECONDS = 30_000


class MongodProcess:
    """A mongod on a free loopback port. It keeps its port and data when it restarts.

    Attributes:
        database: The folder with its data.
        port: The port.
    """

    def __init__(self, folder: Path, *options: str, standalone: bool = False) -> None:
        """Describe a mongod.

        Args:
            folder: An empty folder, for the data and the log.
            options: More options of its command line.
            standalone: Whether it is no replica set, and has no transactions.
        """
        self.database = folder.resolve() / "database"
        self._log = folder.resolve() / "mongod.log"
        self._options: Sequence[str] = options
        self._standalone = standalone
        self._process: subprocess.Popen[bytes] | None = None
        self.port = lasting_port()

    @property
    def pid(self) -> int | None:
        """Return the process id; None while it does not run."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    @property
    def uri(self) -> str:
        """Return the connection string."""
        return f"mongodb://{HOST}:{self.port}/" + (
            "" if self._standalone else f"?replicaSet={REPLICA_SET}"
        )

    async def start(self) -> None:
        """Start it and wait until it accepts writes."""
        self.launch()
        if self._standalone:
            async with _direct(self) as client:
                await client.admin.command("ping")  # the driver waits until it listens
        else:
            await ensure_primary(
                HOST,
                self.port,
                timeout_seconds=_START_TIMEOUT_SECONDS,
                database_path=self.database,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal and wait for its end; do nothing if it does not run."""
        process = self._process
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a stopped process would not end
        await asyncio.to_thread(process.wait)
        self._process = None

    async def step_down(self) -> None:
        """Make the mongod step down, if it is the primary of a replica set."""
        async with _direct(self) as client:
            await client.admin.command("replSetStepDown", _STEP_DOWN_SECONDS)

    async def write_checkpoint(self) -> None:
        """Make the mongod write all data to its disk."""
        async with _direct(self) as client:
            await client.admin.command("fsync")

    def remove_data(self) -> None:
        """Remove its data, which take 300 MB, after its end; the log stays."""
        shutil.rmtree(self.database, ignore_errors=True)

    def launch(self) -> None:
        """Start it, and return at once."""
        self.database.mkdir(parents=True, exist_ok=True)
        set_name = () if self._standalone else ("--replSet", REPLICA_SET, "--oplogSize", "64")
        self._process = subprocess.Popen(
            [
                str(find_mongod()),
                *("--bind_ip", HOST, "--port", str(self.port), "--nounixsocket"),
                *("--dbpath", str(self.database), "--logpath", str(self._log), "--logappend"),
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
        await mongod.end(signal.SIGKILL)  # a clean shutdown would take a second
        mongod.remove_data()


class ReplicaSet:
    """Three mongods on free loopback ports. Any two of them elect a primary.

    Attributes:
        nodes: The mongods.
    """

    def __init__(
        self, folder: Path, *options: str, advertise: Callable[[int], int] = lambda port: port
    ) -> None:
        """Describe a replica set.

        Args:
            folder: An empty folder, for the data and the logs.
            options: More options of each command line.
            advertise: Returns the port at which others reach the mongod on a port, for example the
                port of a proxy.
        """
        self.nodes = [
            MongodProcess(folder / str(number), *_REPLICATION, *options) for number in range(_NODES)
        ]
        self._hosts = [f"{HOST}:{advertise(node.port)}" for node in self.nodes]

    @property
    def uri(self) -> str:
        """Return the connection string."""
        hosts = ",".join(self._hosts)
        return f"mongodb://{hosts}/?replicaSet={REPLICA_SET}"

    async def start(self) -> None:
        """Start all nodes, and wait until there is a primary."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            async with _direct(node) as client:
                await client.admin.command("ping")
        members = [{"_id": number, "host": host} for number, host in enumerate(self._hosts)]
        settings = {
            "electionTimeoutMillis": _ELECTION_MILLISECONDS,
            "catchUpTimeoutMillis": _CATCH_UP_MILLISECONDS,
            "heartbeatIntervalMillis": _HEARTBEAT_MILLISECONDS,
        }
        configuration = {"_id": REPLICA_SET, "members": members, "settings": settings}
        async with _direct(self.nodes[0]) as client:
            await client.admin.command("replSetInitiate", configuration)
        await self.primary()

    async def primary(self) -> MongodProcess:
        """Wait until there is a primary that a majority has elected, and return it."""
        while True:
            for node in self.nodes:
                with suppress(PyMongoError):
                    async with _direct(node) as client:
                        hello = await client.admin.command("hello")
                        if hello["isWritablePrimary"]:
                            return node
            await asyncio.sleep(_POLL_SECONDS)

    async def step_down(self) -> None:
        """Let the primary step down, so that the others elect another one."""
        await (await self.primary()).step_down()

    async def end(self) -> None:
        """Kill all nodes, and remove their data."""
        for node in self.nodes:
            await node.end(signal.SIGKILL)
            node.remove_data()


def _direct(node: MongodProcess) -> "AsyncMongoClient[dict[str, object]]":
    return AsyncMongoClient(
        HOST, node.port, directConnection=True, serverSelectionTimeoutMS=_SELECT_MILLISECONDS
    )


@asynccontextmanager
async def running_replica_set(folder: Path) -> AsyncIterator[ReplicaSet]:
    """Run a replica set for as long as the context lasts, and remove its data."""
    nodes = ReplicaSet(folder)
    try:
        await nodes.start()
        yield nodes
    finally:
        await nodes.end()


def embedded_mongod_pid(data_dir: Path) -> int:
    """Return the process id of the mongod that a server has started on its data directory."""
    return int((data_dir / "mongo" / "mongod.lock").read_text())


async def kill_embedded_mongod(data_dir: Path) -> None:
    """Kill the mongod of a server, as a machine short of memory does, and wait for its end."""
    pid = embedded_mongod_pid(data_dir)
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    await gone(descriptor)
