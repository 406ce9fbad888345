"""The time of new entries: this machine's clock, as long as it agrees with the store's.

The health check reads the store's clock regularly. Between two readings the monotonic clock extends
the store's time, so that a jump of this machine's clock is detected at the next write.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from credit_server.commit.errors import ClockSkewed
from credit_server.store.port import ClockReading, Interrupted

# NTP keeps clocks within a few milliseconds. All servers of a database must have the same value,
# because the time up to which a query of an app is complete depends on it.
SKEW_SECONDS_MAX = 2.0

# The longest life of a transaction. MongoDB aborts transactions that are older than its parameter
# `transactionLifetimeLimitSeconds` (60), but searches for them only at every half of this time.
_TRANSACTION_SECONDS_MAX = 90.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A time at which entries are made, UTC, in whole milliseconds: the precision of the store.

    Attributes:
        now: The time.
        latest: The latest time that an entry may have by then, at least `now`. No correct server's
            clock is ahead of it.
        read_at: The monotonic clock at the time.
    """

    now: datetime
    latest: datetime
    read_at: float


class Clock:
    """This machine's clock, compared with the store's.

    Attributes:
        monotonic: Returns the seconds of a clock that never jumps.
    """

    def __init__(
        self,
        *,
        skew_seconds_max: float = SKEW_SECONDS_MAX,
        store_seconds_max: float = 10.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the clock. Without a reading of the store's clock the two are assumed to agree.

        Args:
            skew_seconds_max: The largest difference that is allowed.
            store_seconds_max: How long a read of the store can take.
            wall: This machine's clock, in seconds since 1970. It may be wrong, and may jump.
            monotonic: A clock that never jumps, with which the readings are made.
        """
        self._skew_seconds_max = skew_seconds_max
        self._store_seconds_max = store_seconds_max
        self._wall = wall
        self.monotonic = monotonic
        self._reading: ClockReading | None = None

    def compare(self, reading: ClockReading) -> None:
        """Set the latest reading of the store's clock."""
        self._reading = reading

    def time(self) -> datetime:
        """Return this machine's time in whole milliseconds, whatever the store's clock shows.

        It is for reads, which are served while the clocks differ.
        """
        return _EPOCH + timedelta(milliseconds=int(self._wall() * 1000))

    def now(self) -> Moment:
        """Return the time.

        Raises:
            ClockSkewed: The clocks differ by more than is allowed, whatever the round trip was.
        """
        before = self.monotonic()
        wall = self._wall()
        store_latest = wall
        if self._reading is not None:
            after = self.monotonic()
            skew = self._reading.offset(wall, before, after).certain_seconds
            if abs(skew) > self._skew_seconds_max:
                raise ClockSkewed(skew_seconds=abs(skew), limit_seconds=self._skew_seconds_max)
            store_latest = self._reading.store_latest(after)
        # A correct server may be ahead by this much, and writes entries of this time.
        latest = store_latest + self._skew_seconds_max
        return Moment(
            now=_EPOCH + timedelta(milliseconds=int(wall * 1000)),
            latest=_EPOCH + timedelta(milliseconds=int(latest * 1000)),
            read_at=before,
        )

    def latest(self, moment: Moment) -> datetime:
        """Return the latest time that an entry may have now.

        An attempt can wait seconds for the store after its moment, for example while a primary is
        elected. Another server may have written the account in this time.
        """
        passed = self.monotonic() - moment.read_at
        return moment.latest + timedelta(milliseconds=int(passed * 1000))

    def check_age(self, moment: Moment) -> None:
        """Check that a transaction with the time of a moment may still be committed.

        Call this after the writes of the transaction, when the store has answered at least one of
        its commands: if all accounts were cached, the writes begin the transaction. The check
        proves that the time is at most `store_seconds_max` before the transaction began in the
        store, even if this process was suspended in between.

        Raises:
            Interrupted: The moment is too old; nothing was committed.
        """
        if self.monotonic() - moment.read_at > self._store_seconds_max:
            raise Interrupted("the attempt took too long; nothing was committed")

    @property
    def settling_seconds(self) -> float:
        """For how long after its `created_at` an entry can appear, by the store's clock.

        All servers of a database must have the same limits. The time of a read counts twice: as the
        age of a transaction before its first command, and as the inexactness of a reading of the
        store's clock. The skew counts twice: that of the server that commits the entry, and that
        between the nodes of the store.
        """
        return _TRANSACTION_SECONDS_MAX + 2 * self._store_seconds_max + 2 * self._skew_seconds_max
