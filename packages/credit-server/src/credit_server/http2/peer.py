"""The client at the other end of a connection, and the network that limits count it by."""

import asyncio
import socket
import struct
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from grpclib.protocol import Peer

# `struct ucred` of Linux: pid, uid, gid.
_CREDENTIALS = struct.Struct("3i")
_SO_PEERCRED = getattr(socket, "SO_PEERCRED", None)
# A client with one IPv6 address has a whole network of this many host bits (RFC 6177), and counts
# as one peer.
_IPV6_HOST_BITS = 64


class ServerPeer(Peer):
    """The client of one connection.

    Attributes:
        address: What limits count as one peer: an IP address; `unix:uid=1000` for the user at the
            other end of a Unix domain socket, or `unix` where the system does not report the user;
            empty if nothing is known.
        name: The address with the port or the process number, for the log.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._socket_address: tuple[str, int] | None = None
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            self.address, self.name = _local(sock)
            return
        address = transport.get_extra_info("peername")
        if not address:
            self.address = self.name = ""
            return
        host, port = str(address[0]), int(address[1])
        self._socket_address = host, port
        self.address, self.name = host, f"{host}:{port}"

    def addr(self) -> tuple[str, int] | None:
        """Return IP address and port; None if there are none, as on a Unix domain socket."""
        return self._socket_address


def _local(sock: socket.socket) -> tuple[str, str]:
    if _SO_PEERCRED is None:
        return "unix", "unix"
    found = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(found)
    return f"unix:uid={user}", f"unix:uid={user},pid={process}"


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return an IPv4 address unchanged, and the /64 network of an IPv6 address.

    Args:
        address: The address as the socket reports it. Any other text is returned unchanged.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, _IPV6_HOST_BITS), strict=False))
