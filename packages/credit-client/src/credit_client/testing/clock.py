"""The clock of the fake, which runs normally and can be moved forward."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class FakeClock:
    """A clock that tests move: `service.clock.advance(timedelta(days=30))`.

    It starts at the present time and runs normally. What is due after a move takes effect with the
    next call: grants start and end, and holds end.
    """

    def __init__(self, source: Callable[[], dt.datetime] = _now) -> None:
        """Start at the time of another clock.

        Args:
            source: Returns the time, with a time zone.
        """
        self._source = source
        self._ahead = dt.timedelta()
        self._stopped: dt.datetime | None = None

    def now(self) -> dt.datetime:
        """Return the time in UTC, in whole milliseconds: the precision of the ledger."""
        if self._stopped is not None:
            return self._stopped
        now = self._source().astimezone(dt.UTC) + self._ahead
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Return the same time during the context, so that an answer is of one moment."""
        outer, self._stopped = self._stopped, self.now()
        try:
            yield
        finally:
            self._stopped = outer

    def advance(self, duration: dt.timedelta) -> None:
        """Move the clock forward.

        Raises:
            ValueError: The duration is negative. Entries must be in the order of their times.
        """
        if duration < dt.timedelta():
            raise ValueError(f"a clock can only be moved forward, not by {duration}")
        self._ahead += duration
