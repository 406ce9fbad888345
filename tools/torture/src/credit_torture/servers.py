"""Servers that are killed, stopped and started again on the same ports."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self

from credit_testing.child import descendants
from credit_testing.injected import MovedClock
from credit_testing.ports import HOST, lasting_port
from credit_testing.server import ServerNotStarted, ServerProcess, running_server

_RESTART_SECONDS = 1.0


class Server:
    """One server with its clock.

    Attributes:
        name: Its name in the report.
        clock: The clock that moves the server's wall clock.
        process: The running process; None while it does not run.
        findings: A sentence for each wrong exit status.
    """

    def __init__(self, name: str, folder: Path, options: Sequence[str], *, workers: int) -> None:
        """Start nothing yet.

        Args:
            name: Its name in the report.
            folder: A new folder, for its log.
            options: The options of its command line, without the port.
            workers: The number of its processes.
        """
        folder.mkdir(parents=True)
        self.name = name
        self.clock = MovedClock(folder)
        self.workers = workers
        self.process: ServerProcess | None = None
        self.findings: list[str] = []
        self._launched: ServerProcess | None = None
        self._folder = folder
        self._port = lasting_port()
        self._options = [*options, "--port", str(self._port), "--workers", str(workers)]
        self._stack = AsyncExitStack()

    @property
    def address(self) -> str:
        """Return its host and port."""
        return f"{HOST}:{self._port}"

    def pids(self) -> list[int]:
        """Return the ids of its processes, from its launch on; a supervisor is the first."""
        process = self._launched
        if process is None:
            return []
        with suppress(OSError):
            return [process.pid, *descendants(process.pid)]
        return []

    async def start(self) -> None:
        """Start it, and wait until it serves.

        Raises:
            ServerNotStarted: The server has ended instead.
        """
        context = running_server(
            self._folder,
            *self._options,
            environment=self.clock.environment,
            forked=False,
            launched=self._launch,
        )
        try:
            self.process = await self._stack.enter_async_context(context)
        except BaseException:
            self._launched = None  # its id may be that of another process soon
            raise
        assert self.clock.is_read

    def _launch(self, process: ServerProcess) -> None:
        self._launched = process

    async def start_again(self) -> None:
        """Start it repeatedly until it serves. A server ends at once if there is no primary."""
        while self.process is None:
            try:
                await self.start()
            except ServerNotStarted:
                await asyncio.sleep(_RESTART_SECONDS)

    async def end(self, number: signal.Signals) -> None:
        """End the server with a signal, wait until it ends, and check its exit status."""
        process, self.process = self.process, None
        assert process is not None
        status = await process.stop(number)
        self._launched = None
        await self._stack.aclose()
        expected = 0 if number == signal.SIGTERM else -number
        if status != expected:
            self.findings.append(
                f"server {self.name} ended with status {status} after {number.name}, not {expected}"
            )

    async def close(self) -> None:
        """Kill it if it runs."""
        self.send(signal.SIGKILL)
        self.process = self._launched = None
        await self._stack.aclose()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class Servers:
    """All servers.

    Attributes:
        all: The servers.
    """

    def __init__(self, folder: Path, options: Sequence[str], workers: Sequence[int]) -> None:
        """Start nothing yet.

        Args:
            folder: The parent folder of each server's folder.
            options: Their command line.
            workers: The number of processes of each.
        """
        self.all = [
            Server(name, folder / name, options, workers=count)
            for name, count in zip("abcdef", workers, strict=False)
        ]

    def __iter__(self) -> Iterator[Server]:
        return iter(self.all)

    async def __aenter__(self) -> Self:
        """Start all servers."""
        try:
            await asyncio.gather(*(server.start_again() for server in self.all))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill the servers that run."""
        await asyncio.gather(*(server.close() for server in self.all))
