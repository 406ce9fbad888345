"""Compare this machine's clock with the store's, as precisely as the round trip permits."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

# MongoDB truncates `localTime` to whole milliseconds.
_PRECISION_SECONDS = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockOffset:
    """How far this machine's clock is ahead of the store's; negative: behind it.

    Attributes:
        least_seconds: The least possible offset.
        most_seconds: The greatest possible offset. The two differ by the round trip.
    """

    least_seconds: float
    most_seconds: float

    @property
    def certain_seconds(self) -> float:
        """The part that the round trip cannot explain; 0 if the clocks may agree."""
        if self.least_seconds > 0:
            return self.least_seconds
        return min(self.most_seconds, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockReading:
    """The store's time, and the time of the request on a monotonic clock.

    Attributes:
        store_seconds: The store's time, in seconds since 1970, truncated to milliseconds.
        asked_at: The monotonic clock when the request was sent.
        answered_at: The monotonic clock when the answer was received.
    """

    store_seconds: float
    asked_at: float
    answered_at: float

    def store_latest(self, monotonic: float) -> float:
        """Return the latest possible time of the store's clock.

        Args:
            monotonic: The monotonic clock at that moment.
        """
        return self.store_seconds + _PRECISION_SECONDS + (monotonic - self.asked_at)

    def store_earliest(self, monotonic: float) -> float:
        """Return the earliest possible time of the store's clock.

        Args:
            monotonic: The monotonic clock at that moment.
        """
        return self.store_seconds + (monotonic - self.answered_at)

    def offset(self, wall: float, before: float, after: float) -> ClockOffset:
        """Compare this machine's clock with the store's.

        Args:
            wall: This machine's clock, in seconds since 1970.
            before: The monotonic clock before that was read.
            after: The monotonic clock after it was read.
        """
        return ClockOffset(
            least_seconds=wall - self.store_latest(after),
            most_seconds=wall - self.store_earliest(before),
        )


# Any: what the driver decodes has no narrower type.
def reading_of(hello: Mapping[str, Any], *, asked_at: float, answered_at: float) -> ClockReading:
    """Return the reading in MongoDB's answer to `hello`.

    Args:
        hello: The answer.
        asked_at: The monotonic clock when the command was sent.
        answered_at: The monotonic clock when the answer was received.
    """
    # BSON dates are UTC; the driver decodes a command's answer without a time zone.
    local_time = hello["localTime"].replace(tzinfo=UTC)
    return ClockReading(
        store_seconds=local_time.timestamp(), asked_at=asked_at, answered_at=answered_at
    )
