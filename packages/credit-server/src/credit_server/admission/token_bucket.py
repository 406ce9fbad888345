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

    def take(self, now: float, count: int = 1) -> float:
        """Take tokens if there are enough of them.

        More tokens than the bucket holds are taken once it is full; the bucket is then in debt.

        Args:
            now: The time in seconds.
            count: The number of tokens.

        Returns:
            The time until there are enough tokens, as from `wait_seconds`; 0 if they were taken.
        """
        wait = self.wait_seconds(now, count)
        if not wait:
            self.refill(now)
            self._tokens -= count
        return wait

    def take_some(self, now: float, count: int) -> int:
        """Take as many tokens as there are, but no more than a number; return how many.

        Args:
            now: The time in seconds.
            count: The greatest number of tokens.
        """
        self.refill(now)
        taken = max(0, min(count, int(self._tokens)))
        self._tokens -= taken
        return taken

    def wait_seconds(self, now: float, count: int = 1) -> float:
        """Return the time until `take` takes tokens; 0 if it does so now.

        The bucket is not refilled: the sum of many small refills is not exact, so a caller that
        waits for the returned time would find its token missing.

        Args:
            now: The time in seconds.
            count: The number of tokens.
        """
        tokens = self._tokens + (now - self._refilled_at) * self._per_second
        return max(0.0, (min(count, self._burst) - tokens) / self._per_second)
