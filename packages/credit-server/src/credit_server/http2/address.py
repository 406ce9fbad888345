"""The address to listen on: whether it can be had, before anything is started for its sake."""

import asyncio
import errno
import os

from credit_server.http2.unix_socket import socket_path, try_socket


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
    try:
        server = await asyncio.get_running_loop().create_server(
            asyncio.Protocol, host, port, start_serving=False
        )
    except OSError as error:
        if error.errno is None and "could not bind on any address" in str(error):
            # How asyncio names EADDRNOTAVAIL from Python 3.13 on.
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)) from error
        raise
    server.close()
    await server.wait_closed()
