"""The overload: ten times the load that a server can serve, and what is left of its best."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median

from credit_bench.sample import Sample
from credit_bench.system import System

CALLERS = (64, 256, 512)
"""Among these a server's best is looked for; with more it only queues."""
TIMES = 10
GOAL = 0.9
"""The share of the best that must be left."""
WARM_UP_SECONDS = 2.0
"""Above that of the cells: a server takes a moment to learn that it is overloaded."""

Generate = Callable[[Sequence[str]], Awaitable[Sample]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Overload:
    """A server at its best, and right afterwards under ten times as much.

    Attributes:
        system: Which one.
        repetition: The how-manieth time, from 1.
        best: The sample with the highest goodput of a closed loop.
        callers: How many callers it had.
        flooded: What became of ten times as many calls per second, in an open loop.
        searched: All samples of the search, the best included.
    """

    system: System
    repetition: int
    best: Sample
    callers: int
    flooded: Sample
    searched: Sequence[Sample]

    @property
    def kept(self) -> float:
        """The share of the best goodput that is left; 0 where there was none."""
        best = self.best.operations_per_second
        return self.flooded.operations_per_second / best if best else 0.0

    @property
    def samples(self) -> list[Sample]:
        """Everything that was sent, for the audit."""
        return [*self.searched, self.flooded]


async def measure(
    system: System, repetition: int, generate: Generate, *, seconds: float
) -> Overload:
    """Find a server's best, and flood it.

    Args:
        system: Which one.
        repetition: The how-manieth time.
        generate: Runs the load generator with arguments.
        seconds: The length of each measurement.
    """
    common = [f"--seconds={seconds}", f"--warm-up-seconds={WARM_UP_SECONDS}", "--goodput"]
    found = {
        callers: await generate([*common, f"--callers={callers}", f"--seed={repetition}/{callers}"])
        for callers in CALLERS
    }
    callers = max(found, key=lambda number: found[number].operations_per_second)
    rate = max(1.0, TIMES * found[callers].operations_per_second)
    return Overload(
        system=system,
        repetition=repetition,
        best=found[callers],
        callers=callers,
        flooded=await generate([*common, f"--open-rate={rate}", f"--seed={repetition}/flood"]),
        searched=list(found.values()),
    )


def kept_median(overloads: Sequence[Overload], system: System) -> float | None:
    """Return the median share that a server keeps, or None where it was not measured."""
    shares = [overload.kept for overload in overloads if overload.system is system]
    return median(shares) if shares else None
