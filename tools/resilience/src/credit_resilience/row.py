"""A row of the table: what an attack did to the server and to its bystander, and the verdict."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from credit_resilience.attack import Attack, Outcome
from credit_resilience.bystander import Experience

BYSTANDER_SECONDS_MAX = 0.5
"""How long a well-behaved caller may have to wait while others attack."""

_REFUSED = "Overloaded"
"""How the SDK names what the server refuses for the load."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What an attack cost the server.

    Attributes:
        cpu_seconds: Processor time, the bystander's calls included.
        growth_bytes: By how much memory grew at the most.
    """

    cpu_seconds: float
    growth_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What one attack came to.

    Attributes:
        attack: Which.
        outcome: What the attacker saw.
        seconds: How long it took.
        at_rest: The bystander's experience before it.
        attacked: That while it was under way.
        cost: What the server spent; None when it has ended.
    """

    attack: Attack
    outcome: Outcome
    seconds: float
    at_rest: Experience
    attacked: Experience
    cost: Cost | None

    @property
    def failures(self) -> Sequence[str]:
        """What was not as required, in words; empty when all was."""
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
