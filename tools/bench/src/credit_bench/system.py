"""Starts the processes of a run: mongod, our server and the peer, each on a loopback port."""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from credit_server.embedded import EmbeddedMongod
from credit_testing.child import ChildFailed, complete, module, running, tail
from credit_testing.ports import lasting_port
from grpc import aio  # type: ignore[import-untyped]  # grpcio ships no types

from credit_bench.contract import contract

_START_TIMEOUT_SECONDS = 60.0


class System(StrEnum):
    """One of the two systems that are compared."""

    OURS = "ours"
    PEER = "peer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A running server.

    Attributes:
        system: The system.
        target: The server's host:port.
        database: The database, which only this server writes.
    """

    system: System
    target: str
    database: str


@asynccontextmanager
async def replica_set(uri: str | None, folder: Path) -> AsyncIterator[str]:
    """Yield the URI of the replica set that all servers of a run share.

    Args:
        uri: The URI of a running replica set; None starts a private mongod.
        folder: The data folder of a private mongod.
    """
    if uri is not None:
        yield uri
        return
    mongod = EmbeddedMongod(data_dir=folder)
    try:
        yield await mongod.start()
    finally:
        await mongod.stop()


@asynccontextmanager
async def serving(system: System, uri: str, database: str, folder: Path) -> AsyncIterator[Server]:
    """Run a server during the context; it accepts calls when the context begins.

    Args:
        system: The system to run.
        uri: The URI of the replica set.
        database: The name of an empty database on it.
        folder: The folder for the server's log.

    Raises:
        ChildFailed: The server ended or did not accept calls in time. The message quotes the end
            of its log.
    """
    log = folder / f"{system}.log"
    port = lasting_port()
    target = f"127.0.0.1:{port}"
    variables: dict[str, str] = {}
    if system is System.OURS:
        program = str(Path(sys.executable).with_name("credit-server"))
        # Not as an option: the server accepts no password on its command line.
        variables = {"CREDIT_MONGODB_URI": uri, "CREDIT_MONGODB_DATABASE": database}
        await complete([program, "migrate"], log, variables=variables)
        command = [program, "serve", "--port", str(port)]
    else:
        command = module(
            "credit_bench.peer", "--port", str(port), "--uri", uri, "--database", database
        )
    async with running(command, log, variables=variables) as process:
        await _ready(process, target, log)
        yield Server(system=system, target=target, database=database)


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
