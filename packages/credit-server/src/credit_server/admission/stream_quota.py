"""Asks clients to hold back while the server is overloaded, in HTTP/2's own words.

A refused call costs half of a served one, for h2 is Python: clients that send ten times what can be
served would have the server do nothing but refuse. So their streams are rationed: whoever is over
its share has to keep its calls to itself, where they cost the server nothing.
With 32 connections and four times the load that can be served the goodput was 0 without this.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from credit_server.supervision import Timers

log = structlog.get_logger("credit_server.connections")

_ROUND_SECONDS = 0.25
_SHRINK, _GROW = 0.7, 1.1
"""A quick refusal makes room for the next call: only when hardly any are refused do clients hold
back. So the ration shrinks until then, and until those who are taken in do not wait too long, and
is tried out again slowly, as TCP does."""
_STREAMS_LEAST = 64
"""For all together: batches that share a transaction still come about."""
_CALM_ROUNDS = 10
"""How many calm rounds end the rationing: it must not come and go with each burst."""
_CALM_SHARE = 0.5
"""The share of the full ration below which a round is calm. That nobody is refused does not say so:
clients that are let go while they hold back what they have would all send it at once."""


class Connection(Protocol):
    """What the rationing has to know of a connection, and to tell it."""

    @property
    def short_streams(self) -> int:
        """How many calls it has open that add to the load."""

    def limit_streams(self, streams_max: int | None) -> None:
        """Let its client have so many streams open; None for as many as usual."""


class Backpressure:
    """Rations the streams of all connections while calls are refused for the load."""

    def __init__(
        self,
        connections: Collection[Connection],
        *,
        streams_max: int,
        overdue: Callable[[], bool] = lambda: False,
        timers: Timers | None = None,
    ) -> None:
        """Prepare; nothing is rationed yet.

        Args:
            connections: All that are open, kept current by their owner.
            streams_max: How many streams they may have open together while rationed, at least 1.
                Each may have one, however many there are.
            overdue: Says whether calls that are taken in have to wait too long. A slow store has
                its callers time out in a queue that is not long enough for refusals.
            timers: Starts the timer that ends a round; None: its bugs are only logged.
        """
        self._overdue = overdue
        self._timers = timers or Timers()
        self._connections = connections
        self._streams_max = streams_max
        self._ration = float(streams_max)
        self._timer: asyncio.TimerHandle | None = None
        self._refused = False
        self._calm_rounds = 0

    @property
    def rationing(self) -> bool:
        """Whether clients are held back."""
        return self._timer is not None

    def refused(self, *, informed: bool) -> None:
        """Note that a call was refused because of the load.

        Args:
            informed: Whether its client knew its latest ration. Calls that were sent before do not
                say that it is too large; a burst of them takes a second to refuse.
        """
        if self._timer is None:
            self._calm_rounds = 0
            self._ration = float(self._streams_max)
            log.warning("clients are held back", streams_max=self._streams_max)
            self._begin_round()
        self._refused = self._refused or informed

    def stop(self) -> None:
        """Ration nothing more; connections keep the shares that they have."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end_round(self) -> None:
        """Shrink the ration or let it grow, and share it out anew.

        The clock calls it; connections come and go, and fall idle.
        """
        self.stop()
        congested = self._refused or self._overdue()
        if congested:
            self._ration = max(self._ration * _SHRINK, min(_STREAMS_LEAST, self._streams_max))
        else:
            self._ration = min(self._ration * _GROW, self._streams_max)
        pressing = sum(connection.short_streams for connection in self._connections)
        calm = not congested and pressing < self._streams_max * _CALM_SHARE
        self._calm_rounds = self._calm_rounds + 1 if calm else 0
        if self._calm_rounds < _CALM_ROUNDS:
            self._begin_round()
        else:
            log.info("clients are held back no more")
            self._give(None)

    def _begin_round(self) -> None:
        self._refused = False
        # Before all else: a round that is not ended would hold clients back for ever.
        self._timer = self._timers.later(_ROUND_SECONDS, "the rationing of streams", self.end_round)
        busy = sum(connection.short_streams > 0 for connection in self._connections)
        self._give(max(1, int(self._ration) // max(1, busy)))

    def _give(self, streams_max: int | None) -> None:
        for connection in list(self._connections):
            try:
                connection.limit_streams(streams_max)
            except Exception as bug:  # the others must be told all the same
                log.error("a client could not be held back", exc_info=bug)
