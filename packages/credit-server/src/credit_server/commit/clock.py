"""The time of new entries: this machine's clock, as long as it agrees with the store's.

The health watch reads the store's clock again and again. Between two readings the monotonic clock
carries the store's time on, so that a jump of this machine's clock is noticed at the next write.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from credit_server.commit.errors import ClockSkewed
from credit_server.store.clock import ClockReading

SKEW_SECONDS_MAX = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A time at which entries are made, UTC, in whole milliseconds: the precision of the store.

    Attributes:
        now: The time.
        latest: The latest time that an entry may have, at least `now`: no sound server's clock is
            ahead of it.
    """

    now: datetime
    latest: datetime


class Clock:
    """This machine's clock, compared with the store's."""

    def __init__(
        self,
        *,
        skew_seconds_max: float = SKEW_SECONDS_MAX,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; without a reading of the store's clock the two are taken to agree.

        Args:
            skew_seconds_max: By how much the two may differ.
            wall: This machine's clock, in seconds since 1970. It may be wrong, and may jump.
            monotonic: A clock that never jumps, the one that readings are made with.
        """
        self._skew_seconds_max = skew_seconds_max
        self._wall = wall
        self._monotonic = monotonic
        self._reading: ClockReading | None = None

    def compare(self, reading: ClockReading) -> None:
        """Note the store's time; the latest reading counts."""
        self._reading = reading

    def now(self) -> Moment:
        """Return the time.

        Raises:
            ClockSkewed: The clocks differ by more than they may, whatever the round trip was.
        """
        before = self._monotonic()
        wall = self._wall()
        store_latest = wall
        if self._reading is not None:
            after = self._monotonic()
            skew = self._reading.offset(wall, before, after).certain_seconds
            if abs(skew) > self._skew_seconds_max:
                raise ClockSkewed(skew_seconds=abs(skew), limit_seconds=self._skew_seconds_max)
            store_latest = self._reading.store_latest(after)
        # A server that is as far ahead as it may be writes entries of this time.
        return Moment(now=_utc(wall), latest=_utc(store_latest + self._skew_seconds_max))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _utc(seconds: float) -> datetime:
    return _EPOCH + timedelta(milliseconds=int(seconds * 1000))
