"""Test that a wrong exit status of a server is a finding."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from credit_torture.servers import Server


@pytest.mark.parametrize(
    ("number", "status", "found"),
    [
        (signal.SIGTERM, 0, []),
        (signal.SIGKILL, -9, []),
        (signal.SIGTERM, 1, ["server a ended with status 1 after SIGTERM, not 0"]),
        (signal.SIGTERM, -9, ["server a ended with status -9 after SIGTERM, not 0"]),
        (signal.SIGKILL, 1, ["server a ended with status 1 after SIGKILL, not -9"]),
    ],
)
async def test_the_exit_status_of_a_server_is_that_of_its_signal(
    tmp_path: Path, number: signal.Signals, status: int, found: list[str]
) -> None:
    async def stop(_: signal.Signals) -> int:
        return status

    server = Server("a", tmp_path / "a", [], workers=1)
    process: Any = SimpleNamespace(stop=stop)  # Any: it is no real process
    server.process = process
    await server.end(number)
    assert server.findings == found
