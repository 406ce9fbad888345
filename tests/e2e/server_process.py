"""The real `credit-server`, as a process that tests start, ask, and stop by its process number."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from credit_server.app import migrate
from credit_server.settings import StoreSettings
from pydantic import SecretStr

COMMAND = [sys.executable, "-m", "credit_server.main"]

# Whatever hangs is ended in the end, so that it does not outlive the tests; nothing waits so long.
_PATIENCE_SECONDS = 60.0

LogLine = Mapping[str, Any]  # as JSON gives it


class ServerNotStarted(Exception):
    """The server ended before it served. The message is what it said."""


class ServerProcess:
    """A running `credit-server serve`.

    Attributes:
        pid: Its process number.
        banner: What it has said on standard output.
        address: Its host:port.
        folder: Its working directory.
        stderr: The file that has its standard error.
    """

    def __init__(self, process: subprocess.Popen[bytes], stderr: Path) -> None:
        self._process = process
        self._arrived = threading.Condition()
        self._lines: list[bytes] = []
        self._ended = False
        self.pid = process.pid
        self.folder = stderr.parent
        self.stderr = stderr
        self.banner = ""
        assert process.stderr is not None
        self._reader = threading.Thread(target=self._read_log, args=(process.stderr,))
        self._reader.start()

    @property
    def address(self) -> str:
        """Where it listens, as the banner says."""
        return self.banner.partition("listens on ")[2].partition(" ")[0]

    @property
    def port(self) -> int:
        """The port of the address."""
        return int(self.address.rpartition(":")[2])

    @property
    def log(self) -> list[LogLine]:
        """The lines of its log so far."""
        with self._arrived:
            return [json.loads(line) for line in self._lines]

    async def logged(self, matches: Callable[[LogLine], bool], *, times: int = 1) -> LogLine:
        """Wait until it has logged so many lines that match, and return the last of them.

        Raises:
            LookupError: It has ended without them.
        """
        return await asyncio.to_thread(self._wait_for, matches, times)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Wait for its end and return its exit status; minus the signal's number if killed."""
        status = await asyncio.to_thread(self._process.wait)
        await asyncio.to_thread(self._reader.join)
        return status

    def wait_standing_still(self) -> int:
        """Wait as `wait` does, while the event loop stands still, as that of a busy client."""
        return self._process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.send(number)
        return await self.wait()

    async def read_banner(self) -> None:
        """Wait until it serves.

        Raises:
            ServerNotStarted: It has ended instead.
        """
        assert self._process.stdout is not None
        # A line to try comes last, and only where anybody may.
        while "  stop " not in self.banner or (
            "no TLS, no identities" in self.banner and "  try " not in self.banner
        ):
            line = await asyncio.to_thread(self._process.stdout.readline)
            if not line:
                status = await self.wait()
                said = self.stderr.read_text()
                raise ServerNotStarted(f"exit status {status}\n{self.banner}{said}")
            self.banner += line.decode()

    async def end(self) -> None:
        """End it in whatever way, and give everything back."""
        if self._process.poll() is None:
            self.send(signal.SIGTERM)
            try:
                await asyncio.to_thread(self._process.wait, _PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
        await self.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read_log(self, pipe: BinaryIO) -> None:
        with pipe, self.stderr.open("wb", buffering=0) as file:
            for line in pipe:
                file.write(line)
                with self._arrived:
                    self._lines.append(line)
                    self._arrived.notify_all()
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def _wait_for(self, matches: Callable[[LogLine], bool], times: int) -> LogLine:
        seen = 0
        with self._arrived:
            while True:
                for line in self._lines[seen:]:
                    fields: LogLine = json.loads(line)
                    times -= matches(fields)
                    if times == 0:
                        return fields
                seen = len(self._lines)
                if self._ended:
                    raise LookupError(f"the server has ended and not logged it; see {self.stderr}")
                self._arrived.wait()


@asynccontextmanager
async def running_server(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[ServerProcess]:
    """Run `credit-server serve` for as long as the context lasts; it serves when it begins.

    Args:
        folder: Its working directory, in which its standard error is kept too.
        options: Its command line; the port is a free one unless they name it.
        environment: Variables beside those of this process.

    Raises:
        ServerNotStarted: It has ended instead of serving.
    """
    server = _launch(folder, options, environment)
    try:
        await server.read_banner()
        yield server
    finally:
        await server.end()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        status: Its exit status.
        output: What it wrote to standard output.
        errors: What it wrote to standard error.
    """

    status: int
    output: str
    errors: str


async def run_credit_server(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run a `credit-server` that is expected to end by itself."""
    done = await asyncio.to_thread(
        subprocess.run,
        [*COMMAND, *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=folder,
        env=_environment(environment),
        timeout=_PATIENCE_SECONDS,
    )
    return Ended(status=done.returncode, output=done.stdout, errors=done.stderr)


async def migrated(uri: str, database: str) -> list[str]:
    """Migrate a database and return the options that let a server use it."""
    await migrate(StoreSettings(mongodb_uri=SecretStr(uri), mongodb_database=database))
    return ["--mongodb-uri", uri, "--mongodb-database", database]


def _launch(
    folder: Path, options: Sequence[str], environment: Mapping[str, str] | None
) -> ServerProcess:
    number = len(list(folder.glob("credit-server-*.log")))
    port = () if "--port" in options else ("--port", "0")
    process = subprocess.Popen(
        [*COMMAND, "serve", *port, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=_environment(environment),
        start_new_session=True,
    )
    return ServerProcess(process, folder / f"credit-server-{number}.log")


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    """This process's variables without those that would change the server's settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CREDIT_")}
    # Several servers run on one machine; those that share the default would warn of it.
    # Without a load balancer there is no health check to wait for at a stop.
    return own | {"CREDIT_METRICS_PORT": "0", "CREDIT_DRAIN_SECONDS": "0"} | dict(more or {})
