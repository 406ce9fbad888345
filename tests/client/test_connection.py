"""Connections whose server is there no more, as far as a call cannot show it."""

import asyncio
import gc
import socket
import weakref
from collections.abc import Iterator

import pytest
from credit_client.connection import ClientProtocol
from credit_client.keepalive import KEEPALIVE_TIMES
from grpclib.config import Configuration
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "localhost")]

# More than the kernel buffers for a socket that is not read.
UNSENDABLE = bytes(16 * 1024 * 1024)


@pytest.fixture
def vanished_port() -> Iterator[int]:
    """A port where the kernel accepts connections, and no process reads."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


async def _open(port: int) -> ClientProtocol:
    _, protocol = await asyncio.get_running_loop().create_connection(
        lambda: ClientProtocol(
            Configuration().__for_client__(), H2Configuration(), KEEPALIVE_TIMES
        ),
        "127.0.0.1",
        port,
    )
    return protocol


async def test_a_call_that_waits_for_the_socket_s_buffer_counts_as_waiting(
    vanished_port: int,
) -> None:
    protocol = await _open(vanished_port)
    protocol.transport.write(UNSENDABLE)
    assert not protocol.connection.write_ready.is_set()
    assert protocol.was_awaited()
    protocol.transport.abort()
    await protocol.lost


async def test_giving_up_closes_a_socket_whose_buffer_is_not_read(vanished_port: int) -> None:
    protocol = await _open(vanished_port)
    protocol.transport.write(UNSENDABLE)
    protocol.give_up()
    assert protocol.transport.get_write_buffer_size() == 0
    await protocol.lost
    assert protocol.handler.connection_lost


async def test_a_call_that_has_ended_since_the_last_ping_counts_as_waiting(
    vanished_port: int,
) -> None:
    protocol = await _open(vanished_port)
    assert not protocol.was_awaited()
    stream = protocol.connection.create_stream()
    release = await stream.send_request(REQUEST, _processor=protocol.processor)
    release()
    assert protocol.was_awaited()
    assert not protocol.was_awaited()
    protocol.transport.abort()
    await protocol.lost


async def test_a_closed_connection_leaves_no_timer(vanished_port: int) -> None:
    protocol = await _open(vanished_port)
    protocol.processor.close()
    await protocol.lost
    # A timer would hold the connection for as long as it runs.
    remains = weakref.ref(protocol)
    del protocol
    await asyncio.sleep(0)
    gc.collect()
    assert remains() is None


async def test_a_call_that_waits_for_a_free_stream_begins_when_the_server_allows_more() -> None:
    """A server that was overloaded allows more streams again without ending one."""
    server = H2Connection(H2Configuration(client_side=False))
    server.local_settings = Settings(
        client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 1}
    )
    server.initiate_connection()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        protocol = await _open(listening.getsockname()[1])
        protocol.data_received(server.data_to_send())
        await protocol.connection.create_stream().send_request(
            REQUEST, _processor=protocol.processor
        )
        second = protocol.connection.create_stream()
        waiting = asyncio.create_task(second.send_request(REQUEST, _processor=protocol.processor))
        while not protocol.connection.stream_close_waiter._waiters:  # noqa: ASYNC110 - it will wait
            await asyncio.sleep(0)
        server.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
        protocol.data_received(server.data_to_send())
        await waiting
        assert second.id == 3
        protocol.transport.abort()
        await protocol.lost


@pytest.mark.parametrize("cut", range(6))
async def test_a_server_whose_first_bytes_come_in_two_parts_is_understood(cut: int) -> None:
    server = H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    hello = server.data_to_send()
    near, far = socket.socketpair()
    _, protocol = await asyncio.get_running_loop().create_connection(
        lambda: ClientProtocol(
            Configuration().__for_client__(), H2Configuration(), KEEPALIVE_TIMES
        ),
        sock=near,
    )
    with far:
        protocol.data_received(hello[:cut])
        protocol.data_received(hello[cut:])
        assert not protocol.connection.is_closing()
        protocol.transport.abort()
        await protocol.lost
