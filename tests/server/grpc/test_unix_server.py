"""A server on a Unix domain socket: its peers and its file."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop
from credit_client import CreditClient, Unavailable
from credit_models import UserId
from credit_server.access.audit import AuditLog
from credit_server.access.authorize import Access
from credit_server.api.contract import CONTRACT
from credit_server.api.service import CreditService
from credit_server.commit import Committer
from credit_server.grpc.handler import CallLimits
from credit_server.grpc.server import GrpcServer
from credit_server.http2.connections import Closing
from credit_server.http2.limits import ConnectionLimits
from credit_server.store.memory import MemoryStore
from credit_testing.calls import call_headers, framed, message_bytes
from credit_testing.http2_client import Connection
from grpclib.const import Status

from tests.server.serving import until

# Any: keywords of different types.
WRITE: dict[str, Any] = {"user_id": 7, "app_id": 1, "credits": 5, "created_by": 1}
RUNNING = "/credit.v1.CreditService/GetUserCredits"
ME = f"unix:uid={os.getuid()}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "credit.sock"


@pytest.fixture
async def server(path: Path) -> AsyncIterator[GrpcServer]:
    store = MemoryStore()
    async with Committer(store) as committer:
        server = _server(committer, store, ConnectionLimits(connections_per_peer_max=2))
        await server.start(f"unix:{path}", 0)
        yield server
        if not server.connections.draining:
            await server.stop(grace_seconds=0)


def _server(committer: Committer, store: MemoryStore, connections: ConnectionLimits) -> GrpcServer:
    audit = AuditLog(None, translate=CONTRACT.translate)
    return GrpcServer(
        [CreditService(committer, store, audit)],
        limits=CallLimits(message_bytes_max=4096),
        connections=connections,
        access=Access(None, audit=audit),
        contract=CONTRACT,
    )


async def test_calls_are_served_and_logged_with_user_and_process(
    server: GrpcServer, path: Path
) -> None:
    assert server.port == 0
    with structlog.testing.capture_logs() as lines:
        async with CreditClient(f"unix:{path}") as client:
            await client.add(**WRITE)
            assert await client.balance(app_id=1, user_id=7) == 5
    assert [line["peer"] for line in lines if line["event"] == "call"] == [
        f"{ME},pid={os.getpid()}"
    ] * 2


async def test_all_connections_of_a_user_count_as_one_peer(server: GrpcServer, path: Path) -> None:
    open_connections = [await asyncio.open_unix_connection(path) for _ in range(2)]
    for reader, _ in open_connections:
        await reader.readexactly(9)  # the server has greeted, and so has counted it
    async with CreditClient(f"unix:{path}", wait_for_ready=False) as client:
        with pytest.raises(Unavailable):
            await client.balance(app_id=1)
    assert server.connections.closed[Closing.TOO_MANY_OF_PEER] > 0
    assert dict(server.connections._per_network) == {ME: 2}
    for _, writer in open_connections:
        writer.close()
        await writer.wait_closed()


async def test_stopping_removes_the_file_before_running_calls_have_ended(
    server: GrpcServer, path: Path
) -> None:
    assert await asyncio.to_thread(path.is_socket)
    async with Connection.connect(path=path) as wire:
        stream_id, answer = wire.begin(call_headers(RUNNING), end=False)
        await wire.in_order()
        stopping = asyncio.create_task(server.stop(grace_seconds=3600))
        await until(lambda: not path.exists())
        assert not stopping.done()
        wire.send(stream_id, framed(message_bytes(UserId(user_id=7))), end=True)
        assert (await wire.ended(answer)).status is Status.OK
        await stopping


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_both_event_loops_listen_and_connect(
    new_loop: Callable[[], asyncio.AbstractEventLoop], path: Path
) -> None:
    async def call() -> int:
        store = MemoryStore()
        async with Committer(store) as committer:
            server = _server(committer, store, ConnectionLimits())
            await server.start(f"unix:{path}", 0)
            try:
                async with CreditClient(f"unix:///{path.relative_to('/')}") as client:
                    return (await client.add(**WRITE)).balance
            finally:
                await server.stop(grace_seconds=0)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(call()) == 5
    assert not path.exists()
