"""Limits the streams of clients while calls are shed, with HTTP/2's own setting.

A shed call costs half of a served one, for h2 is Python: clients that send ten times what can be
served would have the server do nothing but shed. So each client gets a quota of streams: calls
beyond it stay with the client, where they cost the server nothing.
With 32 connections and four times the load that can be served the goodput was 0 without this.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from credit_server.supervision import Timers

log = structlog.get_logger("credit_server.connections")

_ROUND_SECONDS = 0.25
# A quick rejection makes room for the next call: clients hold calls back only when hardly any are
# shed. So the quota shrinks until then, and until admitted calls do not wait too long, and it grows
# again slowly, as TCP's window does.
_SHRINK, _GROW = 0.7, 1.1
# For all connections together: there are still batches that share a transaction.
_STREAMS_LEAST = 64
# The number of calm rounds that end the quota: it must not come and go with each burst.
_CALM_ROUNDS = 10
# The share of the full quota below which a round is calm. That no call is shed does not show it:
# clients without a quota would send all the calls that they hold back at once.
_CALM_SHARE = 0.5


class Connection(Protocol):
    """What the quota needs of a connection."""

    @property
    def short_streams(self) -> int:
        """The number of open calls that add to the load."""

    def limit_streams(self, streams_max: int | None) -> None:
        """Allow the client this many open streams; None: as many as usual."""


class StreamQuota:
    """Shares a number of streams out to all connections while calls are shed."""

    def __init__(
        self,
        connections: Collection[Connection],
        *,
        streams_max: int,
        is_overdue: Callable[[], bool] = lambda: False,
        timers: Timers | None = None,
    ) -> None:
        """Start without a quota.

        Args:
            connections: All open connections, kept current by their owner.
            streams_max: The most streams that they may have open together while there is a quota,
                at least 1. Each may have one, however many there are.
            is_overdue: Returns whether admitted calls wait too long. With a slow store callers time
                out in a queue that is not long enough to shed calls.
            timers: Starts the timer that ends a round; None: its bugs are only logged.
        """
        self._is_overdue = is_overdue
        self._timers = timers or Timers()
        self._connections = connections
        self._streams_max = streams_max
        self._quota = float(streams_max)
        self._timer: asyncio.TimerHandle | None = None
        self._shed = False
        self._calm_rounds = 0

    @property
    def active(self) -> bool:
        """Whether clients have a quota."""
        return self._timer is not None

    def note_shed(self, *, informed: bool) -> None:
        """Note that a call was shed.

        Args:
            informed: Whether its client knew its latest quota. Calls that were sent before do not
                show that the quota is too large; to shed a burst of them takes a second.
        """
        if self._timer is None:
            self._calm_rounds = 0
            self._quota = float(self._streams_max)
            log.warning("clients are held back", streams_max=self._streams_max)
            self._begin_round()
        self._shed = self._shed or informed

    def stop(self) -> None:
        """Change no quota any more; connections keep the ones that they have."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end_round(self) -> None:
        """Shrink or grow the quota, and share it out again.

        A timer calls it, and not each event: connections come and go, and fall idle.
        """
        self.stop()
        congested = self._shed or self._is_overdue()
        if congested:
            self._quota = max(self._quota * _SHRINK, min(_STREAMS_LEAST, self._streams_max))
        else:
            self._quota = min(self._quota * _GROW, self._streams_max)
        pressing = sum(connection.short_streams for connection in self._connections)
        calm = not congested and pressing < self._streams_max * _CALM_SHARE
        self._calm_rounds = self._calm_rounds + 1 if calm else 0
        if self._calm_rounds < _CALM_ROUNDS:
            self._begin_round()
        else:
            log.info("clients are no longer held back")
            self._share_out(None)

    def _begin_round(self) -> None:
        self._shed = False
        # Before all else: a round that does not end would hold clients back forever.
        self._timer = self._timers.later(_ROUND_SECONDS, "the quota of streams", self.end_round)
        busy = sum(connection.short_streams > 0 for connection in self._connections)
        self._share_out(max(1, int(self._quota) // max(1, busy)))

    def _share_out(self, streams_max: int | None) -> None:
        for connection in list(self._connections):
            try:
                connection.limit_streams(streams_max)
            except Exception as bug:  # the other connections must get their quota all the same
                log.error("a client could not be held back", exc_info=bug)
