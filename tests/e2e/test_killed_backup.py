"""Kill exports and imports at any moment; repeated, they end with the digest of the ledger."""

import asyncio
import os
import re
import sys
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

# `credit-server` with small chunks and batches. It kills itself before the n-th time that it makes
# a file durable or writes to the database; its first argument is n, or 0 for never.
PROGRAM = """
import os, signal, sys
from credit_server import main
from credit_server.backup import records
from credit_server.store import importing
from pymongo.collection import Collection

records.RECORDS_MAX, importing._BATCH = 20, 7
left = int(sys.argv.pop(1))

def counted(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

os.fsync = counted(os.fsync)
Collection.bulk_write = counted(Collection.bulk_write)
Collection.update_one = counted(Collection.update_one)
Collection.drop = counted(Collection.drop)
main.main()
"""
ENTRIES = 1500
# Among the accounts, then among the histories.
EXPORT_KILLED_AT = (3, 40, 60, 61, 62)
# Between two batches of a chunk, and between a chunk and the note that it is complete.
IMPORT_KILLED_AT = (1, 2, 3, 4, 5, 60, 121)


async def _run(killed_at: int, folder: Path, *arguments: str) -> Ended:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("CREDIT")}
    command_line = [sys.executable, "-c", PROGRAM, str(killed_at), *arguments]
    with template().start(command_line, folder=folder, environment=variables) as process:
        output, errors = await asyncio.gather(
            asyncio.to_thread(process.stdout.read), asyncio.to_thread(process.stderr.read)
        )
        status = await asyncio.to_thread(process.wait)
    return Ended(status=status, output=output.decode(), errors=errors.decode())


async def _killed(killed_at: int, folder: Path, *arguments: str) -> None:
    ended = await _run(killed_at, folder, *arguments)
    assert ended.status == -SIGKILL, ended.errors


async def _digest(folder: Path, *arguments: str) -> str:
    """Run a command to its end, and return the digest that it prints."""
    ended = await _run(0, folder, *arguments)
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
    whole = await _digest(tmp_path, "export", "--folder", "whole", *options)

    export = ("export", "--folder", "part", *options)
    for killed_at in EXPORT_KILLED_AT:
        await _killed(killed_at, tmp_path, *export)
    assert (tmp_path / "part" / manifest.NAME).exists()
    await ledger.grow()  # it is not part of the moment
    assert await _digest(tmp_path, *export) == whole

    target = f"{database}_copy"
    to = ("--mongodb-uri", mongod_uri, "--mongodb-database", target)
    import_ = ("import", "--folder", "part", *to)
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongod_uri) as client:
        try:
            for killed_at in IMPORT_KILLED_AT:
                await _killed(killed_at, tmp_path, *import_)
                refused = await _run(0, tmp_path, *import_)
                assert refused.status == 1
                assert "was killed within the last 15 seconds" in refused.errors
                # Do not wait for the end of the lease.
                client[target]["leases"].delete_one({"_id": "import"})
            refused = await _run(0, tmp_path, "serve", "--port", "0", *to)
            assert refused.status == 1
            assert "an import into it is not complete" in refused.errors
            assert await _digest(tmp_path, *import_) == whole
            assert findings(client[target]) == []
            assert await _digest(tmp_path, "export", "--folder", "again", *to) == whole
        finally:
            client.drop_database(target)
