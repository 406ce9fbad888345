"""The channel between the supervisor and one worker: short messages, and connections with them."""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable

# A message is a word and up to two numbers.
_MESSAGE_BYTES_MAX = 64

# Receives a message and the socket that came with it; None: the message came without one.
OnMessage = Callable[[str, socket.socket | None], None]


class Channel:
    """One end of the channel.

    The socket preserves the boundaries of messages (SOCK_SEQPACKET). Its other end closes when the
    process that holds it ends, for any reason.

    Attributes:
        closed: Is set when the other end is closed, and all its messages were received.
    """

    def __init__(self, own: socket.socket, on_message: OnMessage) -> None:
        """Receive messages on the running loop from now on."""
        own.setblocking(False)
        self.closed = asyncio.Event()
        self._socket = own
        self._on_message = on_message
        self._unsent: deque[str] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(own.fileno(), self._receive)

    def send(self, message: str, passed: socket.socket | None = None) -> bool:
        """Send a message, with a socket or without one, after all that were sent before.

        While the other end reads nothing, about 280 messages fit in the kernel's queue. A message
        without a socket that does not fit is sent later: a worker that is busy with many new
        connections must not miss that it drains.

        Returns:
            Whether it was or will be sent. Otherwise the other end is closed, or the queue has no
            room for the socket.
        """
        if not self._unsent:
            files = [] if passed is None else [passed.fileno()]
            try:
                socket.send_fds(self._socket, [message.encode()], files)
            except BlockingIOError:
                pass
            except OSError:
                return False
            else:
                return True
        if passed is not None:
            return False
        self._unsent.append(message)
        self._loop.add_writer(self._socket.fileno(), self._send_later)
        return True

    def close(self) -> None:
        """Close this end. It may be called again."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._unsent.clear()
            self._socket.close()

    def _send_later(self) -> None:
        try:
            while self._unsent:
                self._socket.send(self._unsent[0].encode())
                self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:  # the other end is closed
            self._unsent.clear()
        self._loop.remove_writer(self._socket.fileno())

    def _receive(self) -> None:
        while self._socket.fileno() >= 0:
            try:
                data, files, _, _ = socket.recv_fds(self._socket, _MESSAGE_BYTES_MAX, 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # the other end was killed before it read what was sent
                data, files = b"", []
            if not data:
                with contextlib.suppress(OSError):
                    self._loop.remove_reader(self._socket.fileno())
                self._unsent.clear()
                self.closed.set()
                return
            passed = socket.socket(fileno=files[0]) if files else None
            self._on_message(data.decode(), passed)


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
