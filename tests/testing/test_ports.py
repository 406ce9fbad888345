"""Test that each caller gets a different lasting port, in one process or in two."""

import socket
import sys
from asyncio.subprocess import PIPE
from types import SimpleNamespace

import pytest
from credit_testing import ports
from credit_testing.child import started
from credit_testing.ports import HOST, lasting_port

_PROGRAM = "from credit_testing.ports import lasting_port as p; print(p(), flush=True); input()"


async def test_a_lasting_port_is_neither_reserved_nor_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = lasting_port()
    async with started(sys.executable, "-c", _PROGRAM, stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout is not None
        of_another_process = int(await process.stdout.readline())
        with socket.create_server((HOST, 0)) as listener:
            in_use: int = listener.getsockname()[1]
            drawn = iter([own, of_another_process, in_use, *range(31_999, 20_000, -1)])
            random = SimpleNamespace(choice=lambda _: next(drawn))
            monkeypatch.setattr(ports, "SystemRandom", lambda: random)
            assert lasting_port() not in (own, of_another_process, in_use)
    with socket.create_server((HOST, own)):
        pass
