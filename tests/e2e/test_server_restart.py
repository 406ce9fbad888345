"""Test a restart of the real server during concurrent calls: none fails, and each counts once."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from signal import SIGKILL, SIGTERM, Signals

import pytest
from aiohappyeyeballs import AddrInfoType
from credit_client import ClientSettings, CreditClient
from credit_client.addresses import open_socket
from credit_testing.ports import lasting_port
from credit_testing.server import migrated

from tests.conftest import StartServer

WORKERS, CALLS = 40, 12
# All of the restart is part of each call's time, on a machine of any speed.
DEADLINE_SECONDS = 300.0


@pytest.mark.parametrize("number", [SIGKILL, SIGTERM], ids=["killed", "stopped"])
async def test_calls_retry_until_the_restart_ends_and_each_counts_once(
    credit_server_process: StartServer,
    mongod_that_forgets: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: Signals,
) -> None:
    attempts = 0

    async def counted(addresses: Sequence[AddrInfoType]) -> socket.socket:
        nonlocal attempts
        attempts += 1
        return await open_socket(addresses)

    monkeypatch.setattr("credit_client.channel.open_socket", counted)
    caplog.set_level(logging.WARNING, "asyncio")
    store_options = await migrated(mongod_that_forgets, "restart")
    port = str(lasting_port())
    server = await credit_server_process("--port", port, *store_options)
    settings = ClientSettings(target=server.address, timeout_seconds=DEADLINE_SECONDS)
    done = 0
    users = range(number * 1000, number * 1000 + WORKERS)  # each case has its own
    begun = asyncio.Event()

    async with CreditClient(settings=settings) as client:

        async def work(user_id: int) -> None:
            nonlocal done
            for _ in range(CALLS):
                await client.add(user_id=user_id, app_id=1, credits=1, created_by=1)
                done += 1
                if done >= WORKERS:
                    begun.set()

        work_done = asyncio.gather(*(work(user_id) for user_id in users))
        await begun.wait()
        before, since = attempts, asyncio.get_running_loop().time()
        await server.stop(number)
        server = await credit_server_process("--port", port, *store_options)
        await work_done
        for user_id in users:
            assert await client.balance(app_id=1, user_id=user_id) == CALLS
        elapsed = asyncio.get_running_loop().time() - since
        during = attempts - before
    # Between two attempts at least half of 50 ms, 100 ms and so on up to 2 s passes, however many
    # calls wait: the first six waits may be short, and each further one takes a second or more.
    # Besides, each of two channels begins at once, and connects once more in the end.
    assert during <= 6 + elapsed + 4
    assert done == WORKERS * CALLS
    assert caplog.messages == []
