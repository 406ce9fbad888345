"""The address to listen on: whether it can be had, before anything is started for its sake."""

import asyncio


async def try_address(host: str, port: int) -> None:
    """Bind to an address, as the server will, and give it up without having listened.

    Raises:
        OSError: The address cannot be listened on.
    """
    server = await asyncio.get_running_loop().create_server(
        asyncio.Protocol, host, port, start_serving=False
    )
    server.close()
    await server.wait_closed()
