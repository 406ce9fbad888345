"""Test that MongoDB fails and recovers: health changes, calls fail, and the server continues."""

from collections.abc import AsyncIterator, Awaitable, Callable
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest
from credit_client import ClientSettings, CreditClient, StoreUnavailable
from credit_client.transport import AttemptFailed
from credit_testing.mongod import MongodProcess, running_mongod
from credit_testing.server import ServerProcess, migrated, running_server
from google.rpc.error_details_pb2 import RetryInfo
from grpclib.client import Channel
from grpclib.client import Stream as ClientStream
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from pymongo import AsyncMongoClient

USER, APP = 7, 1
STORE_TIMEOUT = ("--store-timeout-seconds", "0.3")
QUICK = {"commit": {"retry_seconds": 0.5}, "health": {"interval_seconds": 0.1}}
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING

Act = Callable[[MongodProcess], Awaitable[None]]
Watch = ClientStream[HealthCheckRequest, HealthCheckResponse]


@pytest.fixture(scope="module")
async def mongod(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MongodProcess]:
    async with running_mongod(tmp_path_factory.mktemp("mongod")) as mongod:
        yield mongod


@pytest.fixture(scope="module")
async def server(
    mongod: MongodProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    options = await migrated(mongod.uri, "credit")
    folder = tmp_path_factory.mktemp("server")
    async with running_server(folder, *options, *STORE_TIMEOUT, constants=QUICK) as server:
        yield server


async def freeze(mongod: MongodProcess) -> None:
    mongod.send(SIGSTOP)


async def thaw(mongod: MongodProcess) -> None:
    mongod.send(SIGCONT)


async def kill(mongod: MongodProcess) -> None:
    await mongod.end(SIGKILL)


async def start(mongod: MongodProcess) -> None:
    await mongod.start()


async def step_down(mongod: MongodProcess) -> None:
    await _command(mongod, {"replSetStepDown": 600, "secondaryCatchUpPeriodSecs": 0, "force": True})


async def step_up(mongod: MongodProcess) -> None:
    await _command(mongod, {"replSetFreeze": 0})


async def _command(mongod: MongodProcess, command: dict[str, object]) -> None:
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod.uri, directConnection=True) as client:
        await client.admin.command(command)


@pytest.mark.parametrize(("fail", "recover"), [(kill, start), (freeze, thaw), (step_down, step_up)])
async def test_calls_fail_with_a_retry_delay_and_the_server_recovers(
    mongod: MongodProcess, server: ServerProcess, fail: Act, recover: Act
) -> None:
    key = fail.__name__
    once = ClientSettings(target=server.address, retry_attempts_max=1, timeout_seconds=60)
    channel = Channel(server.address.partition(":")[0], server.port)
    async with (
        CreditClient(settings=once) as client,
        channel,
        HealthStub(channel).Watch.open() as watch,
    ):
        await watch.send_message(HealthCheckRequest(), end=True)
        assert await _status(watch) == SERVING
        before = await client.balance(app_id=APP, user_id=USER)
        await fail(mongod)
        assert await _status(watch) == NOT_SERVING
        for call in (
            _add(client, key),
            client.user_credits(user_id=USER),
            client.balance(app_id=APP),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await call
            assert _retry_seconds(caught.value) > 0
        await recover(mongod)
        assert await _status(watch) == SERVING
        assert await _add(client, key) == before + 1
        assert await _add(client, key) == before + 1
        history = [entry.idempotency_key async for entry in client.transactions(user_id=USER)]
        assert history.count(key) == 1
        await watch.cancel()  # leaving the stream would wait for an end that a watch does not have


async def _status(watch: Watch) -> int:
    """Wait for the next health status; the first one is the current status."""
    message = await watch.recv_message()
    assert message is not None
    return message.status


async def _add(client: CreditClient, key: str) -> int:
    receipt = await client.add(
        user_id=USER, app_id=APP, credits=1, created_by=1, idempotency_key=key
    )
    return receipt.balance


def _retry_seconds(error: StoreUnavailable) -> float:
    """Return the delay before a retry that the server has sent."""
    failure = error.__cause__
    assert isinstance(failure, AttemptFailed)
    (info,) = (detail for detail in failure.details if isinstance(detail, RetryInfo))
    return float(info.retry_delay.ToMilliseconds() / 1000)
