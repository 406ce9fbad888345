"""Test that no event of an alert is lost if servers are killed, and that several share the work."""

import asyncio
import json
from signal import SIGKILL
from typing import Any

import pytest
from credit_client import AlertDirection, CreditClient
from credit_testing.ports import lasting_port
from credit_testing.server import PATIENT, migrated

from tests.conftest import StartServer
from tests.server.webhooks.endpoint import endpoint

USERS = range(1, 21)
# A server that is killed while it sends an event has a claim on it for a minute.
pytestmark = pytest.mark.timeout(180)


async def test_events_of_killed_servers_are_delivered_by_two_others(
    credit_server_process: StartServer, mongod_that_forgets: str
) -> None:
    options = await migrated(mongod_that_forgets, "alerts")
    options += [*PATIENT, "--webhook-allow-private"]
    port = lasting_port()
    server = await credit_server_process(*options)
    async with CreditClient(server.address) as credits_:
        await credits_.set_alert(
            app_id=1, credits=20, created_by=1, direction=AlertDirection.RISES_TO
        )
        # Nothing listens there yet: the first attempts fail.
        await credits_.set_webhook(app_id=1, created_by=1, url=f"http://127.0.0.1:{port}/")
        added = {
            (await credits_.add(user_id=user, app_id=1, credits=20, created_by=1)).transaction_id
            for user in USERS
        }
    # Between the commit and the delivery, for the latest events also before they have a position.
    await server.stop(SIGKILL)
    servers = [await credit_server_process(*options) for _ in range(2)]
    async with endpoint(port=port) as there, CreditClient(servers[0].address) as credits_:
        received: list[Any] = []
        while len({each["id"] for each in received}) < len(USERS):
            received = [json.loads(each.body)["data"] for each in there.received]
            await asyncio.sleep(0.05)
        assert {each["transaction_id"] for each in received} == added
        assert len(received) <= 3 * len(USERS)
        events = [each async for each in credits_.alert_events(app_id=1)]
    assert [each.position for each in events] == list(range(1, len(USERS) + 1))
    assert {each.id for each in events} == {each["id"] for each in received}
