"""Decide from a seed where faults happen, and how long messages take."""

import asyncio
from collections.abc import Collection
from random import Random

from credit_simulate.loop import VirtualLoop

RATES = {
    # A request, or its answer, of a server to its store.
    "store request lost": 0.006,
    "store answer lost": 0.006,
    "store conflict": 0.01,
    "commit request lost": 0.01,
    "commit answer lost": 0.03,
    "commit late": 0.02,
    "transaction left open": 0.01,
    "log broken": 0.06,
    # A request, or its answer, of a caller to a server.
    "request lost": 0.015,
    "request repeated": 0.03,
    "answer lost": 0.03,
    "stream broken": 0.03,
    # The loss of an event to a webhook, or of its acknowledgement.
    "webhook away": 0.08,
    "acknowledgement lost": 0.05,
    "slow": 0.02,
}
"""The probability of each fault at a place where it can happen, from 0 to 1."""

_USUAL_SECONDS = 0.002
_SLOW_SECONDS = 1.0


class Faults:
    """Decides at each place where a fault can happen whether it happens.

    Attributes:
        struck: The faults so far: the number of the place, and the fault.
        active: Whether faults happen at all.
    """

    def __init__(
        self, random: Random, *, withheld: Collection[int] = (), rate: float = 1.0
    ) -> None:
        """Begin without faults.

        Args:
            random: Decides whether a fault happens.
            withheld: The places where faults are suppressed.
            rate: The factor of all probabilities.
        """
        self._random = random
        self._withheld = withheld
        self._rate = rate
        self._places = 0
        self.struck: list[tuple[int, str]] = []
        self.active = True

    def strike(self, fault: str) -> bool:
        """Return whether a fault happens here."""
        self._places += 1
        strikes = self._random.random() < RATES[fault] * self._rate
        if not strikes or not self.active or self._places in self._withheld:
            return False
        self.struck.append((self._places, fault))
        return True

    def seconds(self) -> float:
        """Return how long a message travels."""
        if self.strike("slow"):
            return self._random.uniform(0, _SLOW_SECONDS)
        return self._random.expovariate(1 / _USUAL_SECONDS)

    def travel(self) -> "asyncio.Future[None]":
        """Return a future that completes when a message has arrived."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)  # noqa: S101 - for the type checker
        return loop.pause(self.seconds())
