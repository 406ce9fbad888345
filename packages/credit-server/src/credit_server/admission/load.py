"""Measures the load, and decides from the headers of a call whether the call is served now.

The measures are the event loop's lag, the share of shed calls, and the time of batches.
"""

import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol

import structlog

from credit_server.admission.decision import Decision
from credit_server.supervision import Timers

log = structlog.get_logger("credit_server.calls")

# The time until a shed call would find room if no other call arrived.
_ROOM_SECONDS = 0.25
_LOG_SECONDS = 1.0

_BEAT_SECONDS = 0.05

# The weight of one decision in the average: about the last hundred decisions count.
_DECISION_WEIGHT = 1 / 128
_RATIO_MAX = 0.95
# About the time of a batch: nothing changes sooner.
_RETRY_SECONDS_LEAST = 0.1
_RETRY_SECONDS_MOST = 10.0

# The weight of a new batch in the average: it shows a slower store within three batches.
_BATCH_WEIGHT = 0.3
# A small batch takes most of its time for the transaction itself. It shows little about how fast
# many writes are settled, except that each of them takes no longer than these.
_TELLING_SHARE = 0.25


class LoopLag:
    """Measures how late the event loop is.

    The lag is the delay of a timer: of its last beat, or of the beat that is due. The timer runs
    only after calls have arrived, so that an idle server sleeps.
    """

    def __init__(self, timers: Timers | None = None) -> None:
        self._timers = timers or Timers()
        self._due: float | None = None
        self._beaten_at = 0.0
        self._last = 0.0

    def measure(self) -> float:
        """Return how many seconds the loop is late, or was at the last beat; continue to measure.

        Returns:
            0 at the first call, after a quiet time, and after each beat.
        """
        # The loop's own clock is not used, because uvloop's stands still while callbacks run.
        now = time.monotonic()
        if self._due is not None:
            return max(self._last, now - self._due)
        if now - self._beaten_at > 2 * _BEAT_SECONDS:
            self._last = 0.0  # the last measure is from before a quiet time
        self._due = now + _BEAT_SECONDS
        self._timers.later(_BEAT_SECONDS, "the measure of the event loop", self._beat)
        return 0.0

    def _beat(self) -> None:
        assert self._due is not None  # noqa: S101 - for the type checker
        self._beaten_at = time.monotonic()
        self._last = max(0.0, self._beaten_at - self._due)
        self._due = None


