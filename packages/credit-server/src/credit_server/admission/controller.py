"""Says whether calls are taken in, from their headers alone, and counts those that run."""

import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol

import structlog
from credit_models.scopes import METHOD_SCOPES

from credit_server.admission.shed_ratio import Pressure
from credit_server.supervision import Timers

log = structlog.get_logger("credit_server.calls")

WRITES = frozenset(path for path, scope in METHOD_SCOPES.items() if scope != "credits:read")
"""The calls that wait for a commit."""

_BEAT_SECONDS = 0.05
_RETRY_SECONDS = 0.25
_LOG_SECONDS = 1.0


class Writes(Protocol):
    """What knows how long writes wait; both are given how many of them run."""

    def refusal(self, writing: int) -> str | None:
        """Say why no write is taken in now, as `Gate.shed_total` names it; None if writes are."""

    def overdue(self, writing: int) -> bool:
        """Say whether a write that comes now is expected to wait too long."""


class Gate:
    """The way in for calls. Shared by all connections.

    Refusing costs the server a fraction of an answer, so it is done before anything of a call has
    been read but its headers, when too many run or the event loop is behind with its work.

    Attributes:
        shed_total: How many calls were refused, by cause: `calls`, `loop_lag`, or what the way in
            for writes says.
    """

    def __init__(
        self,
        *,
        calls_max: int,
        loop_lag_seconds_max: float,
        writes: Writes | None = None,
        on_overload: Callable[[bool], None] = lambda _: None,
        timers: Timers | None = None,
    ) -> None:
        """Open the gate.

        Args:
            calls_max: How many calls may run.
            loop_lag_seconds_max: How late the event loop may be before new calls are refused.
            writes: Knows how long writes wait; None where nobody does.
            on_overload: Is told of every call that is refused because of the load, and whether its
                client knew its latest limits.
            timers: Starts the timer that measures the event loop; None: its bugs are only logged.
        """
        self._writes = writes
        self._on_overload = on_overload
        self.shed_total: Counter[str] = Counter()
        self._calls_max = calls_max
        self._lag = LoopLag(timers)
        self._lag_seconds_max = loop_lag_seconds_max
        self._pressure = Pressure(Random())  # noqa: S311 - jitter needs no secrecy
        self._running = 0
        self._writing = 0
        self._logged_at = -_LOG_SECONDS
        self._unlogged = 0

    def overdue(self) -> bool:
        """Say whether a write that comes now is expected to wait too long."""
        return self._writes is not None and self._writes.overdue(self._writing)

    def refusal(self, path: str) -> str | None:
        """Say why a call that comes now is refused, as `shed_total` names it; None if it is not."""
        if self._running >= self._calls_max:
            return "calls"
        if self._lag.seconds() > self._lag_seconds_max:
            return "loop_lag"
        if self._writes is None or path not in WRITES:
            return None
        return self._writes.refusal(self._writing)

    def shed(self, cause: str, *, informed: bool = True) -> float:
        """Count a refused call, and say in how many seconds it should come again.

        Args:
            cause: Why, as `refusal` has said.
            informed: Whether its client knew its latest limits.
        """
        self.shed_total[cause] += 1
        self._unlogged += 1
        now = time.monotonic()
        if now - self._logged_at >= _LOG_SECONDS:  # a line for each would cost more than the call
            log.warning("calls are refused", cause=cause, calls=self._unlogged)
            self._logged_at, self._unlogged = now, 0
        self._on_overload(informed)
        return self._pressure.refused(_RETRY_SECONDS)

    def enter(self, path: str) -> None:
        """Count a call that begins.

        Writes are counted apart: lists may run for minutes, and no write waits for them.
        """
        self._running += 1
        self._writing += path in WRITES
        self._pressure.admitted()
        self._lag.watch()

    def leave(self, path: str) -> None:
        """Count a call that has ended."""
        self._running -= 1
        self._writing -= path in WRITES


class LoopLag:
    """Measures how late the event loop is with what it has to do.

    A timer that is due says it: by how much it was late, or already is. It runs only after calls
    have come, so that an idle server sleeps.
    """

    def __init__(self, timers: Timers | None = None) -> None:
        self._timers = timers or Timers()
        self._due: float | None = None
        self._beaten_at = 0.0
        self._last = 0.0

    def watch(self) -> None:
        """Measure for the next moment."""
        if self._due is None:
            # Not the loop's own clock: uvloop's stands still while callbacks run.
            now = time.monotonic()
            if now - self._beaten_at > 2 * _BEAT_SECONDS:
                self._last = 0.0  # it is from before a quiet time
            self._due = now + _BEAT_SECONDS
            self._timers.later(_BEAT_SECONDS, "the measure of the event loop", self._beat)

    def seconds(self) -> float:
        """Return how late the loop is, or was at the latest beat; 0 where nothing measures it."""
        if self._due is None:
            return 0.0
        return max(self._last, time.monotonic() - self._due)

    def _beat(self) -> None:
        assert self._due is not None  # noqa: S101 - for the type checker
        self._beaten_at = time.monotonic()
        self._last = max(0.0, self._beaten_at - self._due)
        self._due = None
