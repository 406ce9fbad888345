"""The address to listen on: whether it can be had, before anything is started for its sake."""

import asyncio

from credit_server.unix_socket import socket_path, try_socket


async def try_address(host: str, port: int) -> None:
    """Bind to an address, as the server will, and give it up without having listened.

    Args:
        host: An address, a host name, or `unix:path`, where nothing is bound but looked at.
        port: The port.

    Raises:
        OSError: The address cannot be listened on.
    """
    path = socket_path(host)
    if path is not None:
        try_socket(path)
        return
    server = await asyncio.get_running_loop().create_server(
        asyncio.Protocol, host, port, start_serving=False
    )
    server.close()
    await server.wait_closed()
