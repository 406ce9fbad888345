"""Run the server under attack: a real `credit-server serve`."""

import asyncio
import json
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from credit_testing.child import started
from credit_testing.constants import Constants, command

_LOG_PERIOD_SECONDS = 0.02

# Any: a line of the log holds values of many types.
LogLine = Mapping[str, Any]


class ServerNotStarted(Exception):
    """The server ended before it served; the message is its output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerLimits:
    """The time limits and connection limits of the server under attack.

    They are lower than the defaults, so that the attacks take minutes on one machine.

    Attributes:
        handshake_seconds: The limit for the preface and for the TLS handshake.
        idle_seconds: The limit for a connection without calls.
        stall_seconds: The limit for a client that does not read.
        connections_max: The limit on open connections.
        connections_per_peer_max: The limit on open connections from one address.
    """

    handshake_seconds: float = 2.0
    idle_seconds: float = 4.0
    stall_seconds: float = 2.0
    connections_max: int = 2000
    connections_per_peer_max: int = 500

    def environment(self) -> dict[str, str]:
        """Return the limits that are settings, as the server's environment variables."""
        return {
            "CREDIT_CONNECTION_IDLE_SECONDS": str(self.idle_seconds),
            "CREDIT_CONNECTIONS_MAX": str(self.connections_max),
            "CREDIT_CONNECTIONS_PER_PEER_MAX": str(self.connections_per_peer_max),
        }

    def constants(self) -> Constants:
        """Return the limits that no setting changes."""
        return {
            "connection": {
                "handshake_seconds": self.handshake_seconds,
                "stalled_seconds": self.stall_seconds,
            }
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A running server.

    Attributes:
        process: The process of the server.
        port: The port on loopback.
        log: The log file, with one JSON document per line.
        uri: The URI of the replica set.
        database: The name of the database.
    """

    process: Process
    port: int
    log: Path
    uri: str
    database: str

    @property
    def pid(self) -> int:
        """Return the process ID."""
        return self.process.pid

    @property
    def target(self) -> str:
        """Return the address as host:port."""
        return f"127.0.0.1:{self.port}"

    def log_bytes(self) -> int:
        """Return the current length of the log."""
        return self.log.stat().st_size

    def log_lines(self, offset: int) -> list[LogLine]:
        """Return the log's lines from an offset; a line that is not JSON becomes `{"text": …}`."""
        with self.log.open("rb") as file:
            file.seek(offset)
            whole = file.read().rpartition(b"\n")[0]
        return [_parsed(line) for line in whole.splitlines()]

    async def logged(self, offset: int, request_id: str) -> list[LogLine]:
        """Wait for a line with this request ID and return the log's lines from an offset."""
        while True:
            lines = self.log_lines(offset)
            if any(line.get("request_id") == request_id for line in lines):
                return lines
            await asyncio.sleep(_LOG_PERIOD_SECONDS)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the process to end and return the exit status."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def serving(
    uri: str, database: str, folder: Path, *options: str, limits: ServerLimits
) -> AsyncIterator[Server]:
    """Run a server until the context exits; it serves on entry.

    Args:
        uri: The URI of the replica set.
        database: The name of a migrated database.
        folder: The folder for the log.
        options: More command-line options.
        limits: The limits of the server.

    Raises:
        ServerNotStarted: The server ended before it served.
    """
    log = _log_file(folder)
    store = ("--mongodb-uri", uri, "--mongodb-database", database)
    with log.open("wb") as stderr:
        async with started(
            *(*command(limits.constants()), "serve", "--port", "0", "--log-format", "json"),
            *(*store, *options),
            stdout=PIPE,
            stderr=stderr,
            folder=folder,
            environment=_environment(limits),
        ) as process:
            port = await _port(process, log)
            yield Server(process=process, port=port, log=log, uri=uri, database=database)


async def migrate(uri: str, database: str) -> None:
    """Create the collections that a server needs.

    Raises:
        ServerNotStarted: The migration failed.
    """
    store = ("--mongodb-uri", uri, "--mongodb-database", database)
    async with started(*command({}), "migrate", *store, stdout=DEVNULL) as process:
        if status := await process.wait():
            raise ServerNotStarted(f"credit-server migrate ended with status {status}")


async def _port(process: Process, log: Path) -> int:
    assert process.stdout is not None  # noqa: S101 - for the type checker; it is a pipe
    line = (await process.stdout.readline()).decode()
    if " listens on " not in line:
        await process.wait()
        raise ServerNotStarted(f"{line}{_text(log)}".strip())
    address = line.partition(" listens on ")[2].partition(" ")[0]
    return int(address.rpartition(":")[2])


def _log_file(folder: Path) -> Path:
    return folder / f"server-{len(list(folder.glob('server-*.log')))}.log"


def _text(log: Path) -> str:
    return log.read_text(errors="replace")


def _environment(limits: ServerLimits) -> dict[str, str]:
    """Return the variables of this process, but replace the `CREDIT_` variables by the limits.

    The variable that chooses the library for HTTP/2 is kept.
    """
    own: Sequence[tuple[str, str]] = [
        (name, value)
        for name, value in os.environ.items()
        if name == "CREDIT_HTTP2" or not name.startswith("CREDIT_")
    ]
    return dict(own) | limits.environment()


def _parsed(line: bytes) -> LogLine:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {"text": line.decode(errors="replace")}
    return parsed if isinstance(parsed, dict) else {"text": parsed}
