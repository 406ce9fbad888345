"""A token bucket: a burst at once, and a rate in the long run."""


class TokenBucket:
    """Tokens that are spent and come back with time.

    It is cheap enough for each frame of a connection: only `refill` takes the time.
    """

    __slots__ = ("_burst", "_per_second", "_refilled_at", "_tokens")

    def __init__(self, *, per_second: float, burst: int, now: float) -> None:
        """Start with a full bucket.

        Args:
            per_second: The tokens that come back in a second.
            burst: The most tokens that the bucket holds.
            now: The time in seconds, by any clock; `refill` takes the same clock's time.
        """
        self._per_second = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._refilled_at = now

    def refill(self, now: float) -> None:
        """Add the tokens that have come back since the last refill."""
        earned = (now - self._refilled_at) * self._per_second
        self._tokens = min(self._burst, self._tokens + earned)
        self._refilled_at = now

    def earn(self, count: int) -> None:
        """Add tokens that were earned in another way than by time."""
        self._tokens = min(self._burst, self._tokens + count)

    def spend(self, count: int = 1) -> bool:
        """Take tokens if there are enough of them; return whether there were."""
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    def take(self, now: float) -> float:
        """Take a token if there is one.

        Args:
            now: The time in seconds.

        Returns:
            What `wait_seconds` returned before: 0 if a token was taken.
        """
        wait = self.wait_seconds(now)
        if not wait:
            self.refill(now)
            self.spend()
        return wait

    def wait_seconds(self, now: float) -> float:
        """Return the time until there is a token; 0 if there is one.

        Nothing is refilled: the sum of many small refills is not exact, and a caller that waits for
        as long as it was asked to would find its token missing.

        Args:
            now: The time in seconds.
        """
        tokens = self._tokens + (now - self._refilled_at) * self._per_second
        return max(0.0, (1 - tokens) / self._per_second)
