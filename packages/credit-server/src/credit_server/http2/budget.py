"""A budget: so many at once, so many per second in the long run (a token bucket)."""


class Budget:
    """What may be spent. Cheap enough for each frame: only `refill` knows of time."""

    __slots__ = ("_burst", "_left", "_per_second", "_refilled")

    def __init__(self, *, per_second: float, burst: int, now: float) -> None:
        """Begin with a full budget.

        Args:
            per_second: What comes back each second.
            burst: The most that gathers.
            now: The time, of any clock in seconds; `refill` takes the same.
        """
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._refilled = now

    def refill(self, now: float) -> None:
        """Add what has come back since the last time."""
        earned = (now - self._refilled) * self._per_second
        self._left = min(self._burst, self._left + earned)
        self._refilled = now

    def earn(self, count: int) -> None:
        """Add what something else has paid for."""
        self._left = min(self._burst, self._left + count)

    def spend(self, count: int = 1) -> bool:
        """Take some away; say whether that much was there."""
        if self._left < count:
            return False
        self._left -= count
        return True
