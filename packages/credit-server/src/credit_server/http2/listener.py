"""Closes a listening socket without resetting a client that has just connected.

The kernel completes handshakes by itself. A connection that it has completed and the server has not
accepted is reset when the listening socket closes, and its client has perhaps sent a call already.
So the kernel first drops new SYNs, while handshakes under way are completed and accepted. A client
whose SYN is dropped sends it again after a second, and is then refused: it has sent no call.
"""

import asyncio
import contextlib
import os
import socket
import struct
import sys
from array import array
from collections.abc import Iterable

_SETTLE_SECONDS_MAX = 0.2
"""How long handshakes under way have to complete: a round trip, also between continents."""

_SO_ATTACH_FILTER = 26
"""Of Linux (asm-generic/socket.h); Python's socket module does not have it."""
_TCP_FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6})
_FLAGS_AT, _SYN, _SYN_OR_ACK = 13, 0x02, 0x12
"""A TCP header's byte of flags (RFC 9293, section 3.1)."""
_INSTRUCTION = struct.Struct("@HBBI")
_DROP_SYNS = b"".join(
    _INSTRUCTION.pack(*instruction)
    for instruction in (
        (0x30, 0, 0, _FLAGS_AT),  # load the byte of flags; a packet begins with the TCP header
        (0x54, 0, 0, _SYN_OR_ACK),  # and
        (0x15, 0, 1, _SYN),  # equal? the next instruction; else the one behind it
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFF_FFFF),  # keep
    )
)
"""A classic BPF program (https://www.kernel.org/doc/html/latest/networking/filter.html)."""


async def stop_listening(server: asyncio.Server, *, settle_seconds_max: float) -> None:
    """Close the listening sockets of a server; its connections stay open.

    Args:
        server: What listens.
        settle_seconds_max: The longest time that handshakes under way have to complete; 0: none.
    """
    seconds = min(settle_seconds_max, _SETTLE_SECONDS_MAX)
    # Where the kernel cannot drop SYNs, to wait would only add connections.
    if seconds and _drop_new_handshakes(server.sockets):
        await asyncio.sleep(seconds)
    server.close()


def _drop_new_handshakes(sockets: Iterable[socket.socket]) -> bool:
    """Have the kernel drop new SYNs; return whether it does on all sockets."""
    return all(_attach_filter(each.fileno()) for each in sockets)


def _attach_filter(descriptor: int) -> bool:
    instructions = array("B", _DROP_SYNS)
    address, size = instructions.buffer_info()
    program = struct.pack("@HP", size // _INSTRUCTION.size, address)
    # A descriptor of its own for the same listening socket: uvloop's sockets take no options.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as listening:
        if sys.platform == "linux" and listening.family in _TCP_FAMILIES:
            listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            return True
    return False
