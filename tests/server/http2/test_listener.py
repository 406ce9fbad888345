"""The listening socket: its address is tested, failed TLS handshakes are reported, it closes."""

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, cast

import pytest
from credit_server.http2.connections import Closing
from credit_server.http2.listener import _drop_new_handshakes, stop_listening, try_address

from tests.ipv6 import needs_ipv6
from tests.server.http2.test_connection import certified, closed
from tests.server.loops import on_both_loops
from tests.server.serving import Serving, serving, until

Logged = list[MutableMapping[str, Any]]  # Any: structlog's own type

needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can drop the SYNs of one listening socket"
)


async def test_a_free_port_stays_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    await try_address("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_port_that_another_program_listens_on_is_an_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="address already in use"),
    ):
        await try_address("127.0.0.1", taken.getsockname()[1])


def _context(directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=directory / "certificate.pem")
    context.set_alpn_protocols(["h2"])
    return context


async def _connect(served: Serving, context: ssl.SSLContext | None, sent: bytes = b"") -> None:
    """Connect, send some bytes, and wait until the server closes the connection."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
        writer.write(sent)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await reader.read()
        writer.close()


@on_both_loops
@pytest.mark.parametrize(
    "sent",
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(100)],
    ids=["HTTP/2", "HTTP/1.1", "zeros"],
)
async def test_a_client_without_tls_is_counted_and_logged(
    tmp_path: Path, logged: Logged, sent: bytes
) -> None:
    async with serving(tls=certified(tmp_path)) as served:
        await _connect(served, None, sent)
        assert closed(served) == {Closing.TLS: 1}
    (line,) = (line for line in logged if line["event"] == "connection closed")
    assert line["reason"] == "TLS handshake"
    assert line["detail"]
    assert line["log_level"] == "info"


@on_both_loops
async def test_a_client_with_an_older_tls_is_logged_with_the_reason(
    tmp_path: Path, logged: Logged
) -> None:
    tls = certified(tmp_path)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    client = _context(tmp_path)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(tls=tls) as served:
        await _connect(served, client)
        await until(lambda: closed(served) == {Closing.TLS: 1})
    assert logged[0]["detail"] == "unsupported protocol"


@on_both_loops
async def test_a_client_without_a_common_protocol_is_counted_and_logged(
    tmp_path: Path, logged: Logged
) -> None:
    async with serving(tls=certified(tmp_path)) as served:
        client = _context(tmp_path)
        client.set_alpn_protocols(["http/1.1"])
        await _connect(served, client)
        await until(lambda: closed(served) == {Closing.PROTOCOL: 1})
    assert logged[0]["peer"].startswith("127.0.0.1:")


@on_both_loops
async def test_a_handshake_that_succeeds_is_not_counted(tmp_path: Path) -> None:
    async with serving(tls=certified(tmp_path)) as served:
        client = _context(tmp_path)
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=client)
        await until(lambda: len(served.server.connections.members) == 1)
        writer.close()
        await until(lambda: closed(served) == {Closing.CLIENT: 1})


class Greeting(asyncio.Protocol):
    """Sends a greeting to each connection that is accepted."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast(asyncio.Transport, transport)
        accepted.write(b"welcome")
        accepted.close()


async def _listen(host: str = "127.0.0.1") -> tuple[asyncio.Server, tuple[str, int]]:
    server = await asyncio.get_running_loop().create_server(Greeting, host, 0)
    return server, server.sockets[0].getsockname()[:2]


@needs_linux
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
@on_both_loops
async def test_a_connection_that_is_not_accepted_yet_is_served(host: str) -> None:
    server, address = await _listen(host)
    # The kernel completes the handshake; the event loop has had no turn to accept it.
    with socket.create_connection(address) as client:
        await stop_listening(server, settle_seconds_max=0.05)
        client.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(client, 7) == b"welcome"


@needs_linux
@on_both_loops
async def test_a_connection_that_comes_meanwhile_is_refused_and_not_reset() -> None:
    server, address = await _listen()
    assert _drop_new_handshakes(server.sockets)
    late = asyncio.create_task(asyncio.to_thread(socket.create_connection, address))
    await asyncio.sleep(0.05)
    await stop_listening(server, settle_seconds_max=0)
    with pytest.raises(ConnectionRefusedError):
        await late


async def test_a_socket_that_is_not_tcp_takes_no_filter() -> None:
    first, second = socket.socketpair()
    with first, second:
        assert not _drop_new_handshakes([first])


@on_both_loops
async def test_without_time_to_settle_it_is_closed_at_once() -> None:
    server, address = await _listen()
    await stop_listening(server, settle_seconds_max=0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
