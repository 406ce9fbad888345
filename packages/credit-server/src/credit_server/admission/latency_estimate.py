"""Estimates how long a new write takes, from how fast a shard has settled its writes so far."""

# The weight of a new batch in the average: a store that becomes slower is noticed within three
# batches.
_WEIGHT = 0.3
# Most of the time of a small batch is that of the transaction itself. It shows little about how
# fast many writes are settled, except that they take no longer than these.
_TELLING_SHARE = 0.25


class LatencyEstimate:
    """The average time that a write takes of a shard's time.

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
            self._seconds_each = known + (sample - known) * _WEIGHT
        self.size = 0

    def seconds_until_settled(self, waiting: int, now: float) -> float:
        """Estimate when a write that comes now is settled.

        Args:
            waiting: The writes that wait before it, without those of the batch under way.
            now: The loop's time.

        Returns:
            The estimate; 0 before any batch has shown how fast writes are settled.
        """
        if self._seconds_each is None:
            return 0.0
        under_way = max(0.0, self.size * self._seconds_each - (now - self._began))
        return under_way + (waiting + 1) * self._seconds_each
