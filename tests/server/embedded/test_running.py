"""The `mongod` of a running server is found by its lock and its command line."""

import fcntl
import os
from pathlib import Path

import pytest
from credit_server.embedded import EmbeddedMongod, has_database, running_uri


def test_a_directory_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert running_uri(tmp_path / "missing") is None
    assert not has_database(tmp_path / "missing")


async def test_it_is_found_while_it_runs_and_not_afterwards(tmp_path: Path) -> None:
    async with EmbeddedMongod(data_dir=tmp_path) as mongod:
        assert running_uri(tmp_path) == mongod.uri
    assert running_uri(tmp_path) is None
    assert has_database(tmp_path)


@pytest.mark.parametrize(
    "content", [f"{os.getpid()}\n", "no number"], ids=["own number", "no number"]
)
def test_a_lock_of_another_program_is_not_one(content: str, tmp_path: Path) -> None:
    (tmp_path / "mongo").mkdir()
    lock = tmp_path / "mongo" / "mongod.lock"
    lock.write_text(content)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert running_uri(tmp_path) is None
