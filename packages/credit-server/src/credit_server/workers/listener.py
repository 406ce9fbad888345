"""The supervisor's listening sockets: accept connections, and pass each to a worker."""

import asyncio
import socket
from collections.abc import Callable, Sequence

from credit_server.http2.listener import BACKLOG, bind
from credit_server.http2.unix_socket import SocketFile, socket_path

# How many connections are accepted before the event loop does something else.
_ACCEPTED_AT_ONCE = 64
# The pause after no worker took a connection, or no file could be opened.
_PAUSE_SECONDS = 0.05

# Passes a connection to a worker; returns whether one took it.
PassOn = Callable[[socket.socket], bool]


class Listener:
    """Accepts connections while there is a worker for them; others wait in the kernel's queue.

    Attributes:
        sockets: The listening sockets.
    """

    def __init__(self, sockets: Sequence[socket.socket], file: SocketFile | None = None) -> None:
        self.sockets = sockets
        for each in sockets:
            each.setblocking(False)
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._pass_on: PassOn | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._held: list[socket.socket] = []  # accepted, and no worker has taken them yet

    @classmethod
    async def bind(cls, host: str, port: int) -> "Listener":
        """Listen on an address; `start` accepts the connections.

        Raises:
            OSError: The address cannot be bound.
        """
        path = socket_path(host)
        if path is not None:
            file = SocketFile(path, backlog=BACKLOG)
            return cls([file.socket], file)
        sockets = await bind(host, port)
        try:
            for each in sockets:
                each.listen(BACKLOG)
        except BaseException:
            for each in sockets:
                each.close()
            raise
        return cls(sockets)

    @property
    def port(self) -> int:
        """The port; 0 for a Unix domain socket."""
        name = self.sockets[0].getsockname()
        return name[1] if isinstance(name, tuple) else 0

    def start(self, pass_on: PassOn) -> None:
        """Accept connections from now on."""
        self._pass_on = pass_on
        self._resume()

    def _resume(self) -> None:
        self._timer = None
        if not self._pass_held():
            return
        for each in self.sockets:
            if self._pass_on is not None and each.fileno() >= 0:
                self._loop.add_reader(each.fileno(), self._accept, each)

    def close(self) -> None:
        """Stop listening at once. It may be called again."""
        self._pause()
        self._pass_on = None
        if self._timer is not None:
            self._timer.cancel()
        for each in [*self.sockets, *self._held]:
            each.close()
        if self._file is not None:
            self._file.remove()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # too many open files, most likely
                self._pause_for_a_moment()
                return
            self._held.append(connection)
            if not self._pass_held():
                return

    def _pass_held(self) -> bool:
        """Pass the accepted connections to workers; pause if none takes them now."""
        while self._held:
            if self._pass_on is None or not self._pass_on(self._held[0]):
                self._pause_for_a_moment()
                return False
            self._held.pop(0).close()
        return True

    def _pause_for_a_moment(self) -> None:
        self._pause()
        self._timer = self._loop.call_later(_PAUSE_SECONDS, self._resume)

    def _pause(self) -> None:
        for each in self.sockets:
            if each.fileno() >= 0:
                self._loop.remove_reader(each.fileno())
