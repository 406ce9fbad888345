"""How fast a lane settles its writes, and so how long one that comes now will take."""

_WEIGHT = 0.3
"""Of a new batch in the average: a store that becomes slower is noticed within three batches."""
_TELLING_SHARE = 0.25
"""Most of the time of a small batch is that of the transaction itself: it says little about how
fast many writes are settled, save that they take no longer than these."""


class Pace:
    """The average time that a write takes of a lane's time."""

    def __init__(self, batch_max: int) -> None:
        self._telling_size = batch_max * _TELLING_SHARE
        self._seconds_each: float | None = None
        self._size = 0
        self._began = 0.0

    @property
    def busy(self) -> bool:
        """Whether a batch is under way."""
        return self._size > 0

    @property
    def size(self) -> int:
        """How many writes are in the batch that is under way; 0 where there is none."""
        return self._size

    def begin(self, size: int, now: float) -> None:
        """Note that a batch of so many writes begins."""
        self._size, self._began = size, now

    def end(self, now: float) -> None:
        """Note that it is done with."""
        sample = (now - self._began) / self._size
        known = self._seconds_each
        if known is None:
            if self._size >= self._telling_size:
                self._seconds_each = sample
        elif self._size >= self._telling_size or sample < known:
            self._seconds_each = known + (sample - known) * _WEIGHT
        self._size = 0

    def seconds_until_settled(self, waiting: int, now: float) -> float:
        """Estimate when a write that comes now is settled.

        Args:
            waiting: How many wait before it, those under way not counted.
            now: The loop's time.

        Returns:
            The estimate; 0 as long as nothing is known.
        """
        if self._seconds_each is None:
            return 0.0
        under_way = max(0.0, self._size * self._seconds_each - (now - self._began))
        return under_way + (waiting + 1) * self._seconds_each
