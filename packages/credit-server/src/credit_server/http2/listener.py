"""The listening socket: bind its address, report failed TLS handshakes, close it gracefully.

The kernel completes TCP handshakes by itself. A connection that it has completed and the server has
not accepted is reset when the listening socket closes, and its client may have sent a call already.
So the kernel first drops new SYNs, while handshakes under way are completed and accepted. A client
whose SYN is dropped sends it again after a second, and is then refused: it has sent no call.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from credit_server.http2.unix_socket import socket_path, try_socket

# The connections that the kernel holds until they are accepted; at most its own limit.
BACKLOG = 1024

# How long handshakes under way have to complete: a round trip, even between continents.
SETTLE_SECONDS_MAX = 0.2

# Linux's number (asm-generic/socket.h); Python's socket module does not have it.
_SO_ATTACH_FILTER = 26
_TCP_FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6})
# The byte of flags in a TCP header (RFC 9293, section 3.1).
_FLAGS_AT, _SYN, _SYN_OR_ACK = 13, 0x02, 0x12
_INSTRUCTION = struct.Struct("@HBBI")
# A classic BPF program (https://www.kernel.org/doc/html/latest/networking/filter.html).
_DROP_SYNS = b"".join(
    _INSTRUCTION.pack(*instruction)
    for instruction in (
        (0x30, 0, 0, _FLAGS_AT),  # load the byte of flags; a packet begins with the TCP header
        (0x54, 0, 0, _SYN_OR_ACK),  # and
        (0x15, 0, 1, _SYN),  # equal? the next instruction; else the one after it
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFF_FFFF),  # keep
    )
)


class Listening(Protocol):
    """What `stop_listening` needs of a server."""

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The listening sockets."""

    def close(self) -> None:
        """Close them."""


class NotListening:
    """Stands in for a listening server where another process accepts the connections."""

    sockets: Sequence[socket.socket] = ()

    def close(self) -> None:
        """Close nothing."""

    async def wait_closed(self) -> None:
        """Return at once: there is nothing to close."""


async def try_address(host: str, port: int) -> None:
    """Bind to an address as the server will, and release it without listening.

    Args:
        host: An address, a host name, or `unix:path`, which is only inspected and not bound.
        port: The port.

    Raises:
        OSError: The server cannot listen on the address.
    """
    path = socket_path(host)
    if path is not None:
        try_socket(path)
        return
    for each in await bind(host, port):
        each.close()


async def bind(host: str, port: int) -> list[socket.socket]:
    """Return a bound socket, which does not listen yet, for each address of a host.

    Args:
        host: An address or a host name.
        port: The port; 0 for one that is free.

    Raises:
        OSError: An address cannot be bound.
    """
    try:
        server = await asyncio.get_running_loop().create_server(
            asyncio.Protocol, host, port, start_serving=False
        )
    except OSError as error:
        if error.errno is None and "could not bind on any address" in str(error):
            # How asyncio reports EADDRNOTAVAIL from Python 3.13 on.
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)) from error
        raise
    # These are second descriptors for the same sockets: uvloop's own socket objects can neither
    # listen nor be passed on.
    sockets = [socket.socket(fileno=os.dup(each.fileno())) for each in server.sockets]
    server.close()
    await server.wait_closed()
    return sockets


def on_failed_handshake(context: ssl.SSLContext, report: Callable[[str], None]) -> None:
    """Report each TLS handshake of a context that fails from now on.

    Event loops close such a connection without a log line. The client's address is not known: a
    loop passes it to a protocol after the handshake. A client that disconnects, or sends nothing
    until its time is over, does not fail its handshake and is not reported.

    Args:
        context: A server's context. From now on it makes TLS objects of another class.
        report: Receives OpenSSL's reason, such as `unsupported protocol`. It must not raise.
    """

    class Handshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise  # the handshake is not complete yet
            except ssl.SSLError as error:
                report((error.reason or "unknown").replace("_", " ").lower())
                raise

    context.sslobject_class = Handshake


async def stop_listening(server: Listening, *, settle_seconds_max: float) -> None:
    """Close the listening sockets of a server; its connections stay open.

    Args:
        server: The server that listens.
        settle_seconds_max: The longest time that handshakes under way have to complete; 0: none.
    """
    seconds = min(settle_seconds_max, SETTLE_SECONDS_MAX)
    # Where the kernel cannot drop SYNs, waiting would only add connections.
    if seconds and _drop_new_handshakes(server.sockets):
        await asyncio.sleep(seconds)
    server.close()


def _drop_new_handshakes(sockets: Iterable[socket.socket]) -> bool:
    """Make the kernel drop new SYNs; return whether it does so on all sockets."""
    return all(_attach_filter(each.fileno()) for each in sockets)


def _attach_filter(descriptor: int) -> bool:
    instructions = array("B", _DROP_SYNS)
    address, size = instructions.buffer_info()
    program = struct.pack("@HP", size // _INSTRUCTION.size, address)
    # A second descriptor for the same listening socket: uvloop's sockets take no options.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as listening:
        if sys.platform == "linux" and listening.family in _TCP_FAMILIES:
            listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            return True
    return False
