"""Test the configurations of `deploy/proxy` with real proxies and callers that never retry."""

import asyncio
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from credit_models import (
    AppId,
    Balance,
    CreditRequest,
    Empty,
    GrantCreditsRequest,
    Operation,
    UserCredits,
    UserId,
    WriteRequest,
    WriteResponse,
)
from credit_models.codec import decode, encode
from credit_server.http2.connections import Closing
from credit_testing.server import PATIENT, LogLine, ServerProcess, migrated, running_server
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from pymongo import AsyncMongoClient

from tests.conftest import StartServer
from tests.e2e.proxy import program, running_proxy

PROXIES = ["nginx", "haproxy", "envoy"]
SERVICE = "/credit.v1.CreditService/"
CALLERS = 32
AGE_SECONDS = 0.5
AGED_CONNECTIONS = 12
BURST = 1000
"""Concurrent calls. Envoy's default limit for a connection is 1,024."""
# Without pauses, the callers use all CPU time, and the restarts take longer. With pauses of half a
# second, each of the 32 connections makes eight calls while a server drains.
PAUSE_SECONDS = 0.5
CALLS_BETWEEN = 150
"""Calls that are made before the first restart, between two of them, and after the last."""
METADATA = {f"key-{number}": "v" * 256 for number in range(7)}
STREAM_BYTES = 2**21 + 2**18
"""More than a `client_max_body_size` of nginx that allows only the longest message."""
AT_ONCE = 20
DRAIN_SECONDS = 2
"""The server's default: each proxy asks for the health more often."""
NO_RETRIES = [
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(kw_only=True)
class Callers:
    """Callers that each add and read the credits of a user, one call after the other.

    Attributes:
        added: How many credits were added, as far as callers know.
        answered: How many calls have succeeded.
        failed: Why others have not.
    """

    target: str
    added: int = 0
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    _progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self, user_id: int) -> None:
        """Make calls until cancelled, on a connection of its own."""
        async with grpc.aio.insecure_channel(self.target, options=NO_RETRIES) as channel:
            add = unary(channel, "AddCredits", partial(decode, Empty))
            read = unary(channel, "GetUserCredits", partial(decode, UserCredits))
            while True:
                request = CreditRequest(user_id=user_id, app_id=1, credits=1, created_by=1)
                if await self._succeeds(add, encode(request)):
                    self.added += 1
                await self._succeeds(read, encode(UserId(user_id=user_id)))
                await asyncio.sleep(PAUSE_SECONDS)

    async def wait_for(self, calls: int) -> None:
        """Wait until a number of further calls have ended."""
        goal = self.total + calls
        async with self._progress:
            await self._progress.wait_for(lambda: self.total >= goal)

    @property
    def total(self) -> int:
        """Return how many calls have ended."""
        return self.answered + self.failed.total()

    async def _succeeds(self, call: Callable[..., Any], request: bytes) -> bool:
        try:
            await call(request, timeout=60)
        except grpc.aio.AioRpcError as error:
            self.failed[f"{error.code().name}: {error.details()}"] += 1
            return False
        else:
            self.answered += 1
            return True
        finally:
            async with self._progress:
                self._progress.notify_all()


# Any: grpcio ships no types.
def unary(channel: Any, method: str, deserializer: Callable[[bytes], object]) -> Any:
    path = method if method.startswith("/") else SERVICE + method
    return channel.unary_unary(path, response_deserializer=deserializer)


async def serves(target: str) -> None:
    """Wait until the servers behind a proxy can be reached through it."""
    async with grpc.aio.insecure_channel(target) as channel:
        check = unary(channel, "/grpc.health.v1.Health/Check", HealthCheckResponse.FromString)
        while True:
            try:
                await check(HealthCheckRequest().SerializeToString(), wait_for_ready=True)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            else:
                return


