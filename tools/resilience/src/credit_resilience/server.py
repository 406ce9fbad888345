"""Run the attacked server: a real `credit-server serve`."""

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

from credit_testing.child import module, started

_COMMAND = module("credit_server.main")
_LOG_PERIOD_SECONDS = 0.02

# Any: a line of the log holds values of many types.
LogLine = Mapping[str, Any]


class ServerNotStarted(Exception):
    """Raised when the server ends before it serves; the message is its output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """The time limits of the attacked server, and its limits of connections.

    Shorter and fewer than the defaults, so that the attacks take minutes on one machine.

    Attributes:
        handshake_seconds: For the preface, and for TLS.
        idle_seconds: For a connection without calls.
        stall_seconds: For a reader that does not read.
        connections_max: Connections at once.
        connections_per_peer_max: Those of one address.
    """

    handshake_seconds: float = 2.0
    idle_seconds: float = 4.0
    stall_seconds: float = 2.0
    connections_max: int = 2000
    connections_per_peer_max: int = 500

    def environment(self) -> dict[str, str]:
        """Return the server's variables for them."""
        return {
            "CREDIT_CONNECTION_HANDSHAKE_SECONDS": str(self.handshake_seconds),
            "CREDIT_CONNECTION_IDLE_SECONDS": str(self.idle_seconds),
            "CREDIT_CONNECTION_STALLED_SECONDS": str(self.stall_seconds),
            "CREDIT_CONNECTIONS_MAX": str(self.connections_max),
            "CREDIT_CONNECTIONS_PER_PEER_MAX": str(self.connections_per_peer_max),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server that serves.

    Attributes:
        process: Its process.
        port: Its port on loopback.
        log: The file of its log, a JSON document per line.
        uri: Its replica set.
        database: The name of its database.
    """

    process: Process
    port: int
    log: Path
    uri: str
    database: str

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self.process.pid

    @property
    def target(self) -> str:
        """Return its host:port."""
        return f"127.0.0.1:{self.port}"

    def log_bytes(self) -> int:
        """Return the present length of the log."""
        return self.log.stat().st_size

    def log_lines(self, offset: int) -> list[LogLine]:
        """Return the log's lines from an offset; one that is no JSON is `{"text": …}`."""
        with self.log.open("rb") as file:
            file.seek(offset)
            whole = file.read().rpartition(b"\n")[0]
        return [_parsed(line) for line in whole.splitlines()]

    async def logged(self, offset: int, request_id: str) -> list[LogLine]:
        """Return the log's lines from an offset, once a call with this request id is among them."""
        while True:
            lines = self.log_lines(offset)
            if any(line.get("request_id") == request_id for line in lines):
                return lines
            await asyncio.sleep(_LOG_PERIOD_SECONDS)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit status."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def serving(
    uri: str, database: str, folder: Path, *options: str, patience: Patience
) -> AsyncIterator[Server]:
    """Run a server for as long as the context lasts; it serves when the context begins.

    Args:
        uri: The replica set.
        database: A migrated database of it.
        folder: Where its log goes.
        options: More of its command line.
        patience: Its limits.

    Raises:
        ServerNotStarted: It has ended instead.
    """
    log = _log_file(folder)
    store = ("--mongodb-uri", uri, "--mongodb-database", database)
    with log.open("wb") as stderr:
        async with started(
            *(*_COMMAND, "serve", "--port", "0", "--log-format", "json", *store, *options),
            stdout=PIPE,
            stderr=stderr,
            folder=folder,
            environment=_environment(patience),
        ) as process:
            port = await _port(process, log)
            yield Server(process=process, port=port, log=log, uri=uri, database=database)


async def migrate(uri: str, database: str) -> None:
    """Make the collections that a server needs.

    Raises:
        ServerNotStarted: It did not work.
    """
    store = ("--mongodb-uri", uri, "--mongodb-database", database)
    async with started(*_COMMAND, "migrate", *store, stdout=DEVNULL) as process:
        if status := await process.wait():
            raise ServerNotStarted(f"credit-server migrate ended with status {status}")


async def _port(process: Process, log: Path) -> int:
    assert process.stdout is not None  # noqa: S101 - for the type checker; it is a pipe
    said = (await process.stdout.readline()).decode()
    if " listens on " not in said:
        await process.wait()
        raise ServerNotStarted(f"{said}{_text(log)}".strip())
    address = said.partition(" listens on ")[2].partition(" ")[0]
    return int(address.rpartition(":")[2])


def _log_file(folder: Path) -> Path:
    return folder / f"server-{len(list(folder.glob('server-*.log')))}.log"


def _text(log: Path) -> str:
    return log.read_text(errors="replace")


def _environment(patience: Patience) -> dict[str, str]:
    """This process's variables without those that would change the server's settings."""
    own: Sequence[tuple[str, str]] = [
        (name, value) for name, value in os.environ.items() if not name.startswith("CREDIT_")
    ]
    return dict(own) | patience.environment()


def _parsed(line: bytes) -> LogLine:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {"text": line.decode(errors="replace")}
    return parsed if isinstance(parsed, dict) else {"text": parsed}
