"""Run the real `credit-server` as a child process, and read its log."""

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from credit_server.app import migrate
from credit_server.settings import StoreSettings
from pydantic import SecretStr

from credit_testing.constants import Constants, command
from credit_testing.template import Forked, template

# Options of a server that answers late, on a busy machine, rather than rejects a call as overload.
PATIENT = ("--commit-wait-seconds-max", "60")

# Ends a process that hangs, so that it does not outlive the tests; no test waits that long.
_PATIENCE_SECONDS = 60.0

LogLine = Mapping[str, Any]  # as JSON gives it


class ServerNotStarted(Exception):
    """Raised when a server ends before it serves; the message is its output."""


class ServerProcess:
    """A running `credit-server serve`.

    Attributes:
        pid: Its process id.
        banner: Its standard output so far.
        folder: Its working directory.
        stderr: The file with its standard error.
    """

    def __init__(self, process: Forked | subprocess.Popen[bytes], stderr: Path) -> None:
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
        """Return the host:port on which it listens, from the banner."""
        return self.banner.partition("listens on ")[2].partition(" ")[0]

    @property
    def port(self) -> int:
        """Return the port of the address."""
        return int(self.address.rpartition(":")[2])

    @property
    def log(self) -> list[LogLine]:
        """Return the lines of its log so far."""
        with self._arrived:
            return [json.loads(line) for line in self._lines]

    async def logged(self, matches: Callable[[LogLine], bool], *, times: int = 1) -> LogLine:
        """Wait for a number of log lines that match, and return the last of them.

        Raises:
            LookupError: It has ended without logging them.
        """
        return await asyncio.to_thread(self._wait_for, matches, times)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Wait for its end; return its exit status, or minus the number of the signal."""
        status = await asyncio.to_thread(self._process.wait)
        await asyncio.to_thread(self._reader.join)
        return status

    def wait_standing_still(self) -> int:
        """Wait as `wait` does, but block the event loop, like a busy client."""
        return self._process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.send(number)
        return await self.wait()

    async def read_banner(self) -> None:
        """Wait until it serves and has printed its banner.

        Raises:
            ServerNotStarted: It has ended instead.
        """
        assert self._process.stdout is not None
        # The line with an example comes last, and only for a server without identities.
        while "  stop " not in self.banner or (
            "no TLS, no identities" in self.banner and "  try " not in self.banner
        ):
            line = await asyncio.to_thread(self._process.stdout.readline)
            if not line:
                status = await self.wait()
                errors = self.stderr.read_text()
                raise ServerNotStarted(f"exit status {status}\n{self.banner}{errors}")
            self.banner += line.decode()

    async def end(self) -> None:
        """Stop it, and kill it if it does not stop in time."""
        if self._process.poll() is None:
            self.send(signal.SIGTERM)
            try:
                await asyncio.to_thread(self._process.wait, _PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
        await self.wait()

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
    folder: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    constants: Constants | None = None,
    forked: bool = True,
    program: Path | None = None,
    launched: Callable[[ServerProcess], object] = lambda _: None,
) -> AsyncIterator[ServerProcess]:
    """Run `credit-server serve` for as long as the context lasts; it serves when that begins.

    Args:
        folder: Its working directory, which gets its standard error too.
        options: Its command line; without `--port` it takes a free port.
        environment: Variables besides those of this process.
        constants: Constants that are not its own; see `credit_testing.constants`.
        forked: Whether it is a fork of the template, which takes a fifth of the CPU time, unless
            the environment has variables for the interpreter. A new interpreter runs it otherwise.
        program: The `credit-server` of another release, which is no fork; None: this release.
        launched: Receives the process before it serves.

    Raises:
        ServerNotStarted: It has ended instead of serving.
    """
    port = () if "--port" in options else ("--port", "0")
    run = command(constants or {}) if program is None else [str(program)]
    arguments = [*run, "serve", *port, *options]
    log = _log_file(folder)
    forked = forked and program is None
    with _launch(arguments, folder, environment, forked=forked) as process:
        server = ServerProcess(process, log)
        launched(server)
        try:
            await server.read_banner()
            yield server
        finally:
            await server.end()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The result of a command.

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
    """Run a `credit-server` command that ends by itself."""
    command_line = [*command({}), *arguments]
    with _launch(command_line, folder, environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                output, errors = await asyncio.gather(
                    asyncio.to_thread(process.stdout.read), asyncio.to_thread(process.stderr.read)
                )
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
            raise
        status = await asyncio.to_thread(process.wait)
    return Ended(status=status, output=output.decode(), errors=errors.decode())


async def migrated(uri: str, database: str) -> list[str]:
    """Migrate a database and return the options that let a server use it."""
    await migrate(StoreSettings(mongodb_uri=SecretStr(uri), mongodb_database=database))
    return ["--mongodb-uri", uri, "--mongodb-database", database]


def _log_file(folder: Path) -> Path:
    """Return the file for the standard error of the next server in a folder."""
    return folder / f"credit-server-{len(list(folder.glob('credit-server-*.log')))}.log"


def _launch(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None,
    *,
    forked: bool = True,
) -> Forked | subprocess.Popen[bytes]:
    variables = _environment(environment)
    # Only a new interpreter reads its variables.
    if forked and not any(name.startswith("PYTHON") for name in environment or ()):
        return template().start(arguments, folder=folder, environment=variables)
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=variables,
        start_new_session=True,
    )


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    """Return a server's variables: those of this process and of the tests.

    Of the `CREDIT_` variables of this process, only `CREDIT_HTTP2` is passed on.
    """
    own = {
        name: value
        for name, value in os.environ.items()
        if name == "CREDIT_HTTP2" or not name.startswith("CREDIT_")
    }
    # Several servers run on one machine: those that share the default port for metrics would warn
    # of it. Some tests add all that a balance can hold in one call. Without a load balancer there
    # is no health check to wait for at a stop.
    ours = {
        "CREDIT_METRICS_PORT": "0",
        "CREDIT_CREDITS_MAX": str(2**32 - 1),
        "CREDIT_DRAIN_SECONDS": "0",
    }
    return own | ours | dict(more or {})
