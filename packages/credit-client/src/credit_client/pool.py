"""The connections of one client: the pool chooses the channel of each attempt."""

import asyncio
import errno
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from weakref import WeakSet

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import Connection
from h2.exceptions import ProtocolError, StreamClosedError

from credit_client.channel import ClientChannel
from credit_client.retry import Backoff
from credit_client.transport import AttemptFailed, ConnectionLost, HandshakeFailed, NotConnected

BACKOFF = Backoff(initial_seconds=0.05, max_seconds=2.0)


class Pool:
    """Spreads attempts over channels: each uses the channel with the fewest attempts under way.

    While no connection fails, each channel connects when an attempt first uses it. After a failure,
    one channel at a time tries to connect, after a wait that grows. All calls wait for that
    attempt. So a server that is down, or starts again, gets one connection per client, however many
    calls wait. Channels that are connected serve meanwhile.

    The count of failures in a row is reset by the first answer on a new connection, not by the
    connection itself: a server that accepts connections and then breaks them is down too.

    Channels that are not `ClientChannel`s, such as those of `grpclib.testing`, belong to the
    caller: they count as connected, and are not closed here.

    Attributes:
        under_way: The number of attempts on each channel that have begun and not ended.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        name: str,
        backoff: Backoff = BACKOFF,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Connect nothing yet.

        Args:
            channels: At least one.
            name: The server, for messages.
            backoff: The waits between attempts to connect.
            draw: Draws from 0 to 1.
        """
        self._name = name
        self._backoff = backoff
        self._draw = draw
        self.under_way = dict.fromkeys(channels, 0)
        self._opening: dict[ClientChannel, asyncio.Task[None]] = {}
        self._turns = itertools.count()
        self._failures = 0
        self._next_attempt = 0.0  # by the event loop's clock
        self._lost: WeakSet[Connection] = WeakSet()
        for channel in self._owned:
            channel.watch(self)

    async def take(self) -> Channel:
        """Wait for a connected channel, and count an attempt on it until `give_back`.

        Raises:
            NotConnected: The attempt to connect that it waited for has failed.
            HandshakeFailed: There is a server, and no safe connection to it.
        """
        while True:
            channels = list(self._usable() if self._failures else self.under_way)
            first = next(self._turns) % len(channels)
            ordered = channels[first:] + channels[:first]
            channel = min(ordered, key=self.under_way.__getitem__)
            if isinstance(channel, ClientChannel) and not channel.connected:
                await self._opened(channel)
                if not channel.connected:
                    continue  # it is lost already
            if self._failures:
                self._open_another()
            self.under_way[channel] += 1
            return channel

    def give_back(self, channel: Channel) -> None:
        """Count the end of an attempt."""
        self.under_way[channel] -= 1

    def answered(self) -> None:
        """See `Watcher.answered`."""
        self._failures = 0

    def lost(self) -> None:
        """See `Watcher.lost`."""
        self._failures += 1
        wait_seconds = self._backoff.reconnect_seconds(failures=self._failures, draw=self._draw)
        self._next_attempt = asyncio.get_running_loop().time() + wait_seconds

    def lost_connection(
        self,
        channel: Channel,
        connection: Connection | None,
        error: StreamTerminatedError | ProtocolError,
    ) -> AttemptFailed:
        """Return the failure of an attempt whose connection or stream has ended.

        Args:
            channel: The attempt's channel.
            connection: The connection that the attempt was sent on; None if it was not sent.
            error: What grpclib or h2 has raised.
        """
        if isinstance(error, ProtocolError) and not isinstance(error, StreamClosedError):
            # Nothing more can be sent on this connection: h2 is in a state of error, or has used
            # up the 2^30 calls that a connection takes.
            channel.close()
        client_channel = channel if isinstance(channel, ClientChannel) else None
        unsafe = None if client_channel is None else client_channel.tls_problem
        if unsafe is not None:
            return self._unsafe(unsafe)
        message = f"the connection to {self._name} was lost: {error}"
        if connection is None:
            return NotConnected(Status.UNAVAILABLE, message)
        if not connection.is_closing():
            failure = AttemptFailed(Status.UNAVAILABLE, message)
            if client_channel is not None and client_channel.is_leaving(connection):
                # The server is well: the next connection takes the call.
                failure.budget_tokens = 0.0
            return failure
        first = connection not in self._lost
        self._lost.add(connection)
        return ConnectionLost(Status.UNAVAILABLE, message, first=first)

    async def close(self) -> None:
        """Close the connections, and end the attempts to open more."""
        opening = list(self._opening.values())
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        await asyncio.gather(*(channel.aclose() for channel in self._owned))

    @property
    def _owned(self) -> list[ClientChannel]:
        return [channel for channel in self.under_way if isinstance(channel, ClientChannel)]

    def _usable(self) -> Iterable[Channel]:
        """Return the channels for a call after a failure: connected ones, or the one that opens."""
        connected = [channel for channel in self._owned if channel.connected]
        return connected or self._opening or self.under_way

    def _open_another(self) -> None:
        """Open a channel that has failed before in the background, while other channels serve."""
        missing = [channel for channel in self._owned if not channel.connected]
        if missing and not self._opening:
            self._open(missing[0])

    async def _opened(self, channel: ClientChannel) -> None:
        opening = self._opening.get(channel) or self._open(channel)
        # A call that runs out of time, or is cancelled, leaves the attempt to the other calls.
        await asyncio.wait([opening])
        if opening.cancelled():
            raise NotConnected(Status.UNAVAILABLE, "the connection was closed while it was opened")
        error = opening.exception()
        if isinstance(error, OSError):
            raise self._not_connected(channel, error) from error
        if error is not None:
            raise error

    def _open(self, channel: ClientChannel) -> asyncio.Task[None]:
        opening = asyncio.get_running_loop().create_task(self._connect(channel))
        self._opening[channel] = opening
        opening.add_done_callback(partial(self._settle, channel))
        return opening

    async def _connect(self, channel: ClientChannel) -> None:
        if self._failures:
            await asyncio.sleep(self._next_attempt - asyncio.get_running_loop().time())
        await channel.connect()

    def _settle(self, channel: ClientChannel, opening: asyncio.Task[None]) -> None:
        del self._opening[channel]
        if not opening.cancelled() and opening.exception() is not None:
            self.lost()

    def _not_connected(self, channel: ClientChannel, error: OSError) -> AttemptFailed:
        unsafe = channel.tls_problem
        if unsafe is not None:
            return self._unsafe(unsafe)
        return NotConnected(Status.UNAVAILABLE, f"cannot connect to {self._name}: {_why(error)}")

    def _unsafe(self, problem: str) -> HandshakeFailed:
        return HandshakeFailed(Status.UNAVAILABLE, f"no safe connection to {self._name}: {problem}")


def _why(error: OSError) -> str:
    # asyncio joins the errors of several addresses in one text, mostly without an `errno`.
    if f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return "the connection was refused (is the server running?)"
    return error.strerror or str(error) or "the server closed it during the TLS handshake"
