"""Decides from the headers of a call whether it is served now, and counts the calls that run."""

import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol

import structlog

from credit_server.admission.decision import Decision
from credit_server.admission.load import LoopLag, ShedRatio
from credit_server.supervision import Timers

log = structlog.get_logger("credit_server.calls")

_RETRY_SECONDS = 0.25
_LOG_SECONDS = 1.0


class WriteQueue(Protocol):
    """Estimates how long writes wait. Both methods take the number of writes that run."""

    def admission(self, writing: int) -> Decision:
        """Decide whether a write that comes now is admitted."""

    def is_overdue(self, writing: int) -> bool:
        """Return whether a write that comes now is expected to wait too long."""


class AdmissionController:
    """Admits calls while the server can serve them in time. Shared by all connections.

    To shed a call costs the server a fraction of an answer, so it happens before anything of the
    call has been read but its headers: when too many calls run, the event loop is late, or writes
    wait too long.

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
            on_shed: Is called for each shed call, with whether its client knew its latest limits.
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
        self._shed_ratio.admitted()
        return Decision.ADMIT

    def leave(self, *, write: bool) -> None:
        """Count an admitted call out."""
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
        if now - self._logged_at >= _LOG_SECONDS:  # a line for each would cost more than the call
            log.warning("calls are rejected", cause=cause.value, calls=self._unlogged)
            self._logged_at, self._unlogged = now, 0
        self._on_shed(informed)
        return self._shed_ratio.shed(_RETRY_SECONDS)
