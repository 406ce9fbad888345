"""Test that the restore drill of the page about backups works as it is written there."""

import re
import shlex
from pathlib import Path

import pytest
from credit_server import main
from credit_testing.pages import blocks

from tests.server.backup.ledgers import Ledger, make_ledger

PAGE = (Path(__file__).parents[2] / "docs" / "backup.md").read_text()


@pytest.fixture
async def ledger(mongod_uri: str, database: str) -> Ledger:
    return await make_ledger(mongod_uri, database)


def test_the_restore_drill_ends_with_the_digest_of_the_backup(
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def digest(*arguments: str) -> str:
        """Run a command in this process, and return the digest that it prints."""
        status = main.run(arguments)
        shown = capsys.readouterr()
        assert status == 0, shown.err
        found = re.search(r"^digest ([0-9a-f]{64})$", shown.out, re.MULTILINE)
        assert found is not None, shown.out
        return found[1]

    monkeypatch.chdir(tmp_path)
    settings = ("--mongodb-uri", ledger.uri, "--mongodb-database", ledger.database)
    made = digest("export", "--folder", "latest", *settings)
    (drill,) = blocks(PAGE, "shell")
    commands = drill.replace("/backups/latest", "latest").splitlines()
    assert len(commands) == 3
    for command in commands:
        program, *arguments = shlex.split(command, comments=True)
        assert program == "credit-server"
        assert digest(*arguments) == made
