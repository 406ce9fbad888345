"""An address is tried without anybody being able to connect to it."""

import socket

import pytest
from credit_server.http2.address import try_address


async def test_a_free_port_stays_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    await try_address("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_port_that_is_listened_on_cannot_be_had() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="address already in use"),
    ):
        await try_address("127.0.0.1", taken.getsockname()[1])
