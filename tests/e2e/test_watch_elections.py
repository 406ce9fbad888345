"""50 watchers of two servers and three databases, of which primaries and a server are killed."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from signal import SIGKILL
from typing import Any

from credit_testing.ledger_check import findings
from credit_testing.mongod import running_replica_set
from credit_testing.ports import HOST, lasting_port
from credit_testing.server import PATIENT, migrated
from pymongo import MongoClient

from tests.conftest import StartServer
from tests.e2e.watchers import Watched

USERS, OF_USER, OF_APP = range(1, 8), 3, 4

# The writes for each user between two disturbances.
WRITES = 4

# How often everything is killed: more often by hand, `TEST_ROUNDS=20`.
ROUNDS = int(os.environ.get("TEST_ROUNDS", "1"))


async def test_watchers_of_two_servers_miss_nothing_while_primaries_and_a_server_are_killed(
    tmp_path: Path, credit_server_process: StartServer, seed: int
) -> None:
    watched = Watched(USERS, seed=seed)
    async with running_replica_set(tmp_path / "nodes") as nodes:
        options = [*PATIENT, *await migrated(nodes.uri, "credit"), "--log-level", "warning"]
        ports = [lasting_port(), lasting_port()]
        servers = [await credit_server_process("--port", str(port), *options) for port in ports]

        async def kill_primary() -> None:
            primary = await nodes.primary()
            await primary.end(SIGKILL)
            await watched.caught_up(writes=WRITES)
            primary.launch()

        async def kill_server() -> None:
            await servers[0].stop(SIGKILL)
            servers[0] = await credit_server_process("--port", str(ports[0]), *options)

        disturbances: list[Callable[[], Awaitable[None]]] = [
            nodes.step_down,
            kill_primary,
            kill_server,
        ]
        addresses = [f"{HOST}:{port}" for port in ports]
        async with watched.through(addresses, of_user=OF_USER, of_app=OF_APP):
            assert len(watched.watchers) == 50
            for _ in range(ROUNDS):
                for disturb in Random(seed).sample(disturbances, len(disturbances)):
                    await watched.caught_up(writes=WRITES)
                    await disturb()
            await watched.caught_up(writes=WRITES)
        for server in servers:
            assert await server.stop() == 0
        client: MongoClient[dict[str, Any]]  # documents hold values of many types
        with MongoClient(nodes.uri) as client:
            assert findings(client["credit"]) == []
