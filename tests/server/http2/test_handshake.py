"""A TLS handshake that fails leaves a count and a line, whatever was wrong with it."""

import asyncio
import contextlib
import ssl
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from credit_server.http2.connections import Closing

from tests.server.http2.test_connection import certified, closed
from tests.server.loops import OnLoop, on_both_loops
from tests.server.serving import Serving, serving, until

Logged = list[MutableMapping[str, Any]]  # Any: structlog's own type


def _context(directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=directory / "certificate.pem")
    context.set_alpn_protocols(["h2"])
    return context


async def _connect(served: Serving, context: ssl.SSLContext | None, said: bytes = b"") -> None:
    """Connects, says something, and waits until the server hangs up."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
        writer.write(said)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await reader.read()
        writer.close()


@on_both_loops
@pytest.mark.parametrize(
    "said",
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(100)],
    ids=["HTTP/2", "HTTP/1.1", "zeros"],
)
async def test_a_client_without_tls_is_counted_and_logged(
    on_loop: OnLoop, tmp_path: Path, logged: Logged, said: bytes
) -> None:
    async def scenario() -> None:
        async with serving(tls=certified(tmp_path)) as served:
            await _connect(served, None, said)
            assert closed(served) == {Closing.TLS: 1}

    await on_loop(scenario)
    (line,) = (line for line in logged if line["event"] == "connection closed")
    assert line["reason"] == "TLS handshake"
    assert line["detail"]
    assert line["log_level"] == "info"


@on_both_loops
async def test_a_client_of_an_older_tls_is_told_by_name(
    on_loop: OnLoop, tmp_path: Path, logged: Logged
) -> None:
    async def scenario() -> None:
        tls = certified(tmp_path)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        client = _context(tmp_path)
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        async with serving(tls=tls) as served:
            await _connect(served, client)
            await until(lambda: closed(served) == {Closing.TLS: 1})

    await on_loop(scenario)
    assert logged[0]["detail"] == "unsupported protocol"


@on_both_loops
async def test_a_client_without_a_common_protocol_is_counted_and_logged(
    on_loop: OnLoop, tmp_path: Path, logged: Logged
) -> None:
    async def scenario() -> None:
        async with serving(tls=certified(tmp_path)) as served:
            client = _context(tmp_path)
            client.set_alpn_protocols(["http/1.1"])
            await _connect(served, client)
            await until(lambda: closed(served) == {Closing.PROTOCOL: 1})

    await on_loop(scenario)
    assert logged[0]["peer"].startswith("127.0.0.1:")


@on_both_loops
async def test_a_handshake_that_succeeds_is_not_counted(on_loop: OnLoop, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tls=certified(tmp_path)) as served:
            client = _context(tmp_path)
            _, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=client)
            await until(lambda: len(served.server.connections.members) == 1)
            writer.close()
            await until(lambda: closed(served) == {Closing.CLIENT: 1})

    await on_loop(scenario)
