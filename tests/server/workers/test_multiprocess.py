"""Test what the supervisor does before its workers have started."""

import signal

import pytest
from credit_server import multiprocess
from credit_server.errors import StartError
from credit_server.settings import ServerSettings


async def test_a_hangup_during_the_start_does_not_end_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handlers = []

    async def check_address(_: ServerSettings) -> None:
        handlers.append(signal.getsignal(signal.SIGHUP))
        raise StartError("stop here")

    monkeypatch.setattr(multiprocess, "check_address", check_address)
    with pytest.raises(StartError, match="stop here"):
        await multiprocess.serve(ServerSettings(workers=2))
    assert handlers
    assert handlers[0] not in {signal.SIG_DFL, signal.SIG_IGN}
