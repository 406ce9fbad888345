"""Kill exports and imports at any moment; repeated, they end with the digest of the ledger."""

import asyncio
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL
from typing import Any

from credit_models.ledger import Add
from credit_server.backup import manifest
from credit_server.commit import Submission
from credit_testing.ledger_check import findings
from credit_testing.server import Ended, migrated
from credit_testing.template import template
from pymongo import MongoClient

from tests.server.backup.ledgers import Ledger

# `credit-server` with small chunks and batches, so that it can be killed between any two.
PROGRAM = """
from credit_server import main
from credit_server.backup import records
from credit_server.store import importing
records.RECORDS_MAX, importing._BATCH = 20, 7
main.main()
"""
ENTRIES = 1500
KILLED_AFTER = (2, 10, 40)


async def _killed(
    progress: Callable[[], int], killed_at: int, folder: Path, *arguments: str
) -> None:
    """Start a command, and kill it when its progress has reached a number."""
    with template().start(
        [sys.executable, "-c", PROGRAM, *arguments], folder=folder, environment=_environment()
    ) as process:
        # Files or documents of another process are polled: nothing can be awaited.
        while process.poll() is None and await asyncio.to_thread(progress) < killed_at:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        process.send_signal(SIGKILL)
        assert process.wait() == -SIGKILL, process.stderr.read()


async def _completed(folder: Path, *arguments: str) -> Ended:
    with template().start(
        [sys.executable, "-c", PROGRAM, *arguments], folder=folder, environment=_environment()
    ) as process:
        output, errors = await asyncio.gather(
            asyncio.to_thread(process.stdout.read), asyncio.to_thread(process.stderr.read)
        )
        status = await asyncio.to_thread(process.wait)
    return Ended(status=status, output=output.decode(), errors=errors.decode())


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CREDIT_")}


def _digest(ended: Ended) -> str:
    assert ended.status == 0, ended.errors
    found = re.search(r"^digest ([0-9a-f]{64})$", ended.output, re.MULTILINE)
    assert found is not None
    return found[1]


async def _grow(ledger: Ledger) -> None:
    async with ledger.committing() as (store, committer):
        adds = [
            Submission(
                Add(
                    user_id=1000 + number % 90,
                    app_id=1,
                    credits=1,
                    created_by=1,
                    key="",
                    transaction_id=store.new_id(),
                )
            )
            for number in range(ENTRIES)
        ]
        await asyncio.gather(*committer.submit_all(adds))


async def test_an_export_and_an_import_that_are_killed_end_with_the_same_digest(
    mongod_uri: str, database: str, tmp_path: Path
) -> None:
    options = await migrated(mongod_uri, database)
    ledger = Ledger(mongod_uri, database)
    await ledger.fill()
    await _grow(ledger)
    whole = _digest(await _completed(tmp_path, "export", "--folder", "whole", *options))

    # A second export begins at a later moment, so nothing is written before its snapshot is read.
    part = tmp_path / "part"
    export = ("export", "--folder", str(part), *options)
    for count in KILLED_AFTER:
        await _killed(lambda: len(list(part.glob("*.gz"))), count, tmp_path, *export)
    assert (part / manifest.NAME).exists()
    await ledger.grow()  # it is not part of the moment
    assert _digest(await _completed(tmp_path, *export)) == whole

    target = f"{database}_copy"
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongod_uri) as client:

        def complete() -> int:
            found = client[target]["import_progress"].find_one()
            return 0 if found is None else int(found["chunks"])

        to = ("--mongodb-uri", mongod_uri, "--mongodb-database", target)
        import_ = ("import", "--folder", str(part), *to)
        try:
            for count in KILLED_AFTER:
                await _killed(complete, count, tmp_path, *import_)
            refused = await _completed(tmp_path, "serve", *to)
            assert refused.status == 1
            assert "an import into it is not complete" in refused.errors
            assert _digest(await _completed(tmp_path, *import_)) == whole
            assert findings(client[target]) == []
            again = ("export", "--folder", "again", *to)
            assert _digest(await _completed(tmp_path, *again)) == whole
        finally:
            client.drop_database(target)
