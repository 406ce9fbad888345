"""Test that the restore drill of the page about backups works as it is written there."""

import re
import shlex
from pathlib import Path

from credit_testing.pages import blocks
from credit_testing.server import run_credit_server

from tests.server.backup.ledgers import Ledger, make_ledger

PAGE = (Path(__file__).parents[2] / "docs" / "backup.md").read_text()


async def test_the_restore_drill_ends_with_the_digest_of_the_backup(
    mongod_uri: str, database: str, tmp_path: Path
) -> None:
    ledger: Ledger = await make_ledger(mongod_uri, database)
    settings = ("--mongodb-uri", ledger.uri, "--mongodb-database", ledger.database)
    made = await run_credit_server(tmp_path, "export", "--folder", "latest", *settings)
    assert made.status == 0, made.errors
    (drill,) = [block for block in blocks(PAGE, "") if "--check --folder /backups/latest" in block]
    commands = drill.replace("/backups/latest", "latest").splitlines()
    assert len(commands) == 3
    for command in commands:
        program, *arguments = shlex.split(command, comments=True)
        assert program == "credit-server"
        done = await run_credit_server(tmp_path, *arguments)
        assert done.status == 0, done.errors
        assert _digest(done.output) == _digest(made.output)


def _digest(output: str) -> str:
    found = re.search(r"^digest ([0-9a-f]{64})$", output, re.MULTILINE)
    assert found is not None, output
    return found[1]
