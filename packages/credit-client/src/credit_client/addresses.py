"""The addresses of a host name, and a TCP connection to the first of them that answers."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import zip_longest
from typing import TypeAlias

from aiohappyeyeballs import AddrInfoType, addr_to_addr_infos, start_connection

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[AddrInfoType]]]

# RFC 8305 section 8: the time that an address has before the next one is tried beside it.
_ATTEMPT_DELAY_SECONDS = 0.25


async def resolve(host: str, port: int) -> Sequence[AddrInfoType]:
    """Return the addresses of a host, in the order in which the system prefers them.

    Raises:
        OSError: The name has no address, or the resolver does not answer.
    """
    try:
        # Without a zone such as %eth0, which the system's resolver turns into a number.
        ipaddress.ip_address(host if "%" not in host else "")
    except ValueError:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return addr_to_addr_infos((host, port)) or []


def in_turn(found: Sequence[AddrInfoType], *, turn: int, failures: int) -> list[AddrInfoType]:
    """Put addresses in the order in which a connection tries them.

    The preferred family stays first, and the families alternate (RFC 8305 section 4).

    Args:
        found: The addresses, in the system's order.
        turn: Which connection this is: connections with different turns begin with different
            addresses, and so spread over all servers of a name.
        failures: How often the connection has failed in a row: each time another address is first,
            also after an address that accepts connections and then stays silent.
    """
    families: dict[int, list[AddrInfoType]] = {}
    for address in dict.fromkeys(found):
        families.setdefault(address[0], []).append(address)
    mixed = [
        address
        for row in zip_longest(*(_rotated(family, turn) for family in families.values()))
        for address in row
        if address is not None
    ]
    return _rotated(mixed, failures)


async def open_socket(addresses: Sequence[AddrInfoType]) -> socket.socket:
    """Connect to the first address that answers; Happy Eyeballs, RFC 8305.

    asyncio's own `happy_eyeballs_delay` is not used: uvloop has none.

    Raises:
        OSError: None of them answers.
    """
    if not addresses:
        raise OSError("the name has no address")
    try:
        return await start_connection(
            addresses, happy_eyeballs_delay=_ATTEMPT_DELAY_SECONDS, interleave=0
        )
    except RuntimeError as error:
        # uvloop raises it in place of an OSError; see aiohappyeyeballs.
        raise OSError(str(error)) from error


def _rotated(addresses: list[AddrInfoType], by: int) -> list[AddrInfoType]:
    by %= max(1, len(addresses))
    return addresses[by:] + addresses[:by]