class ShedRatio:
    """Averages the decisions, and spreads the retries of shed callers over time.

    With a constant time, ten times too many callers would make as many attempts as before. So the
    time grows with the share of calls that are shed, and has a jitter of half its length.

    Attributes:
        admitted: The number of calls admitted since the last one was shed; the owner increments it.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ratio = 0.0
        self.admitted = 0

    def shed(self, base_seconds: float) -> float:
        """Note a shed call, and return the seconds after which its caller should retry.

        Args:
            base_seconds: The time until there would be room if no other call arrived.
        """
        self._ratio *= (1 - _DECISION_WEIGHT) ** self.admitted
        self.admitted = 0
        self._ratio += (1 - self._ratio) * _DECISION_WEIGHT
        seconds = max(base_seconds, _RETRY_SECONDS_LEAST) / (1 - min(self._ratio, _RATIO_MAX))
        return min(seconds, _RETRY_SECONDS_MOST) * self._random.uniform(0.5, 1.5)


class LatencyEstimate:
    """Estimates how long a new write takes, from how fast a shard has settled its writes so far.

    Attributes:
        size: The number of writes in the batch that is under way; 0 if none is.
    """

    def __init__(self, batch_max: int) -> None:
        self._telling_size = batch_max * _TELLING_SHARE
        self._seconds_each: float | None = None
        self.size = 0
        self._began = 0.0

    def begin(self, size: int, now: float) -> None:
        """Note that a batch of this many writes begins."""
        self.size, self._began = size, now

    def end(self, now: float) -> None:
        """Note that the batch has ended."""
        sample = (now - self._began) / self.size
        known = self._seconds_each
        if known is None:
            if self.size >= self._telling_size:
                self._seconds_each = sample
        elif self.size >= self._telling_size or sample < known:
            self._seconds_each = known + (sample - known) * _BATCH_WEIGHT
        self.size = 0

    def seconds_until_settled(self, waiting: int, now: float) -> float:
        """Estimate the time until a write that arrives now is settled.

        Args:
            waiting: The number of writes that wait before this one, without those of the batch
                under way.
            now: The loop's time.

        Returns:
            The estimate; 0 before any batch has shown how fast writes are settled.
        """
        if self._seconds_each is None:
            return 0.0
        under_way = max(0.0, self.size * self._seconds_each - (now - self._began))
        return under_way + (waiting + 1) * self._seconds_each


class WriteQueue(Protocol):
    """Estimates how long writes wait. Both methods take the number of writes that run."""

    def admission(self, writing: int) -> Decision:
        """Decide whether a write that comes now is admitted."""

    def is_overdue(self, writing: int) -> bool:
        """Return whether a write that comes now is expected to wait too long."""


class AdmissionController:
    """Admits calls while the server can serve them in time. Shared by all connections.

    The server sheds calls when too many calls run, the event loop is late, or writes wait too long.
    It reads only the headers of such a call, so that shedding costs a fraction of an answer.

    Attributes:
        shed_total: The number of shed calls by cause.
    """

    def __init__(
        self,
        *,
        calls_max: int,
        loop_lag_seconds_max: float,
        write_queue: WriteQueue | None = None,
        on_shed: Callable[[bool], None] = lambda _: None,
        timers: Timers | None = None,
    ) -> None:
        """Start with no running calls.

        Args:
            calls_max: The most calls that may run.
            loop_lag_seconds_max: How late the event loop may be before calls are shed.
            write_queue: Estimates how long writes wait; None: writes are admitted as reads are.
            on_shed: Called for each shed call. The argument is whether the client knew its latest
                limits.
            timers: Starts the timer that measures the event loop; None: its bugs are only logged.
        """
        self._write_queue = write_queue
        self._on_shed = on_shed
        self.shed_total: Counter[Decision] = Counter()
        self._calls_max = calls_max
        self._lag = LoopLag(timers)
        self._lag_seconds_max = loop_lag_seconds_max
        self._shed_ratio = ShedRatio(Random())  # noqa: S311 - jitter needs no secrecy
        self._running = 0
        self._writing = 0
        self._logged_at = -_LOG_SECONDS
        self._unlogged = 0

    def is_overdue(self) -> bool:
        """Return whether a write that comes now is expected to wait too long."""
        return self._write_queue is not None and self._write_queue.is_overdue(self._writing)

    def admit(self, *, write: bool) -> Decision:
        """Decide on a call that comes now, and count it if it is admitted.

        `leave` must follow at the end of an admitted call, `shed` for one that is not admitted.

        Args:
            write: Whether the call waits for a commit. Writes are counted apart: lists may run for
                minutes, and no write waits for them.
        """
        if self._running >= self._calls_max:
            return Decision.CALLS
        if self._lag.measure() > self._lag_seconds_max:
            return Decision.LOOP_LAG
        if write and self._write_queue is not None:
            decision = self._write_queue.admission(self._writing)
            if decision is not Decision.ADMIT:
                return decision
        self._running += 1
        self._writing += write
        self._shed_ratio.admitted += 1
        return Decision.ADMIT

    def leave(self, *, write: bool) -> None:
        """Count the end of an admitted call."""
        self._running -= 1
        self._writing -= write

    def shed(self, cause: Decision, *, informed: bool = True) -> float:
        """Count a shed call, and return the seconds after which its caller should retry.

        Args:
            cause: What `admit` returned.
            informed: Whether the client knew its latest limits.
        """
        self.shed_total[cause] += 1
        self._unlogged += 1
        now = time.monotonic()
        # A line for each shed call would cost more than shedding it.
        if now - self._logged_at >= _LOG_SECONDS:
            log.warning("calls are rejected", cause=cause.value, calls=self._unlogged)
            self._logged_at, self._unlogged = now, 0
        self._on_shed(informed)
        return self._shed_ratio.shed(_ROOM_SECONDS)
