"""The share of calls that is shed, and how long a shed caller should wait before it retries."""

from random import Random

# The weight of one decision in the average: about the last hundred decisions count.
_WEIGHT = 1 / 128
_RATIO_MAX = 0.95
# About a batch: nothing changes before that.
_RETRY_SECONDS_LEAST = 0.1
_RETRY_SECONDS_MOST = 10.0


class ShedRatio:
    """Averages the decisions, and spreads the retries of shed callers over time.

    If all callers retried after the same time, ten times too many callers would make as many
    attempts as before. So the time grows with the share that is shed, and has a jitter of half of
    it.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ratio = 0.0

    def admitted(self) -> None:
        """Note an admitted call."""
        self._ratio -= self._ratio * _WEIGHT

    def shed(self, base_seconds: float) -> float:
        """Note a shed call, and return the seconds after which its caller should retry.

        Args:
            base_seconds: When there would be room if no other call came.
        """
        self._ratio += (1 - self._ratio) * _WEIGHT
        seconds = max(base_seconds, _RETRY_SECONDS_LEAST) / (1 - min(self._ratio, _RATIO_MAX))
        return min(seconds, _RETRY_SECONDS_MOST) * self._random.uniform(0.5, 1.5)
