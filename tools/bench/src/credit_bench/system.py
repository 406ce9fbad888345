"""The systems that are compared: our server and the peer, each a process on a loopback port."""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from credit_testing.child import ChildFailed, complete, module, running, tail
from credit_testing.ports import lasting_port
from grpc import aio  # type: ignore[import-untyped]  # grpcio ships no types

from credit_bench.contract import contract

_START_TIMEOUT_SECONDS = 60.0


class System(StrEnum):
    """Which of the two."""

    OURS = "ours"
    PEER = "peer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server that takes calls.

    Attributes:
        system: Which one.
        target: Its host:port.
        database: The database that it alone writes.
    """

    system: System
    target: str
    database: str


@asynccontextmanager
async def serving(system: System, uri: str, database: str, folder: Path) -> AsyncIterator[Server]:
    """Run a server for as long as the context lasts; it is ready when the context begins.

    Args:
        system: Which one.
        uri: The replica set.
        database: The name of an empty database on it.
        folder: Where its log goes.

    Raises:
        ChildFailed: The server ended, or did not take calls in time. The message quotes its
            last words.
    """
    log = folder / f"{system}.log"
    port = lasting_port()
    target = f"127.0.0.1:{port}"
    variables: dict[str, str] = {}
    if system is System.OURS:
        program = str(Path(sys.executable).with_name("credit-server"))
        # Not as an option: the server takes no password from its command line.
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
    """Wait for the first answer to a call, or for the end of the process."""
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
                raise ChildFailed(f"{target} ended before it took calls:\n{tail(log)}")
            try:
                answer.result()
            except aio.AioRpcError as error:
                reason = f"{error.code().name}: {error.details()}"
                raise ChildFailed(f"{target} takes no calls ({reason}):\n{tail(log)}") from error
        finally:
            answer.cancel()
            end.cancel()
            await asyncio.gather(answer, end, return_exceptions=True)
