"""Servers that are restarted or upgraded one after the other, with callers that never retry."""

import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from signal import SIGHUP

from credit_client import ClientSettings
from credit_testing.child import ChildFailed, complete, started
from credit_testing.mongod import running_mongod
from credit_testing.ports import lasting_port
from credit_testing.server import (
    LogLine,
    ServerProcess,
    migrated,
    run_credit_server,
    running_server,
)

from credit_resilience.recovery import callers as callers_program
from credit_resilience.recovery.callers import CALLERS, Callers, Damaged, Experience, calling
from credit_resilience.recovery.check import DATABASE, check

# Two addresses of one name, with one port, as the servers behind a headless Service have.
_HOSTS = ("127.0.0.1", "127.0.0.2")
_TARGET_HOST = "credit.test"  # the callers resolve it themselves


class _Servers:
    """A server on each address, which are replaced one after the other."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        """Start nothing yet.

        Args:
            folder: For their logs.
            options: Their command line, besides their address.
        """
        self._folder = folder
        self._port = lasting_port()
        self._options = options
        self._forked = True
        self._stack = AsyncExitStack()
        self._running: dict[str, ServerProcess] = {}

    @property
    def target(self) -> str:
        """Return the name and the port."""
        return f"{_TARGET_HOST}:{self._port}"

    async def start(self, program: Path | None = None) -> None:
        """Start a server on each address; see `running_server`."""
        # The start of the template blocks the callers, unless it is before them.
        self._forked = program is None
        for host in _HOSTS:
            await self._start(host, program=program)

    async def replace(self, callers: Callers, *, begin_hash_chains: bool = True) -> None:
        """Stop each server with SIGTERM, and start this release on its address."""
        for host in _HOSTS:
            if (status := await self._running[host].stop()) != 0:
                raise ChildFailed(f"the server on {host} ended with status {status}")
            await self._start(host, begin_hash_chains=begin_hash_chains)
            await callers.served()

    async def stop(self) -> None:
        """Stop them."""
        await self._stack.aclose()

    async def _start(
        self, host: str, *, program: Path | None = None, begin_hash_chains: bool = True
    ) -> None:
        # A server of 0.3.0 does not have the setting, and ignores it.
        variables = {"CREDIT_BEGIN_HASH_CHAINS": str(begin_hash_chains).lower()}
        server = running_server(
            self._folder,
            *("--host", host, "--port", str(self._port)),
            *self._options,
            environment=variables,
            forked=self._forked,
            program=program,
        )
        self._running[host] = await self._stack.enter_async_context(server)


async def restart_servers(
    folder: Path, settings: ClientSettings, options: Sequence[str]
) -> Experience:
    """Stop each of two servers and start it again, while callers write that never retry."""
    async with running_mongod(folder / "mongod") as mongod, AsyncExitStack() as stack:
        servers = _Servers(folder, [*await migrated(mongod.uri, DATABASE), *options])
        stack.push_async_callback(servers.stop)
        await servers.start()
        target = _never_retried(settings, servers.target)
        async with calling(target, hosts=_HOSTS, kinds=True) as callers:
            experience = await callers.through(servers.replace(callers))
        await servers.stop()
        check(mongod.uri)
        return experience


async def replace_workers(
    folder: Path, settings: ClientSettings, options: Sequence[str]
) -> Experience:
    """Replace the two workers of a server (SIGHUP), while callers write that never retry."""
    async with running_mongod(folder / "mongod") as mongod:
        store = await migrated(mongod.uri, DATABASE)
        async with (
            running_server(folder, *store, *options, "--workers", "2") as server,
            calling(_never_retried(settings, server.address), kinds=True) as callers,
        ):

            async def replace() -> None:
                server.send(SIGHUP)
                await server.logged(_restarted)

            experience = await callers.through(replace())
        check(mongod.uri)
        return experience


async def upgrade_servers(
    earlier: Path, folder: Path, settings: ClientSettings, options: Sequence[str]
) -> Experience:
    """Upgrade two servers as `docs/operations.md` has it, while the SDKs of both releases write.

    Args:
        earlier: The `credit-server` of the earlier release; the interpreter beside it has the SDK.
            That SDK has its default settings; ours never retries.
        folder: See `Fault`.
        settings: See `Fault`.
        options: Of the servers of both releases.
    """
    async with running_mongod(folder / "mongod") as mongod, AsyncExitStack() as stack:
        store = ["--mongodb-uri", mongod.uri, "--mongodb-database", DATABASE]
        await complete([str(earlier), "migrate", *store], folder / "migrate.log")
        servers = _Servers(folder, [*store, *options])
        stack.push_async_callback(servers.stop)
        await servers.start(earlier)
        target = _never_retried(settings, servers.target)
        async with (
            calling(target, hosts=_HOSTS, kinds=True) as callers,
            _earlier_callers(earlier, servers.target) as others,
        ):

            async def upgrade() -> None:
                await migrated(mongod.uri, DATABASE)
                await servers.replace(callers, begin_hash_chains=False)
                await servers.replace(callers)

            ours = await callers.through(upgrade())
            theirs = await others.experience()
        await servers.stop()
        check(mongod.uri)
        verified = await run_credit_server(folder, "verify", *store)
        if verified.status != 0:
            raise Damaged(verified.output + verified.errors)
        return Experience(
            longest_seconds=max(ours.longest_seconds, theirs.longest_seconds),
            acknowledged=ours.acknowledged + theirs.acknowledged,
            failed=[*ours.failed, *(f"earlier SDK: {error}" for error in theirs.failed)],
        )


class _EarlierCallers:
    """Callers with the SDK of the earlier release, in a process of their own."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def served(self) -> None:
        """Wait until all of them are served."""
        output = self._process.stdout
        if output is None or not await output.readline():
            raise ChildFailed("the callers of the earlier release have ended")

    async def experience(self) -> Experience:
        """Wait until all of them are served again, end them, and return their experience."""
        written, _ = await self._process.communicate(b"")
        if self._process.returncode != 0:
            raise ChildFailed("the callers of the earlier release have failed")
        return Experience(**json.loads(written))


@asynccontextmanager
async def _earlier_callers(earlier: Path, target: str) -> AsyncIterator[_EarlierCallers]:
    """Let them write, for other users than ours."""
    # Without -P, the folder of the program would be searched for modules.
    command = [str(earlier.with_name("python")), "-P", callers_program.__file__]
    arguments = [target, str(CALLERS + 1), *_HOSTS]
    async with started(*command, *arguments, stdin=PIPE, stdout=PIPE) as process:
        others = _EarlierCallers(process)
        await others.served()
        yield others


def _never_retried(settings: ClientSettings, target: str) -> ClientSettings:
    return settings.model_copy(update={"target": target, "retry_attempts_max": 1})


def _restarted(line: LogLine) -> bool:
    return line.get("event") == "all workers were restarted"
