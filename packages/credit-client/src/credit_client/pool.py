"""The connections of one client: chooses one for each attempt, and opens those that are missing."""

import asyncio
import errno
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from grpclib.client import Channel
from grpclib.const import Status

from credit_client.connection import ClientChannel
from credit_client.retry import Backoff
from credit_client.transport import AttemptFailed, HandshakeFailed, NotConnected

BACKOFF = Backoff(initial_seconds=0.05, max_seconds=2.0)


class Pool:
    """Spreads attempts over channels: each takes the one with the fewest attempts under way.

    While no connection fails, each channel opens its own as soon as an attempt is to use it. After
    a failure there is one attempt to connect at a time, of one channel, with a wait before it that
    grows. All calls wait for that one, so that a server that is down, or comes back, sees one
    connection per client, however many calls wait. Channels that are connected serve meanwhile.

    The failures in a row end with the first answer on a new connection, not with the connection
    itself: a server that accepts connections and then breaks them is down too.

    Channels that are not `ClientChannel`s, such as those of `grpclib.testing`, belong to the
    caller: they count as connected, and are not closed here.
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
        self._under_way = dict.fromkeys(channels, 0)
        self._opening: dict[ClientChannel, asyncio.Task[None]] = {}
        self._turns = itertools.count()
        self._failures = 0
        self._next_attempt = 0.0  # by the event loop's clock
        for channel in self._owned:
            channel.watch(self)

    async def take(self) -> Channel:
        """Wait for a connected channel, and count an attempt on it until `give_back`.

        Raises:
            NotConnected: The attempt to connect that it waited for has failed.
            HandshakeFailed: There is a server, and no safe connection to it.
        """
        while True:
            channel = self._least_loaded(self._usable())
            if isinstance(channel, ClientChannel) and not channel.connected:
                await self._opened(channel)
                if not channel.connected:
                    continue  # it is lost already
            if self._failures:
                self._open_another()
            self._under_way[channel] += 1
            return channel

    def give_back(self, channel: Channel) -> None:
        """Count the end of an attempt."""
        self._under_way[channel] -= 1

    def answered(self) -> None:
        """See `Watcher.answered`."""
        self._failures = 0

    def lost(self) -> None:
        """See `Watcher.lost`."""
        self._failures += 1
        wait_seconds = self._backoff.reconnect_seconds(failures=self._failures, draw=self._draw)
        self._next_attempt = asyncio.get_running_loop().time() + wait_seconds

    def failure(self, channel: ClientChannel, error: OSError) -> AttemptFailed:
        """Return what an attempt ends with whose channel could not be connected."""
        unsafe = channel.tls_problem
        if unsafe is not None:
            return HandshakeFailed(
                Status.UNAVAILABLE, f"no safe connection to {self._name}: {unsafe}"
            )
        return NotConnected(Status.UNAVAILABLE, f"cannot connect to {self._name}: {_why(error)}")

    async def close(self) -> None:
        """Close the connections, and end the attempts to open more."""
        opening = list(self._opening.values())
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        await asyncio.gather(*(channel.aclose() for channel in self._owned))

    @property
    def _owned(self) -> list[ClientChannel]:
        return [channel for channel in self._under_way if isinstance(channel, ClientChannel)]

    def _usable(self) -> Iterable[Channel]:
        if not self._failures:
            return self._under_way
        connected = [channel for channel in self._owned if channel.connected]
        return connected or self._opening or self._under_way

    def _least_loaded(self, usable: Iterable[Channel]) -> Channel:
        channels = list(usable)
        first = next(self._turns) % len(channels)
        in_turn = channels[first:] + channels[:first]
        return min(in_turn, key=self._under_way.__getitem__)

    def _open_another(self) -> None:
        """Try in the background what has failed before, while the other channels serve."""
        missing = [channel for channel in self._owned if not channel.connected]
        if missing and not self._opening:
            self._open(missing[0])

    async def _opened(self, channel: ClientChannel) -> None:
        opening = self._opening.get(channel) or self._open(channel)
        # A call that runs out of time, or is cancelled, leaves the attempt to the others.
        await asyncio.wait([opening])
        if opening.cancelled():
            raise NotConnected(Status.UNAVAILABLE, "the connection was closed while it was opened")
        error = opening.exception()
        if isinstance(error, OSError):
            raise self.failure(channel, error) from error
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


def _why(error: OSError) -> str:
    # Of several addresses the errors are joined in one text, mostly without a number of its own.
    if f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return "the connection was refused; is it running?"
    return error.strerror or str(error) or "the server closed it during the TLS handshake"
