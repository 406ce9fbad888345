"""Test SIGTERM under load: first health, then GOAWAY, then the running calls, then the end."""

import asyncio
import signal
from contextlib import AsyncExitStack

from credit_client import CreditClient
from credit_models import CreditRequest, Empty
from credit_models.codec import encode
from credit_testing.calls import SERVICE, call_headers, framed
from credit_testing.http2_client import Connection
from grpclib.const import Status
from grpclib.health.v1.health_pb2 import HealthCheckResponse

from tests.conftest import StartServer
from tests.e2e.audit import audit, read_ledger
from tests.e2e.failpoint import blocked_commits
from tests.e2e.workload import APPS, USERS, Journal, Workload, operations

CLIENTS = 4
OPERATIONS_OF_EACH = 300
ADD = framed(encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)))


async def test_no_acknowledged_write_is_lost_and_no_call_hangs(
    seed: int, mongod_uri: str, store_options: list[str], credit_server_process: StartServer
) -> None:
    server = await credit_server_process("--log-level", "warning", *store_options)
    journal, serving = Journal(), asyncio.Event()
    serving.set()
    workloads = []
    async with AsyncExitStack() as open_clients:
        for number in range(CLIENTS):
            client = await open_clients.enter_async_context(CreditClient(server.address))
            workload = Workload(client, operations(seed + number, OPERATIONS_OF_EACH))
            workload.journal, workload.serving = journal, serving
            workloads.append(workload)

        # All callers end, so every call has an answer.
        async with asyncio.TaskGroup() as callers:
            for workload in workloads:
                callers.create_task(workload.run())
            await journal.acknowledged(CLIENTS * OPERATIONS_OF_EACH // 8)
            serving.clear()
            assert await server.stop(signal.SIGTERM) == 0
            await credit_server_process(
                "--log-level", "warning", "--port", str(server.port), *store_options
            )
            serving.set()

        view = await read_ledger(client, USERS, APPS)
    sent = [operation for workload in workloads for operation in workload.operations]
    assert audit(view, sent, journal, uri=mongod_uri, calm=False) == []


async def test_the_steps_of_the_drain_happen_in_order(
    mongod_uri: str, store_options: list[str], credit_server_process: StartServer
) -> None:
    server = await credit_server_process(*store_options)
    async with Connection.connect(server.port) as wire, blocked_commits(mongod_uri) as blocked:
        _, watch = wire.begin(call_headers("/grpc.health.v1.Health/Watch"), framed(b""))
        await watch.begun()
        running_id, running = wire.begin(call_headers(SERVICE + "AddCredits"), ADD)
        await blocked.met()
        server.send(signal.SIGTERM)

        while len(watch.messages(HealthCheckResponse)) < 2:
            watch.changed.clear()
            await watch.changed.wait()
        assert [answer.status for answer in watch.messages(HealthCheckResponse)] == [
            HealthCheckResponse.SERVING,
            HealthCheckResponse.NOT_SERVING,
        ]
        await wire.received_goaways(2)
        assert wire.goaways == [2**31 - 1, running_id]
        assert not running.ended.is_set()

        assert (await wire.ended(running)).message(Empty) == Empty()
        assert (await wire.ended(watch)).status is Status.UNAVAILABLE
        await wire.closed.wait()
        assert wire.goaway == 0
    assert await server.wait() == 0
