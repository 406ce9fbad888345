"""grpclib's connection and stream as a call writes to them, which know what their client takes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from grpclib.config import Configuration
from grpclib.protocol import Connection, Stream

from credit_server.admission.list_slots import CallerSlots
from credit_server.http2.frames import ServerFrames
from credit_server.http2.peer import ServerPeer


class ServerConnection(Connection):
    """grpclib's connection, which can fall silent.

    Attributes:
        silent: Whether the last word has been said; h2 still makes frames, for nobody.
        moved: When the client last took of an answer, or a list ended by itself.
        clock: The time in seconds.
        list_slots: Bounds how many lists of each caller run at once.
    """

    def __init__(
        self,
        frames: ServerFrames,
        transport: asyncio.Transport,
        *,
        config: Configuration,
        lists_max: int,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(frames, transport, config=config)
        self._peer = ServerPeer(transport)
        self.silent = False
        self.list_slots = CallerSlots(lists_max)
        self.moved = clock()
        self.clock = clock

    def get_peer(self) -> ServerPeer:
        """Return who is at the other end."""
        return self._peer

    def flush(self) -> None:
        """Send what h2 has ready."""
        if not self.silent and not self.is_closing():
            super().flush()

    # grpclib's signature has the wrapper of its own handler, which ours does without.
    def create_stream(self, *, stream_id: int | None = None, wrapper: object = None) -> Stream:
        """Make a stream that knows since when it sends."""
        return ServerStream(self, self._connection, self._transport, stream_id=stream_id)


class ServerStream(Stream):
    """grpclib's stream.

    Attributes:
        sending_since: Since when the client has taken nothing of what it is sent; None: nothing
            is sent now.
        waiting_since: Since when it waits for a list slot; None: it has one or needs none.
        too_long: Why the headers of its request are too long; empty: they are not.
    """

    connection: ServerConnection
    too_long = ""
    sending_since: float | None = None
    waiting_since: float | None = None

    async def send_data(self, data: bytes, end_stream: bool = False) -> None:
        """Send data, as far and as soon as the client takes it."""
        clock = self.connection.clock
        self.sending_since = clock()
        try:
            await super().send_data(data, end_stream)
            self.connection.moved = clock()
        finally:
            self.sending_since = None

    @asynccontextmanager
    async def list_slot(self, caller: str) -> AsyncIterator[None]:
        """Wait for one of a caller's slots for lists, and hold it while the context lasts.

        A client that takes nothing of its lists holds up its own alone, and no more of them hold
        what it does not take.

        Args:
            caller: Whose list it is.
        """
        connection = self.connection
        slots = connection.list_slots.of(caller)
        self.waiting_since = connection.clock()
        try:
            await slots.acquire()
        finally:
            self.waiting_since = None
        try:
            yield
        except asyncio.CancelledError:
            raise  # given up, perhaps because nothing of it was taken
        except Exception:
            connection.moved = connection.clock()
            raise
        else:
            connection.moved = connection.clock()
        finally:
            slots.release()

    def stalled_since(self) -> float | None:
        """Tell since when the client has kept the stream from getting on; None: it does not.

        A list that waits for a slot waits for what the client takes of other lists.
        """
        if self.waiting_since is not None:
            return max(self.waiting_since, self.connection.moved)
        return self.sending_since

    def moves(self) -> None:
        """Note that the client makes room for more."""
        self.connection.moved = now = self.connection.clock()
        if self.sending_since is not None:
            self.sending_since = now


def server_stream(stream: Stream) -> ServerStream:
    """Return a stream as what `ServerConnection` has made it."""
    return cast(ServerStream, stream)
