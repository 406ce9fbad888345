"""Starts the processes of a run: mongod, and each measured server on a loopback port."""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from credit_server.embedded import EmbeddedMongod
from credit_server.store import schema
from credit_testing.child import ChildFailed, complete, module, running, tail
from credit_testing.ports import lasting_port
from credit_testing.server import migrated
from grpc import aio  # type: ignore[import-untyped]  # grpcio ships no types
from pymongo import AsyncMongoClient

from credit_bench.contract import contract
from credit_bench.workloads import System

_START_TIMEOUT_SECONDS = 60.0

# These systems have a ledger in a database of their own.
SERVICES = (
    System.OURS,
    System.OURS_H2,
    System.OURS_WORKERS,
    System.OURS_UNINDEXED,
    System.OURS_UNHASHED,
    System.EARLIER,
    System.PEER,
    System.PEER_WORKERS,
    System.SDK,
    System.SDK_SYNC,
    System.PEER_CLIENT,
)
PEERS = (System.PEER, System.PEER_WORKERS, System.PEER_CLIENT)


class Unavailable(Exception):
    """A system cannot be measured here; the message is the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mongod:
    """The replica set of a run.

    Attributes:
        uri: Its URI.
        pids: Its process; empty if the run did not start it.
    """

    uri: str
    pids: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A running server.

    Attributes:
        system: The system.
        target: The server's host:port.
        database: The database, which only this server writes.
        pids: Its processes.
    """

    system: System
    target: str
    database: str
    pids: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variants:
    """What is measured beside the defaults.

    Attributes:
        workers: The number of processes of `OURS_WORKERS` and `PEER_WORKERS`; None: not measured.
        earlier: The `credit-server` of an earlier release; None: not measured.
    """

    workers: int | None = None
    earlier: Path | None = None

    def check(self, system: System) -> None:
        """Check that a system can be measured.

        Raises:
            Unavailable: An option is missing.
        """
        if system in (System.OURS_WORKERS, System.PEER_WORKERS) and self.workers is None:
            raise Unavailable("the option --workers is not given")
        if system is System.EARLIER and self.earlier is None:
            raise Unavailable("the option --earlier is not given")


@asynccontextmanager
async def replica_set(
    uri: str | None, folder: Path, *, cache_gigabytes: float = 0.25
) -> AsyncIterator[Mongod]:
    """Yield the replica set that all servers of a run share.

    Args:
        uri: The URI of a running replica set; None starts a private mongod.
        folder: The data folder of a private mongod.
        cache_gigabytes: The cache of a private mongod.
    """
    if uri is not None:
        yield Mongod(uri=uri)
        return
    mongod = EmbeddedMongod(data_dir=folder, cache_gigabytes=cache_gigabytes)
    try:
        uri = await mongod.start()
        yield Mongod(uri=uri, pids=(mongod.pid,))
    finally:
        await mongod.stop()


async def migrate(uri: str, database: str, folder: Path, program: Path | None = None) -> None:
    """Create the collections of our server in a database, with this release or a program."""
    if program is None:
        await migrated(uri, database)
        return
    await complete(
        [str(program), "migrate"], folder / "migrate.log", variables=_store(uri, database)
    )


async def drop_index_by_time(uri: str, database: str) -> None:
    """Drop the index of an app's entries by time. A server checks its indexes only at its start."""
    client: AsyncMongoClient[dict[str, object]]  # reads no documents
    async with AsyncMongoClient(uri) as client:
        for collection in (schema.CREDIT_TRANSACTIONS, schema.PURCHASES):
            await client[database][collection].drop_index(schema.BY_APP_AND_TIME)


@asynccontextmanager
async def serving(
    system: System,
    uri: str,
    database: str,
    folder: Path,
    variants: Variants = Variants(),
) -> AsyncIterator[Server]:
    """Run a server during the context; it accepts calls when the context begins.

    Args:
        system: The system to run, except those that are no servers.
        uri: The URI of the replica set.
        database: The name of the database; that of our server is migrated.
        folder: The folder for the server's log.
        variants: The number of processes, and the earlier release.

    Raises:
        ChildFailed: The server ended or did not accept calls in time. The message quotes the end
            of its log.
    """
    log = folder / f"{system.name.lower()}.log"
    port = lasting_port()
    target = f"127.0.0.1:{port}"
    command, variables = _command(system, uri, database, port, variants)
    copies = (variants.workers or 1) if system is System.PEER_WORKERS else 1
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(running(command, log, variables=variables))
            for _ in range(copies)
        ]
        await _ready(processes[-1], target, log)
        yield Server(
            system=system,
            target=target,
            database=database,
            pids=[process.pid for process in processes],
        )


def _command(
    system: System, uri: str, database: str, port: int, variants: Variants
) -> tuple[list[str], dict[str, str]]:
    """Return the command of a server, and its variables."""
    if system in PEERS:
        # Linux distributes the connections over all processes that listen on the port.
        options = ["--port", str(port), "--uri", uri, "--database", database]
        return module("credit_bench.peer", *options), {}
    if system not in SERVICES:
        return module("credit_bench.reference", "--system", system, "--port", str(port)), {}
    program = variants.earlier if system is System.EARLIER else _our_program()
    command = [str(program), "serve", "--port", str(port)]
    # The URI is a variable and no option: the server accepts no password on its command line.
    variables = _store(uri, database)
    if system is System.OURS_H2:
        variables["CREDIT_HTTP2"] = "h2"
    if system is System.OURS_UNHASHED:
        variables["CREDIT_BEGIN_HASH_CHAINS"] = "false"
    if system is System.OURS_WORKERS:
        command += ["--workers", str(variants.workers)]
    return command, variables


def _our_program() -> Path:
    return Path(sys.executable).with_name("credit-server")


def _store(uri: str, database: str) -> dict[str, str]:
    return {"CREDIT_MONGODB_URI": uri, "CREDIT_MONGODB_DATABASE": database}


async def _ready(process: Process, target: str, log: Path) -> None:
    """Wait until the server answers a call or its process ends."""
    async with aio.insecure_channel(
        target, options=(("grpc.initial_reconnect_backoff_ms", 100),)
    ) as channel:
        stub = contract().services.CreditServiceStub(channel)
        question = contract().messages.AppId(app_id=1, user_id=1)

        async def ask() -> None:
            await stub.GetAppBalance(question, wait_for_ready=True, timeout=_START_TIMEOUT_SECONDS)

        answer = asyncio.create_task(ask())
        end = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({answer, end}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ChildFailed(f"{target} ended before it accepted calls:\n{tail(log)}")
            try:
                answer.result()
            except aio.AioRpcError as error:
                reason = f"{error.code().name}: {error.details()}"
                raise ChildFailed(f"{target} accepts no calls ({reason}):\n{tail(log)}") from error
        finally:
            answer.cancel()
            end.cancel()
            await asyncio.gather(answer, end, return_exceptions=True)
