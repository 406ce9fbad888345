"""Kill servers while they write what is due: grants end once, and holds are freed once."""

import asyncio
import time
from datetime import timedelta
from signal import SIGKILL
from typing import Any

from credit_models.ledger import GrantCredits, PlaceHold, Receipt
from credit_server.commit import Clock, Committer
from credit_server.store.mongo import MongoStore
from credit_testing.ledger_check import findings
from credit_testing.server import PATIENT, migrated
from pymongo import MongoClient
from pymongo.database import Database

from tests.conftest import StartServer

USERS = range(1, 101)
KILLS = 2
MINUTE = timedelta(minutes=1)


async def _fill(uri: str, name: str) -> None:
    """Give each user a grant and a hold of a part of it, which have ended meanwhile."""
    store = MongoStore(uri, database=name)
    an_hour_ago = Clock(wall=lambda: time.time() - 3600)  # compared with no store

    async with Committer(store, clock=an_hour_ago) as committer:

        async def fill(user: int) -> None:
            def common() -> dict[str, Any]:
                made = {"transaction_id": store.new_id(), "key": ""}
                return {"user_id": user, "app_id": 1 + user % 3, "created_by": 5, **made}

            for command in (
                GrantCredits(**common(), credits=9, expires_after=9 * MINUTE),
                PlaceHold(**common(), credits=4, expires_after=5 * MINUTE),
            ):
                assert isinstance(await committer.submit(command), Receipt)

        await asyncio.gather(*map(fill, USERS))
    await store.close()


def _settled(database: Database[dict[str, Any]]) -> int:
    return database["credit_transactions"].count_documents({"type": "expire"})


async def _until_settled(database: Database[dict[str, Any]], count: int) -> None:
    while _settled(database) < count:
        # The test does not wait for the end of the lease of a server that was killed.
        database["leases"].delete_many({})
        await asyncio.sleep(0.02)


async def test_what_is_due_is_written_once_although_servers_are_killed(
    credit_server_process: StartServer, mongod_that_forgets: str
) -> None:
    name = "killed_settles"
    store_options = await migrated(mongod_that_forgets, name)
    await _fill(mongod_that_forgets, name)
    options = ("--port", "0", "--settle-per-second", "500", *store_options, *PATIENT)
    with MongoClient[dict[str, Any]](mongod_that_forgets) as client:
        database = client[name]
        for kill in range(1, KILLS + 1):
            server = await credit_server_process(*options)
            await _until_settled(database, kill * len(USERS) // (KILLS + 2))
            await server.stop(SIGKILL)
        # The leases are removed all the time, so both servers sweep.
        servers = [await credit_server_process(*options) for _ in range(2)]
        await _until_settled(database, len(USERS))
        for server in servers:
            await server.stop()
        assert findings(database) == []
        kinds = [
            (entry["type"], entry["credits"])
            for entry in database["credit_transactions"]
            .find()
            .sort([("user_id", 1), ("sequence", 1)])
        ]
        one = [("grant", 9), ("hold", 4), ("release", 4), ("expire", 9)]
        assert kinds == one * len(USERS)
        assert all("apps" not in account for account in database["user_credits"].find())
