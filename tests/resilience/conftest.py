"""Provide a server under attack with a bystander, and the CPU time of ordinary calls."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from credit_resilience import usage
from credit_resilience.attack import ATTACKER
from credit_resilience.requests import BALANCE, balance_message, call_block
from credit_resilience.run import TargetServer, target_server, write_history
from credit_resilience.server import ServerLimits
from credit_testing.http2_client import Connection
from credit_testing.server import migrated, running_server
from pymongo import AsyncMongoClient

ORDINARY_CALLS = 3_000
_MEASURED_CALLS = 600
_AT_A_TIME = 50
PERIOD_SECONDS = 0.2
"""The bystander's period. With the usual period, its calls take more CPU time than the attacks."""
# Low limits, so that the attacks exceed them soon. The limit of the handshake is the usual one: on
# a busy machine an attacker that sends its preface at once may need more than half a second, and
# its connection then ends with PROTOCOL_ERROR.
LIMITS = ServerLimits(
    idle_seconds=1.0,
    stall_seconds=0.5,
    connections_max=300,
    connections_per_peer_max=100,
)


@pytest.fixture(scope="module")
async def attacked_database(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """Return the name of a database with a long history, for the servers with both engines."""
    name = f"test_resilience_{uuid.uuid4().hex}"
    options = await migrated(mongod_uri, name)
    async with running_server(tmp_path_factory.mktemp("history"), *options) as server:
        await write_history(server.address)
    yield name
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(name)


@pytest.fixture(scope="module")
async def attacked(
    mongod_uri: str,
    attacked_database: str,
    tmp_path_factory: pytest.TempPathFactory,
    http2_engine: str,
    forked_children: None,
) -> AsyncIterator[TargetServer]:
    folder = tmp_path_factory.mktemp("attacked")
    async with target_server(
        mongod_uri, attacked_database, folder, limits=LIMITS, period_seconds=PERIOD_SECONDS
    ) as target:
        yield target


@pytest.fixture(scope="module")
async def ordinary_cpu_seconds(attacked: TargetServer) -> float:
    """Return the CPU time of the server for thousands of its cheapest calls on one connection.

    It is extrapolated from a part of these calls.
    """
    server, block, body = attacked.server, call_block(BALANCE), balance_message()
    before = usage.cpu_seconds(server.pid)
    async with Connection.connect(server.port, source=ATTACKER, automatic=False) as peer:
        for _ in range(0, _MEASURED_CALLS, _AT_A_TIME):
            answers = []
            for _ in range(_AT_A_TIME):
                answers.append(peer.begin(block, body)[1])
                await asyncio.sleep(0)  # a server that reads many calls at once uses less time
            for answer in answers:
                await answer.ended.wait()
                assert answer.outcome == "OK"
    return (usage.cpu_seconds(server.pid) - before) * ORDINARY_CALLS / _MEASURED_CALLS