async def serves_http2(port: int) -> None:
    """Wait until a proxy listens, without a call to a server behind it."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


@asynccontextmanager
async def calling(callers: Callers) -> AsyncIterator[None]:
    """Let all callers make calls for as long as the context lasts."""
    tasks = [asyncio.create_task(callers.run(user_id)) for user_id in range(1, CALLERS + 1)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _balance(target: str, app_id: int = 1) -> int:
    async with grpc.aio.insecure_channel(target) as channel:
        read = unary(channel, "GetAppBalance", partial(decode, Balance))
        app: Balance = await read(encode(AppId(app_id=app_id)))
        return app.balance


@asynccontextmanager
async def _two_servers(uri: str, folder: Path, *options: str) -> AsyncIterator[list[ServerProcess]]:
    """Run two servers on a database of their own, for several proxies."""
    database = f"test_{uuid.uuid4().hex}"
    store = await migrated(uri, database)
    async with (
        running_server(folder, *store, *options) as one,
        running_server(folder, *store, *options) as other,
    ):
        yield [one, other]
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(uri) as client:
        await client.drop_database(database)


@pytest.fixture(scope="module")
async def ageing_servers(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[ServerProcess]]:
    age = ("--connection-age-seconds", str(AGE_SECONDS))
    async with _two_servers(mongod_uri, tmp_path_factory.mktemp("ageing"), *age) as servers:
        yield servers


@pytest.fixture(scope="module")
async def patient_servers(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[ServerProcess]]:
    async with _two_servers(mongod_uri, tmp_path_factory.mktemp("patient"), *PATIENT) as servers:
        yield servers


def _is_a_call(line: LogLine) -> bool:
    return line["event"] == "call" and str(line["method"]).startswith(SERVICE)


@pytest.mark.parametrize("name", PROXIES)
async def test_a_rolling_restart_fails_no_call(
    name: str,
    tmp_path: Path,
    unused_tcp_port: int,
    store_options: list[str],
    credit_server_process: StartServer,
) -> None:
    program(name)

    async def start(*options: str) -> ServerProcess:
        return await credit_server_process(
            *options, *store_options, CREDIT_DRAIN_SECONDS=str(DRAIN_SECONDS)
        )

    servers = [await start(), await start()]
    ports = [server.port for server in servers]
    target = f"127.0.0.1:{unused_tcp_port}"
    callers = Callers(target=target)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            running_proxy(name, tmp_path, port=unused_tcp_port, servers=ports)
        )
        await serves(target)
        async with calling(callers):
            await callers.wait_for(CALLS_BETWEEN)
            for number, port in enumerate(ports):
                assert await servers[number].stop() == 0
                servers[number] = await start("--port", str(port))
                # The other server may stop only when the proxy uses this one again.
                await servers[number].logged(_is_a_call)
                await callers.wait_for(CALLS_BETWEEN)
        print(f"{name}: {callers.answered} calls answered, {callers.failed.total()} failed")  # noqa: T201 - pytest shows it with a failure
        assert callers.failed == Counter()
        # A call that was cancelled at the end may have added a credit.
        assert 0 <= await _balance(target) - callers.added <= CALLERS


@pytest.mark.parametrize("name", PROXIES)
async def test_connections_that_get_too_old_fail_no_call(
    name: str, tmp_path: Path, unused_tcp_port: int, ageing_servers: list[ServerProcess]
) -> None:
    program(name)
    servers = ageing_servers
    before = [sum(map(_is_too_old, server.log)) for server in servers]
    target = f"127.0.0.1:{unused_tcp_port}"
    callers = Callers(target=target)
    ports = [server.port for server in servers]
    async with running_proxy(name, tmp_path, port=unused_tcp_port, servers=ports):
        await serves(target)
        async with calling(callers):
            for server, earlier in zip(servers, before, strict=True):
                await server.logged(_is_too_old, times=earlier + AGED_CONNECTIONS)
    assert callers.answered
    assert callers.failed == Counter()


def _is_too_old(line: LogLine) -> bool:
    return bool(line["event"] == "connection closed" and line["reason"] == Closing.AGE)


@pytest.mark.parametrize("name", PROXIES)
async def test_many_calls_at_once_are_all_served(
    name: str, tmp_path: Path, unused_tcp_port: int, patient_servers: list[ServerProcess]
) -> None:
    program(name)
    ports = [server.port for server in patient_servers]
    target = f"127.0.0.1:{unused_tcp_port}"
    async with running_proxy(name, tmp_path, port=unused_tcp_port, servers=ports):
        await serves(target)
        await _write_all_at_once(target, app_id=1 + PROXIES.index(name))


@pytest.mark.parametrize("name", PROXIES)
async def test_a_stream_of_writes_may_be_longer_than_the_longest_message(
    name: str, tmp_path: Path, unused_tcp_port: int, patient_servers: list[ServerProcess]
) -> None:
    program(name)
    target = f"127.0.0.1:{unused_tcp_port}"
    ports = [server.port for server in patient_servers]
    grant = GrantCreditsRequest(
        user_id=1, app_id=9, credits=1, created_by=1, metadata=METADATA, validate_only=True
    )
    operation = Operation(grant_credits=grant)
    sent = 0
    async with (
        running_proxy(name, tmp_path, port=unused_tcp_port, servers=ports),
        grpc.aio.insecure_channel(target, options=NO_RETRIES) as channel,
    ):
        await serves(target)
        stream = channel.stream_stream("/credit.v1.LedgerService/Write")()
        while sent <= STREAM_BYTES:
            for number in range(AT_ONCE):
                message = encode(WriteRequest(correlation_id=number, operation=operation))
                await stream.write(message)
                sent += len(message)
            for _ in range(AT_ONCE):
                answer = decode(WriteResponse, await stream.read())
                assert answer.outcome is not None
                assert answer.outcome.receipt is not None
                assert answer.outcome.receipt.validated
        await stream.done_writing()
        assert await stream.read() == grpc.aio.EOF


async def test_many_calls_before_envoy_has_read_the_settings_are_all_served(
    tmp_path: Path,
    unused_tcp_port: int,
    store_options: list[str],
    credit_server_process: StartServer,
) -> None:
    """Envoy has no limit of streams here, and does not retry."""
    program("envoy")
    server = await credit_server_process(*PATIENT, *store_options)
    target = f"127.0.0.1:{unused_tcp_port}"
    async with running_proxy(
        "envoy",
        tmp_path,
        port=unused_tcp_port,
        servers=[server.port, server.port],
        without=[
            r"\n +max_concurrent_streams: 200",
            r"\n +retry_policy:.*?(?=\n +http_filters:)",
            r"\n +health_checks:.*?(?=\n +circuit_breakers:)",
        ],
    ):
        await serves_http2(unused_tcp_port)
        # The kernel completes the handshake, and Envoy sends all that it has.
        server.send(signal.SIGSTOP)
        writing = asyncio.create_task(_write_all_at_once(target))
        await asyncio.sleep(1)
        assert not writing.done()
        server.send(signal.SIGCONT)
        await writing


async def _write_all_at_once(target: str, app_id: int = 1) -> None:
    async with AsyncExitStack() as stack:
        options = [[*NO_RETRIES, ("grpc.channel_id", each)] for each in range(10)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(target, options=each))
            for each in options
        ]
        writes = [unary(channel, "AddCredits", partial(decode, Empty)) for channel in channels]
        requests = [
            CreditRequest(user_id=user_id, app_id=app_id, credits=1, created_by=1)
            for user_id in range(1, BURST + 1)
        ]
        await asyncio.gather(
            *(
                writes[request.user_id % len(writes)](encode(request), timeout=120)
                for request in requests
            )
        )
        assert await _balance(target, app_id) == BURST
