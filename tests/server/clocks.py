"""Provide clocks of this machine and of the store that a test moves by hand."""

from datetime import UTC, datetime

from credit_server.commit import Clock
from credit_server.store.port import ClockReading

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT_SECONDS = 2.0


class Clocks:
    """Clocks that stop until the test moves them.

    Attributes:
        wall: This machine's clock, in seconds since 1970.
        store: The store's clock, in seconds since 1970.
        monotonic: The seconds that have passed.
    """

    def __init__(self) -> None:
        self.wall = self.store = NOON.timestamp()
        self.monotonic = 1000.0

    def advance(self, seconds: float) -> None:
        """Advance all clocks."""
        self.wall += seconds
        self.store += seconds
        self.monotonic += seconds

    def clock(self) -> Clock:
        """Return a server's clock that reads these clocks."""
        return Clock(
            skew_seconds_max=LIMIT_SECONDS,
            wall=lambda: self.wall,
            monotonic=lambda: self.monotonic,
        )

    def reading(self, *, there: float = 0.0, back: float = 0.0) -> ClockReading:
        """Read the store's clock; the request takes `there` seconds and the answer `back`."""
        asked_at = self.monotonic
        self.advance(there)
        store_seconds = self.store
        self.advance(back)
        return ClockReading(
            store_seconds=store_seconds, asked_at=asked_at, answered_at=self.monotonic
        )


def skewed_clock(seconds: float = 3600.0) -> Clock:
    """Return a server's clock that is ahead of the store's clock."""
    clocks = Clocks()
    clock = clocks.clock()
    clock.compare(clocks.reading())
    clocks.wall += seconds
    return clock
