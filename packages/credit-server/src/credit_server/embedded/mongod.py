"""The embedded `mongod`: starts with the server, is watched while it serves, stops with it."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from credit_server.embedded.data_directory import DataDirectory, DirectoryLock
from credit_server.embedded.errors import Cause, Diagnosis, MongodFailed, NoDatabase
from credit_server.embedded.process import HOST, LaunchSettings, MongodProcess, find_mongod
from credit_server.embedded.running import end_orphan, has_database, running_uri
from credit_server.store.connection import REPLICA_SET, ensure_primary

_ATTEMPTS = 5

FREE_BYTES_MIN = 128_000_000
"""The free disk space that mongod needs to start. The storage engine writes its journal in files of
100 MB, and a new database has other files too."""


class EmbeddedMongod:
    """A private one-node replica set on a free loopback port.

    Use it as `async with EmbeddedMongod(data_dir=...) as mongod`, or call `start` and `stop`. When
    `mongod` dies by itself, `wait_exited` returns, and `restart` starts it again at the same
    address.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        executable: Path | None = None,
        start_timeout_seconds: float = 60,
        stop_timeout_seconds: float = 30,
        cache_gigabytes: float = 0.25,
        on_exit: Callable[[str], None] | None = None,
    ) -> None:
        """Describe a `mongod` without starting it.

        Args:
            data_dir: The data directory; created, with mode 0700, if it is missing.
            executable: The program to run; None: the one that `find_mongod` finds.
            start_timeout_seconds: How long it may take to become primary. Recovery after a power
                cut replays the journal, which takes seconds.
            stop_timeout_seconds: How long it may take to shut down before it is killed.
            cache_gigabytes: The storage engine's cache, at least 0.25.
            on_exit: Called with the reason when `mongod` ends without having been stopped.
        """
        self._directory = DataDirectory.at(data_dir)
        self._executable = executable
        self._start_timeout_seconds = start_timeout_seconds
        self._stop_timeout_seconds = stop_timeout_seconds
        self._cache_gigabytes = cache_gigabytes
        self._on_exit = on_exit
        self._lock: DirectoryLock | None = None
        self._port: int | None = None
        self._process: MongodProcess | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._exited: asyncio.Future[str] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """The process number of the running `mongod`.

        Raises:
            RuntimeError: It is not running.
        """
        if self._process is None:
            raise RuntimeError("the embedded mongod is not running")
        return self._process.pid

    @property
    def port(self) -> int:
        """The loopback port; a restart keeps it.

        Raises:
            RuntimeError: It has not been started.
        """
        if self._port is None:
            raise RuntimeError("the embedded mongod has not been started")
        return self._port

    @property
    def uri(self) -> str:
        """The MongoDB URI for clients on this machine.

        Raises:
            RuntimeError: It has not been started.
        """
        return f"mongodb://{HOST}:{self.port}/?replicaSet={REPLICA_SET}"

    async def start(self) -> str:
        """Start `mongod` and wait until it is a writable primary.

        Returns:
            The URI.

        Raises:
            MongodNotFound: There is no `mongod` on this machine.
            DataDirectoryInUse: Another server, or another MongoDB, holds the data directory.
            MongodFailed: `mongod` ended, or was not primary in time.
            RuntimeError: It is started already.
        """
        if self._lock is not None:
            raise RuntimeError("the embedded mongod is started already")
        settings = self._settings()
        self._directory.create()
        self._lock = self._directory.lock()
        try:
            await self._start_on_a_free_port(settings)
        except BaseException:
            await self.stop()
            raise
        return self.uri

    async def restart(self) -> str:
        """End `mongod` if it still runs, and start it again on the same port.

        Clients reconnect by themselves. After a failure, call `restart` again or `stop`.

        Returns:
            The URI, which is the same as before.

        Raises:
            DataDirectoryInUse: Another MongoDB holds the database.
            MongodFailed: `mongod` ended, was not primary in time, or its port was taken.
            RuntimeError: It has not been started, or was stopped.
        """
        if self._lock is None:
            raise RuntimeError("the embedded mongod has not been started")
        await self._end()
        await self._start_on(self.port, self._settings())
        return self.uri

    async def stop(self) -> None:
        """Shut `mongod` down, kill it after the timeout, and release the data directory.

        If it is not running, nothing is done.
        """
        await self._end()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def wait_exited(self) -> str:
        """Wait until `mongod` ends without having been stopped; forever, if it is stopped.

        Returns:
            What happened, for the operator. It stays the same until `restart`.

        Raises:
            RuntimeError: It has not been started.
            Exception: A bug: it is not known any more whether `mongod` runs.
        """
        if self._exited is None:
            raise RuntimeError("the embedded mongod has not been started")
        return await asyncio.shield(self._exited)

    def lacks_space(self) -> bool:
        """Return whether the disk of the data directory has too little space for a start."""
        return self._free_bytes() < FREE_BYTES_MIN

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._directory.root).free

    def _settings(self) -> LaunchSettings:
        return LaunchSettings(
            executable=self._executable or find_mongod(),
            directory=self._directory,
            cache_gigabytes=self._cache_gigabytes,
        )

    async def _start_on_a_free_port(self, settings: LaunchSettings) -> None:
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(_LostRace):
                return await self._start_on(free_port(), settings)
        return await self._start_on(free_port(), settings)

    async def _start_on(self, port: int, settings: LaunchSettings) -> None:
        await end_orphan(self._directory, timeout_seconds=self._stop_timeout_seconds)
        process = await MongodProcess.launch(settings, port)
        try:
            serves = await self._becomes_primary(process, port)
        except TimeoutError as error:
            diagnosis = process.diagnosis()
            await process.kill()
            late = f" within {self._start_timeout_seconds:g} s ({error})"
            raise MongodFailed(self._failure(diagnosis, late)) from error
        except BaseException:
            await process.kill()
            raise
        if not serves:
            diagnosis = process.diagnosis()
            kind = MongodFailed if diagnosis.cause is Cause.OTHER else _LostRace
            raise kind(self._failure(diagnosis))
        self._serve(process, port)

    async def _becomes_primary(self, process: MongodProcess, port: int) -> bool:
        """Wait until the process serves, and return True; False: it has ended.

        Raises:
            TimeoutError: It does neither in time.
        """
        exit_ = asyncio.create_task(process.wait())
        primary = asyncio.create_task(
            ensure_primary(
                HOST,
                port,
                timeout_seconds=self._start_timeout_seconds,
                database_path=self._directory.database,
            )
        )
        try:
            await asyncio.wait({exit_, primary}, return_when=asyncio.FIRST_COMPLETED)
            if exit_.done():
                return False
            await primary
            return True
        finally:
            await _cancel(exit_)
            await _cancel(primary)

    def _serve(self, process: MongodProcess, port: int) -> None:
        self._process = process
        self._port = port
        self._exited = asyncio.get_running_loop().create_future()
        self._watcher = asyncio.create_task(self._watch(process, self._exited))

    async def _watch(self, process: MongodProcess, exited: asyncio.Future[str]) -> None:
        try:
            await process.wait()
            sentence = (
                f"The embedded mongod (process {process.pid}) ended while it was serving. "
                f"{process.diagnosis().sentence}"
            )
            if self._on_exit is not None:
                self._on_exit(sentence)
        except Exception as bug:  # noqa: BLE001 - `wait_exited` raises it
            exited.set_exception(bug)
        else:
            exited.set_result(sentence)

    async def _end(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            await _cancel(watcher)
        if self._process is not None:
            await self._process.end(timeout_seconds=self._stop_timeout_seconds)
            self._process = None

    def _failure(self, diagnosis: Diagnosis, detail: str = "") -> str:
        space = (
            f" Only {self._free_bytes() // 1_000_000} MB are free on its disk."
            if self.lacks_space()
            else ""
        )
        return (
            f"The embedded mongod did not start{detail}; its log is {self._directory.log}.{space} "
            f"{diagnosis.sentence}"
        )


class _LostRace(MongodFailed):
    """The port, or the database, was taken after it was found free: the start is retried."""


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end; its result or error is dropped."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


@contextlib.asynccontextmanager
async def open_uri(data_dir: Path) -> AsyncIterator[str]:
    """Yield the URI of the `mongod` of a running server, or start one during the context.

    Raises:
        NoDatabase: The data directory has no database. Nothing was created.
        EmbeddedError: It cannot be started.
    """
    uri = running_uri(data_dir)
    if uri is not None:
        yield uri
        return
    if not has_database(data_dir):
        raise NoDatabase(
            f"there is no database in {data_dir}: set CREDIT_MONGODB_URI, or"
            " CREDIT_DATA_DIR to the folder of a server"
        )
    async with EmbeddedMongod(data_dir=data_dir) as mongod:
        yield mongod.uri
