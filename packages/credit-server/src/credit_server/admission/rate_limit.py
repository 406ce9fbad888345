"""How often something may happen, by name: token buckets, and a bound on how many are kept."""

from collections import OrderedDict


class RateLimit:
    """A token bucket for each name.

    A bucket is one number: when it will be full. The names are bounded: the one that was idle for
    longest makes room. As a rule its bucket is full by then and nothing is forgotten; where it is
    not, the newcomer takes it over as it is. So nobody gets a full bucket by having theirs pushed
    out, and all names together never get more than their buckets hold.
    """

    def __init__(self, *, per_second: float, burst: int, names_max: int) -> None:
        """Begin with full buckets.

        Args:
            per_second: How many tokens a bucket gets in a second; 0: there is no limit.
            burst: How many tokens a bucket holds, at least 1.
            names_max: How many buckets are kept, at least 1.
        """
        self._interval = 1 / per_second if per_second else 0.0
        self._slack = self._interval * (burst - 1)
        self._names_max = names_max
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Count the buckets that are kept."""
        return len(self._full_at)

    def wait_seconds(self, name: str, now: float) -> float:
        """Return how long it takes until there is a token; 0: there is one.

        Args:
            name: Whose bucket.
            now: The time in seconds, by a clock that never goes back.
        """
        return max(0.0, self._bucket(name, now) - now - self._slack)

    def take(self, name: str, now: float) -> float:
        """Take a token if there is one, and return what `wait_seconds` did before."""
        if not self._interval:
            return 0.0
        full_at = self._bucket(name, now)
        wait = max(0.0, full_at - now - self._slack)
        if name not in self._full_at and len(self._full_at) >= self._names_max:
            self._full_at.popitem(last=False)
        self._full_at[name] = full_at if wait else full_at + self._interval
        self._full_at.move_to_end(name)
        return wait

    def _bucket(self, name: str, now: float) -> float:
        """Return when the bucket will be full that a name has, or would take over."""
        full_at = self._full_at.get(name, now)
        if name not in self._full_at and len(self._full_at) >= self._names_max:
            full_at = next(iter(self._full_at.values()))
        return max(now, full_at)
