"""Sends a PING to a server that calls wait for, and closes the connection without an answer.

A server's machine that vanished leaves a connection that looks alive for a quarter of an hour (the
kernel's retransmissions). A server that is merely slow answers a PING (RFC 9113 section 6.7) at
once, and keeps its connection and all calls on it.

grpclib has pings of its own. They are not used: without an answer it closes the socket only once
the socket's buffer is sent, which the vanished machine does not read, and until then it ends no
call; and it sends a PING only if a call is open at that moment, which calls that are short, or wait
for the socket's buffer, may never be.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepaliveTimes:
    """How often a server gets a PING, and how long it may take to answer.

    Attributes:
        period_seconds: The time from one PING to the next, above 0.
        timeout_seconds: The longest silence after a PING, above 0.
    """

    period_seconds: float = 10.0
    timeout_seconds: float = 5.0


KEEPALIVE_TIMES = KeepaliveTimes()


class Peer(Protocol):
    """The connection to a server, as `Keepalive` uses it."""

    def was_awaited(self) -> bool:
        """Return whether a call waits for the server, or has waited since the last call of this."""

    def ping(self) -> None:
        """Send the server a PING."""

    def give_up(self) -> None:
        """End the connection, with all calls on it."""


CallLater = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class Keepalive:
    """The two timers of one connection: until the next PING, and until its answer is overdue.

    Attributes:
        overdue: The timer that ends the connection if a PING gets no answer in time; None: no PING
            is unanswered.
    """

    def __init__(self, times: KeepaliveTimes, peer: Peer, *, call_later: CallLater) -> None:
        """Start the first period.

        Args:
            times: The lengths of both timers.
            peer: The connection.
            call_later: As `asyncio.loop.call_later`.
        """
        self._times = times
        self._peer = peer
        self._call_later = call_later
        self._next = call_later(times.period_seconds, self._ping)
        self.overdue: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        """Accept any bytes as an answer: the PING's own may be queued behind a long list."""
        if self.overdue is not None:
            self.overdue.cancel()
            self.overdue = None

    def stop(self) -> None:
        """Stop both timers. May be called again."""
        self._next.cancel()
        self.heard()

    def _ping(self) -> None:
        self._next = self._call_later(self._times.period_seconds, self._ping)
        if self._peer.was_awaited() and self.overdue is None:
            self.overdue = self._call_later(self._times.timeout_seconds, self._peer.give_up)
            self._peer.ping()
