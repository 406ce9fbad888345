"""How hard callers press: the share of them that is refused, and when these should come again."""

from random import Random

_WEIGHT = 1 / 128
"""Of one decision in the average: about the last hundred count."""
_REFUSED_SHARE_MAX = 0.95
_RETRY_SECONDS_LEAST = 0.1
"""About a batch: nothing will have changed before."""
_RETRY_SECONDS_MOST = 10.0


class Pressure:
    """Keeps the share of refusals, and spreads those who were refused over time.

    If all came again after the same time, ten times too many callers would be as many attempts as
    before; so the time grows with the share that is refused, and has a jitter of half of it.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._share = 0.0

    def admitted(self) -> None:
        """Note one that was taken in."""
        self._share -= self._share * _WEIGHT

    def refused(self, base_seconds: float) -> float:
        """Note one that was refused, and say in how many seconds it should come again.

        Args:
            base_seconds: When there would be room if nobody else came.
        """
        self._share += (1 - self._share) * _WEIGHT
        seconds = max(base_seconds, _RETRY_SECONDS_LEAST) / (
            1 - min(self._share, _REFUSED_SHARE_MAX)
        )
        return min(seconds, _RETRY_SECONDS_MOST) * self._random.uniform(0.5, 1.5)
