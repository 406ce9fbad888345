"""Define a row of the table: the effect of an attack on server and bystander, and the verdict."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from credit_resilience.attack import Attack, Outcome
from credit_resilience.bystander import Experience

BYSTANDER_SECONDS_MAX = 0.5
"""The longest wait allowed for a well-behaved caller while others attack."""

_REFUSED = "Overloaded"
"""The SDK's error for a request that the server rejects because of load."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The resources that the server used during an attack.

    Attributes:
        cpu_seconds: Processor time, the bystander's calls included.
        growth_bytes: The largest growth of its memory.
    """

    cpu_seconds: float
    growth_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """The result of one attack.

    Attributes:
        attack: The attack.
        outcome: The result that the attacker observed.
        seconds: The duration of the attack.
        at_rest: The bystander's results before the attack.
        attacked: The bystander's results during the attack.
        cost: The resources that the server used; None if the server has ended.
    """

    attack: Attack
    outcome: Outcome
    seconds: float
    at_rest: Experience
    attacked: Experience
    cost: Cost | None

    @property
    def failures(self) -> Sequence[str]:
        """Return descriptions of what was not as required; empty if the row passes."""
        found = [] if self.outcome.held else ["not what is required"]
        if not self.attack.ends_server:
            found += self._bystander_failures()
        if self.cost is not None and self.cost.growth_bytes > self.attack.growth_bytes_max:
            found.append("memory")
        return found

    def _bystander_failures(self) -> list[str]:
        found = []
        counts = Counter(self.attacked.failed)
        if self.attack.exhausts:
            del counts[_REFUSED]
        if counts:
            found.append("bystander: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
        if not self.attack.exhausts and self.attacked.worst_seconds > BYSTANDER_SECONDS_MAX:
            found.append("bystander waited")
        if self.cost is None:
            found.append("the server has ended")
        return found
