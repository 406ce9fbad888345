"""The faults: each breaks one part of a running service, and returns what its callers experienced.

Each fault starts the processes that it needs on loopback, and stops them. At the end it checks the
ledger: no write is lost, applied twice, or applied in part.
"""

import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals

from credit_client import ClientSettings
from credit_server.embedded import open_uri
from credit_testing.child import gone
from credit_testing.mongod import (
    embedded_mongod_pid,
    kill_embedded_mongod,
    running_mongod,
    running_replica_set,
)
from credit_testing.ports import lasting_port
from credit_testing.server import ServerProcess, migrated, running_server

from credit_resilience.recovery.callers import Callers, Experience, calling
from credit_resilience.recovery.check import DATABASE, check
from credit_resilience.recovery.rolling import replace_workers, restart_servers, upgrade_servers

# What docs/deployment.md recommends for servers that can be killed.
_LIFETIME = ("--setParameter", "transactionLifetimeLimitSeconds=10")

Run = Callable[[Path, ClientSettings, Sequence[str]], Awaitable[Experience]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A row of the table.

    Attributes:
        name: The name of the row.
        text: What breaks.
        limit_seconds: The longest time that a write may wait; None: any, if no write fails.
        run: Causes the fault once. The arguments are an empty folder, the settings of the SDK,
            whose target is replaced, and more options of the server.
    """

    name: str
    text: str
    limit_seconds: float | None
    run: Run


async def _killed_primary(
    folder: Path, settings: ClientSettings, options: Sequence[str]
) -> Experience:
    async with (
        running_replica_set(folder / "nodes") as nodes,
        _served(nodes.uri, folder, settings, options) as callers,
    ):
        return await callers.through((await nodes.primary()).end(SIGKILL))


async def _hung_primary(
    folder: Path, settings: ClientSettings, options: Sequence[str]
) -> Experience:
    async with (
        running_replica_set(folder / "nodes") as nodes,
        _served(nodes.uri, folder, settings, options) as callers,
    ):
        primary = await nodes.primary()

        async def hang() -> None:
            primary.send(SIGSTOP)

        try:
            return await callers.through(hang())
        finally:
            primary.send(SIGCONT)


def _ended_server(number: Signals) -> Run:
    async def run(folder: Path, settings: ClientSettings, options: Sequence[str]) -> Experience:
        """End the server with the signal, and start it again on its port, as a supervisor does."""
        port = ("--port", str(lasting_port()))
        async with (
            running_mongod(folder / "mongod", *_LIFETIME) as mongod,
            AsyncExitStack() as servers,
        ):
            store = await migrated(mongod.uri, DATABASE)

            async def start() -> ServerProcess:
                server = running_server(folder, *port, *store, *options)
                return await servers.enter_async_context(server)

            first = await start()

            async def end_and_start() -> None:
                await first.stop(number)
                await start()

            async with _calling(first, settings) as callers:
                experience = await callers.through(end_and_start())
            await servers.aclose()
            check(mongod.uri)
            return experience

    return run


def _embedded(break_: Callable[[Path], Awaitable[None]]) -> Run:
    async def run(folder: Path, settings: ClientSettings, options: Sequence[str]) -> Experience:
        """Break the mongod of an embedded server, whose data directory `break_` gets."""
        data = folder / "data"
        async with (
            running_server(folder, "--data-dir", str(data), *options) as server,
            _calling(server, settings) as callers,
        ):
            experience = await callers.through(break_(data))
        async with open_uri(data) as uri:
            check(uri)
        return experience

    return run


async def _refuse_writes(data: Path) -> None:
    """Make each write to a file fail, in the middle of commits: mongod exits, as on a full disk."""
    pid = embedded_mongod_pid(data)
    descriptor = os.pidfd_open(pid)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, 1))
    await gone(descriptor)


@asynccontextmanager
async def _served(
    uri: str, folder: Path, settings: ClientSettings, options: Sequence[str]
) -> AsyncIterator[Callers]:
    """Run a server and its callers on a store, and check the ledger at the end."""
    store = await migrated(uri, DATABASE)
    async with (
        running_server(folder, *store, *options) as server,
        _calling(server, settings) as callers,
    ):
        yield callers
    check(uri)


def _calling(
    server: ServerProcess, settings: ClientSettings
) -> AbstractAsyncContextManager[Callers]:
    return calling(settings.model_copy(update={"target": server.address}))


ROLLING_UPGRADE = "rolling-upgrade"

FAULTS: Sequence[Fault] = (
    Fault(
        name="killed-primary",
        text="the primary of three nodes is killed",
        limit_seconds=3.0,
        run=_killed_primary,
    ),
    Fault(
        name="hung-primary",
        text="the primary of three nodes hangs (SIGSTOP)",
        limit_seconds=6.0,
        run=_hung_primary,
    ),
    Fault(
        name="killed-server",
        text="the only server is killed, and started again",
        limit_seconds=None,
        run=_ended_server(SIGKILL),
    ),
    Fault(
        name="restarted-server",
        text="the only server is stopped (SIGTERM), and started again",
        limit_seconds=None,
        run=_ended_server(SIGTERM),
    ),
    Fault(
        name="killed-mongod",
        text="the mongod of an embedded server is killed",
        limit_seconds=None,
        run=_embedded(kill_embedded_mongod),
    ),
    Fault(
        name="refused-writes",
        text="a write to the disk of an embedded server fails in the middle of commits",
        limit_seconds=None,
        run=_embedded(_refuse_writes),
    ),
    Fault(
        name="rolling-restart",
        text="two servers are restarted, one after the other; nothing is retried",
        limit_seconds=None,
        run=restart_servers,
    ),
    Fault(
        name="replaced-workers",
        text="a server replaces its two workers (SIGHUP); nothing is retried",
        limit_seconds=None,
        run=replace_workers,
    ),
)


def rolling_upgrade(earlier: Path) -> Fault:
    """Return the upgrade of two servers; see `upgrade_servers`."""
    return Fault(
        name=ROLLING_UPGRADE,
        text="two servers of an earlier release are upgraded; this release's SDK retries nothing",
        limit_seconds=None,
        run=partial(upgrade_servers, earlier),
    )
