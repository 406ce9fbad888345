"""Test two servers on one database: every answer is explained, also if one of them is killed."""

import asyncio
from signal import SIGKILL
from typing import Any

from credit_testing.accounts.auditor import audit
from credit_testing.ledger_check import findings
from credit_testing.ports import lasting_port
from credit_testing.server import PATIENT, migrated
from pymongo import MongoClient

from tests.conftest import StartServer
from tests.fuzz.accounts_workload import Workload

OPERATIONS, KILLED_AFTER = 480, 150


async def test_two_servers_of_which_one_is_killed_keep_one_ledger(
    credit_server_process: StartServer, mongod_that_forgets: str, seed: int
) -> None:
    store = await migrated(mongod_that_forgets, "two_servers")
    options = [*PATIENT, *store, "--log-level", "warning"]
    ports = [lasting_port(), lasting_port()]
    servers = [await credit_server_process("--port", str(port), *options) for port in ports]
    workload = Workload(ports, seed)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(workload.run(OPERATIONS))
        await workload.acknowledged(KILLED_AFTER)
        assert await servers[0].stop(SIGKILL) == -SIGKILL
        servers[0] = await credit_server_process("--port", str(ports[0]), *options)
        await running
    await workload.close()
    for server in servers:
        assert await server.stop() == 0
    found = audit(workload.callers.journal, workload.users, policies={})
    assert not found, "\n\n".join(found)
    client: MongoClient[dict[str, Any]]  # documents hold values of many types
    with MongoClient(mongod_that_forgets) as client:
        assert findings(client["two_servers"]) == []
