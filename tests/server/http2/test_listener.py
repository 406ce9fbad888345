"""Closing the listening socket: a client is served or refused, and never reset."""

import asyncio
import socket
import sys
from typing import cast

import pytest
from credit_server.http2.listener import _drop_new_handshakes, stop_listening

from tests.server.loops import OnLoop, on_both_loops

needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can drop the SYNs of one listening socket"
)


class Greeting(asyncio.Protocol):
    """Says that it was accepted."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast(asyncio.Transport, transport)
        accepted.write(b"welcome")
        accepted.close()


async def _listen(host: str = "127.0.0.1") -> tuple[asyncio.Server, tuple[str, int]]:
    server = await asyncio.get_running_loop().create_server(Greeting, host, 0)
    return server, server.sockets[0].getsockname()[:2]


@needs_linux
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@on_both_loops
async def test_a_connection_that_waits_to_be_accepted_is_served(on_loop: OnLoop, host: str) -> None:
    async def scenario() -> None:
        server, address = await _listen(host)
        # The kernel completes the handshake; the event loop has had no turn to accept it.
        with socket.create_connection(address) as client:
            await stop_listening(server, settle_seconds_max=0.05)
            client.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(client, 7) == b"welcome"

    await on_loop(scenario)


@needs_linux
@on_both_loops
async def test_a_connection_that_comes_meanwhile_is_refused_and_not_reset(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        server, address = await _listen()
        assert _drop_new_handshakes(server.sockets)
        late = asyncio.create_task(asyncio.to_thread(socket.create_connection, address))
        await asyncio.sleep(0.05)
        await stop_listening(server, settle_seconds_max=0)
        with pytest.raises(ConnectionRefusedError):
            await late

    await on_loop(scenario)


async def test_a_socket_of_another_kind_is_closed_at_once() -> None:
    first, second = socket.socketpair()
    with first, second:
        assert not _drop_new_handshakes([first])


@on_both_loops
async def test_without_a_pause_it_is_closed_at_once(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        server, address = await _listen()
        await stop_listening(server, settle_seconds_max=0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)

    await on_loop(scenario)
