"""Kill the real server in the middle of an import; importing again loses and repeats no row."""

import asyncio
from collections.abc import Iterator
from signal import SIGKILL
from typing import Any

import pytest
from credit_client import (
    ClientSettings,
    CreditClient,
    CreditError,
    ImportReport,
    ImportRow,
    InsufficientCredits,
)
from credit_testing.ledger_check import findings
from credit_testing.ports import lasting_port
from credit_testing.server import PATIENT, migrated
from pymongo import MongoClient

from tests.conftest import StartServer

USERS, ROWS, KILLS = 40, 12_000, 2
GRANT, PRICE = 10, 4


def _rows() -> Iterator[ImportRow]:
    """Return a grant of each user, then purchases; every third user's third one is too much."""
    for number in range(ROWS):
        user, turn = 1 + number % USERS, number // USERS
        base: dict[str, Any] = {"user_id": user, "app_id": 1, "created_by": 1}
        if turn % 4 == 0:
            yield ImportRow(**base, credits=GRANT)
        elif turn % 4 == 3 and user % 3:
            yield ImportRow(**base, credits=PRICE - 2, kind="use", report_id="r", report_name="R")
        else:
            yield ImportRow(**base, credits=PRICE, kind="use", report_id="r", report_name="R")


def _accepted() -> tuple[int, int]:
    """Return how many rows a ledger accepts one by one, and what is left in the end."""
    balances: dict[int | str, int] = dict.fromkeys(range(1, USERS + 1), 0)
    accepted = 0
    for row in _rows():
        change = row.credits if row.kind == "add" else -row.credits
        if balances[row.user_id] + change >= 0:
            balances[row.user_id] += change
            accepted += 1
    return accepted, sum(balances.values())


async def test_an_import_is_completed_after_its_server_was_killed(
    credit_server_process: StartServer, mongod_that_forgets: str
) -> None:
    name, port = "killed_import", lasting_port()
    options = ("--port", str(port), *await migrated(mongod_that_forgets, name), *PATIENT)
    settings = ClientSettings(
        target=f"127.0.0.1:{port}", retry_attempts_max=1, timeout_seconds=60, wait_for_ready=False
    )
    accepted, balance = _accepted()
    for kill in range(1, KILLS + 1):
        server = await credit_server_process(*options)
        reached = asyncio.Event()

        def progress(
            report: ImportReport, kill: int = kill, event: asyncio.Event = reached
        ) -> None:
            if report.applied + report.replayed >= kill * accepted // (KILLS + 1):
                event.set()

        async with CreditClient(settings=settings) as client:
            running = asyncio.create_task(client.import_(_rows(), name="may", progress=progress))
            await reached.wait()
            await server.stop(SIGKILL)
            with pytest.raises(CreditError):
                await running
    server = await credit_server_process(*options)
    async with CreditClient(settings=settings) as client:
        report = await client.import_(_rows(), name="may")
        assert report.rows == ROWS
        assert report.applied + report.replayed == accepted
        assert min(report.applied, report.replayed) > 0
        assert all(isinstance(each.error, InsufficientCredits) for each in report.rejections)
        assert report.rejected == ROWS - accepted > 0
        assert await client.balance(app_id=1) == balance
    await server.stop()
    with MongoClient[dict[str, Any]](mongod_that_forgets) as mongo:
        database = mongo[name]
        assert findings(database) == []
        assert database["credit_transactions"].count_documents({}) == accepted
