"""Test when an embedded mongod that ended is started again: at once, with free space, or never."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from credit_server.doctor.subject import _read_store
from credit_server.embedded import (
    FREE_BYTES_MIN,
    EmbeddedMongod,
    MongodFailed,
    restarting,
    running_uri,
)
from credit_server.embedded.restarting import RESTARTS_MAX, keep_running
from credit_server.errors import EmbeddedError
from credit_server.settings import ServerSettings
from credit_testing.mongod import kill_embedded_mongod
from structlog.testing import capture_logs

DEATHS = 3 * RESTARTS_MAX


class Disk:
    """Stands for a mongod that dies several times, and for its disk.

    Args:
        full: For each check of the disk, whether it is full. In later checks it is not full.
        failing: For each start, whether it fails. Later starts succeed.
        deaths: How often the mongod ends after a start.
    """

    def __init__(
        self, full: Sequence[bool], *, failing: Sequence[bool] = (), deaths: int = 1
    ) -> None:
        self.full = list(full)
        self.failing = list(failing)
        self.deaths = deaths
        self.starts = 0
        self.runs = asyncio.Event()

    async def wait_exited(self) -> str:
        if not self.deaths:
            self.runs.set()
            await asyncio.Event().wait()
        return "it died"

    def lacks_space(self) -> bool:
        return bool(self.full) and self.full.pop(0)

    async def restart(self) -> None:
        self.starts += 1
        if self.failing and self.failing.pop(0):
            raise MongodFailed("it did not start")
        self.deaths -= 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarting, "_SPACE_POLL_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("disk", "starts"),
    [
        # The disk is checked when mongod ends, then until there is space, and after a failed start.
        pytest.param(lambda: Disk([True, True, True]), 1, id="full for a while"),
        pytest.param(lambda: Disk([True, False] * DEATHS, deaths=DEATHS), DEATHS, id="often full"),
        pytest.param(
            lambda: Disk([False, True, True, True, False], failing=[True]),
            2,
            id="full when it starts again",
        ),
    ],
)
async def test_a_full_disk_only_delays_the_start(disk: Callable[[], Disk], starts: int) -> None:
    mongod = disk()
    keeping = asyncio.create_task(keep_running(cast(EmbeddedMongod, mongod)))
    runs = asyncio.create_task(mongod.runs.wait())
    await asyncio.wait({keeping, runs}, return_when=asyncio.FIRST_COMPLETED)
    assert not keeping.done()
    assert mongod.starts == starts
    assert mongod.full == []
    keeping.cancel()


async def test_a_mongod_that_is_killed_with_little_space_starts_when_some_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimpleNamespace(free=FREE_BYTES_MIN - 1)

    async def logged(begin: str) -> None:
        while not any(line["event"].startswith(begin) for line in lines):
            assert not keeping.done()
            await asyncio.sleep(0.01)

    async with EmbeddedMongod(data_dir=tmp_path) as mongod:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
        with capture_logs() as lines:
            keeping = asyncio.create_task(keep_running(mongod))
            await kill_embedded_mongod(tmp_path)
            await logged("the disk of the embedded mongod has less than 128 MB of free space")
            settings = ServerSettings(data_dir=tmp_path)
            reading = await _read_store(settings)
            assert reading.not_started == f"a server uses {tmp_path}, but its mongod is not running"
            disk.free = FREE_BYTES_MIN
            await logged("the embedded mongod runs again")
            assert running_uri(tmp_path) == mongod.uri
        keeping.cancel()


@pytest.mark.parametrize(
    "disk",
    [
        pytest.param(lambda: Disk([], deaths=DEATHS), id="dies too often"),
        pytest.param(lambda: Disk([], failing=[True]), id="does not start"),
    ],
)
async def test_a_mongod_with_space_that_does_not_stay_up_ends_the_server(
    disk: Callable[[], Disk],
) -> None:
    with pytest.raises(EmbeddedError):
        await keep_running(cast(EmbeddedMongod, disk()))
