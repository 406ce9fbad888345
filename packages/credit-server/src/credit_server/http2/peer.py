"""The other end of a connection, as far as the operating system knows it."""

import asyncio
import socket
import struct

from grpclib.protocol import Peer

# `struct ucred` of Linux: pid, uid, gid.
_CREDENTIALS = struct.Struct("3i")
_SO_PEERCRED = getattr(socket, "SO_PEERCRED", None)


class ServerPeer(Peer):
    """The client of one connection.

    Attributes:
        address: What counts as one peer for limits: an IP address; `unix:uid=1000` for the user
            at the other end of a Unix domain socket, or `unix` where the system does not know;
            empty where nothing is known.
        name: The same with the port or process number, for the log.
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
        """Return IP address and port; None where there are none, as on a Unix domain socket."""
        return self._socket_address


def _local(sock: socket.socket) -> tuple[str, str]:
    if _SO_PEERCRED is None:
        return "unix", "unix"
    found = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(found)
    return f"unix:uid={user}", f"unix:uid={user},pid={process}"
