"""Rate limits by name, and limits on what runs at once by name."""

from collections import Counter, OrderedDict

from credit_server.admission.decision import Decision
from credit_server.admission.token_bucket import TokenBucket


class RateLimit:
    """A token bucket for each name.

    The number of names is bounded: a new name evicts the one that was idle for longest. As a rule
    the evicted bucket is full by then and nothing is lost. If it is not full, the new name takes it
    over as it is. So no name gets a full bucket by having its own evicted, and all names together
    never get more tokens than their buckets hold.
    """

    def __init__(self, *, per_second: float, burst: int, names_max: int) -> None:
        """Start with full buckets.

        Args:
            per_second: The tokens that a bucket gets in a second; 0: there is no limit.
            burst: The most tokens that a bucket holds, at least 1.
            names_max: The most buckets that are kept, at least 1.
        """
        self._per_second = per_second
        self._burst = burst
        self._names_max = names_max
        # Not cachetools' LRUCache: it cannot show its oldest entry without removing it.
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of buckets that are kept."""
        return len(self._buckets)

    def wait_seconds(self, name: str, now: float) -> float:
        """Return the time until there is a token; 0 if there is one.

        Args:
            name: The name of the bucket.
            now: The time in seconds, by a clock that never goes back.
        """
        if not self._per_second:
            return 0.0
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) < self._names_max:
                return 0.0
            bucket = next(iter(self._buckets.values()))
        return bucket.wait_seconds(now)

    def take(self, name: str, now: float, count: int = 1, *, paid: int = 0) -> float:
        """Take tokens if there are enough of them: see `TokenBucket.take`.

        Args:
            name: The name of the bucket.
            now: The time in seconds.
            count: The number of tokens.
            paid: How many of these tokens were taken by an earlier call. They stay taken even if
                there are not enough tokens.

        Returns:
            The time until there are enough; 0 if the tokens were taken.
        """
        if not self._per_second:
            return 0.0
        bucket = self._bucket(name, now)
        bucket.earn(paid)
        wait = bucket.take(now, count)
        if wait:
            bucket.spend(paid)
        return wait

    def take_some(self, name: str, now: float, count: int) -> tuple[int, float]:
        """Take as many tokens as there are, but no more than a number.

        Returns:
            How many were taken, and the time until there are tokens for the rest.
        """
        if not self._per_second:
            return count, 0.0
        bucket = self._bucket(name, now)
        taken = bucket.take_some(now, count)
        return taken, bucket.wait_seconds(now, count - taken) if taken < count else 0.0

    def _bucket(self, name: str, now: float) -> TokenBucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = self._new_bucket(now)
        else:
            self._buckets.move_to_end(name)
        return bucket

    def _new_bucket(self, now: float) -> TokenBucket:
        if len(self._buckets) >= self._names_max:
            return self._buckets.popitem(last=False)[1]
        return TokenBucket(per_second=self._per_second, burst=self._burst, now=now)


class RunningLimit:
    """Bounds how many calls of each name run at once."""

    def __init__(self, running_max: int) -> None:
        """Start with no running calls.

        Args:
            running_max: The most calls of one name, at least 1.
        """
        self.running_max = running_max
        self._running: Counter[str] = Counter()

    def admit(self, name: str) -> Decision:
        """Decide on a call, and count it if it is admitted; `leave` must follow at its end."""
        if self._running[name] >= self.running_max:
            return Decision.RUNNING_CALLS
        self._running[name] += 1
        return Decision.ADMIT

    def leave(self, name: str) -> None:
        """Count an admitted call out."""
        self._running[name] -= 1
        if not self._running[name]:
            del self._running[name]
