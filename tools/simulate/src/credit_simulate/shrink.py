"""Look for fewer steps and fewer faults that still show a failure (delta debugging)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from credit_simulate.plan import Step
from credit_simulate.run import Run, run

_Item = TypeVar("_Item")

_TRIES_MAX = 100


class Shrinker:
    """Runs smaller and smaller simulations of one seed.

    Attributes:
        tries: How many simulations it has run.
    """

    def __init__(self, failed: Run) -> None:
        """Begin with a run that has findings."""
        self.tries = 0
        self._best = failed
        self._withheld: Sequence[int] = ()

    def shrink(self) -> Run:
        """Return the smallest run found that has findings."""
        self._reduce(self._best.steps, lambda steps: (steps, self._withheld))
        places = [place for place, _ in self._best.struck]
        needed = self._reduce(
            places, lambda kept: (self._best.steps, sorted(set(places) - set(kept)))
        )
        self._withheld = sorted(set(places) - set(needed))
        self._reduce(self._best.steps, lambda steps: (steps, self._withheld))
        return self._best

    def _reduce(
        self,
        items: Sequence[_Item],
        arguments: Callable[[Sequence[_Item]], tuple[Sequence[Step], Sequence[int]]],
    ) -> Sequence[_Item]:
        """Drop as many items as possible; first halves, then smaller and smaller parts."""
        size = len(items) // 2
        while size:
            start = 0
            while start < len(items):
                fewer = [*items[:start], *items[start + size :]]
                if self._fails(*arguments(fewer)):
                    items = fewer
                else:
                    start += size
            size //= 2
        return items

    def _fails(self, steps: Sequence[Step], withheld: Sequence[int]) -> bool:
        if self.tries == _TRIES_MAX:
            return False
        self.tries += 1
        smaller = run(self._best.seed, steps, withheld=withheld)
        if smaller.findings:
            self._best = smaller
        return bool(smaller.findings)
