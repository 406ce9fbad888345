"""Connections whose server is there no more, as far as a call cannot show it."""

import asyncio
import gc
import socket
import weakref
from collections.abc import Iterator

import pytest
from credit_client.connection import ClientProtocol
from credit_client.keepalive import KEEPALIVE_TIMES, KeepaliveTimes
from grpclib.config import Configuration
from h2.config import H2Configuration

IMPATIENT = KeepaliveTimes(period_seconds=0.01, timeout_seconds=0.01)

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "localhost")]

# More than the kernel takes for a socket that nobody reads.
UNSENDABLE = bytes(16 * 1024 * 1024)


@pytest.fixture
def vanished_port() -> Iterator[int]:
    """Where the kernel accepts connections, and nobody ever reads."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


async def _open(port: int, keepalive: KeepaliveTimes) -> ClientProtocol:
    _, protocol = await asyncio.get_running_loop().create_connection(
        lambda: ClientProtocol(Configuration().__for_client__(), H2Configuration(), keepalive),
        "127.0.0.1",
        port,
    )
    return protocol


async def test_a_socket_whose_buffer_nobody_reads_is_closed_even_without_an_open_call(
    vanished_port: int,
) -> None:
    protocol = await _open(vanished_port, IMPATIENT)
    protocol.transport.write(UNSENDABLE)
    assert not protocol.connection.write_ready.is_set()
    await protocol.lost
    assert protocol.handler.connection_lost


async def test_a_call_that_has_ended_since_the_last_ping_counts_as_waiting(
    vanished_port: int,
) -> None:
    protocol = await _open(vanished_port, KEEPALIVE_TIMES)
    assert not protocol.was_awaited()
    stream = protocol.connection.create_stream()
    release = await stream.send_request(REQUEST, _processor=protocol.processor)
    release()
    assert protocol.was_awaited()
    assert not protocol.was_awaited()
    protocol.transport.abort()
    await protocol.lost


async def test_a_closed_connection_leaves_no_timer(vanished_port: int) -> None:
    protocol = await _open(vanished_port, KEEPALIVE_TIMES)
    protocol.processor.close()
    await protocol.lost
    # A timer would hold the connection for as long as it runs.
    remains = weakref.ref(protocol)
    del protocol
    await asyncio.sleep(0)
    gc.collect()
    assert remains() is None
