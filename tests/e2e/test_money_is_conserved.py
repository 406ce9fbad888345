"""Test that acknowledged writes are never lost and the ledger adds up, also after crashes."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from credit_client import CreditClient
from credit_testing.mongod import kill_embedded_mongod

from tests.conftest import StartServer
from tests.e2e.audit import audit, read_ledger
from tests.e2e.workload import APPS, USERS, Sending, Workload, operations

OPERATIONS = 1_500
# The ledger refuses up to a third of them, which are never acknowledged.
OPERATIONS_WITH_KILLS = 1_000
QUIET = ("--log-level", "warning")  # one line per call would be megabytes


async def test_operations_with_duplicates_and_resends_add_up(
    seed: int, mongod_uri: str, store_options: list[str], credit_server_process: StartServer
) -> None:
    server = await credit_server_process(*QUIET, *store_options)
    async with CreditClient(server.address) as client:
        workload = Workload(client, operations(seed, OPERATIONS))
        await workload.run()
        assert await _findings(client, workload, mongod_uri, calm=True) == []
    _assert_every_kind_was_met(workload)


async def test_the_server_is_killed_under_load(
    seed: int, mongod_uri: str, tmp_path: Path, credit_server_process: StartServer
) -> None:
    server = await credit_server_process(*QUIET)
    address = server.address
    async with CreditClient(address) as client, _working(client, seed, mongod_uri) as workload:
        assert workload.serving is not None
        for milestone in (200, 450):
            await workload.journal.acknowledged(milestone)
            workload.serving.clear()
            assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
            server = await credit_server_process(*QUIET, "--port", str(server.port))
            assert server.address == address
            workload.serving.set()


async def test_the_embedded_mongod_is_killed_under_load(
    seed: int, mongod_uri: str, tmp_path: Path, credit_server_process: StartServer
) -> None:
    server = await credit_server_process()
    async with (
        CreditClient(server.address) as client,
        _working(client, seed, mongod_uri) as workload,
    ):
        assert workload.serving is not None
        for kills, milestone in enumerate((200, 450), start=1):
            await workload.journal.acknowledged(milestone)
            workload.serving.clear()
            await kill_embedded_mongod(tmp_path / ".credit-data")
            await server.logged(
                lambda line: line["event"] == "the embedded mongod runs again", times=kills
            )
            workload.serving.set()


@asynccontextmanager
async def _working(client: CreditClient, seed: int, uri: str) -> AsyncIterator[Workload]:
    """Run operations during the context; afterwards, finish them and audit."""
    workload = Workload(client, operations(seed, OPERATIONS_WITH_KILLS))
    workload.serving = asyncio.Event()
    workload.serving.set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(workload.run())
        yield workload
    assert await _findings(client, workload, uri, calm=False) == []


async def _findings(client: CreditClient, workload: Workload, uri: str, *, calm: bool) -> list[str]:
    view = await read_ledger(client, USERS, APPS)
    return audit(view, workload.operations, workload.journal, uri=uri, calm=calm)


def _assert_every_kind_was_met(workload: Workload) -> None:
    """A workload without rejected and replayed operations would prove little."""
    journal = workload.journal
    replayed = {
        operation.sending
        for operation in workload.operations
        if any(receipt.replayed for receipt in journal.receipts.get(operation.key, []))
    }
    assert {Sending.TWICE_AT_ONCE, Sending.AND_AGAIN, Sending.CANCELLED_AND_RESENT} <= replayed
    assert len(journal.receipts) > OPERATIONS / 3
    assert len(journal.refused) > OPERATIONS / 100
