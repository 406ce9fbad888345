"""The overload: ten times the load that a server can serve, and what is left of its best."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
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
    """A server at its best, right afterwards under ten times as much, and at its best again.

    Attributes:
        system: Which one.
        repetition: The how-manieth time, from 1.
        searched: Samples of closed loops, by their number of callers.
        flooded: What became of ten times as many calls per second as in the best of them, in an
            open loop.
        again: A closed loop with as many callers as the best had, after the flood.
    """

    system: System
    repetition: int
    searched: Mapping[int, Sample]
    flooded: Sample
    again: Sample

    @property
    def callers(self) -> int:
        """With how many callers the goodput of a closed loop was the highest."""
        return _best(self.searched)

    @property
    def best(self) -> float:
        """The best goodput, in calls per second: the mean of before and after the flood.

        A shared machine gives more at one time than at another; what lies between two measurements
        is compared with both.
        """
        before = self.searched[self.callers].operations_per_second
        return (before + self.again.operations_per_second) / 2

    @property
    def kept(self) -> float:
        """The share of the best goodput that is left in the flood; 0 where there was none."""
        return self.flooded.operations_per_second / self.best if self.best else 0.0

    @property
    def samples(self) -> list[Sample]:
        """Everything that was sent, for the audit."""
        return [*self.searched.values(), self.flooded, self.again]


async def measure(
    system: System,
    repetition: int,
    generate: Generate,
    *,
    seconds: float,
    warm_up_seconds: float = WARM_UP_SECONDS,
    callers: Sequence[int] = CALLERS,
) -> Overload:
    """Find a server's best, flood it, and look at its best again.

    Args:
        system: Which one.
        repetition: The how-manieth time.
        generate: Runs the load generator with arguments.
        seconds: The length of each measurement.
        warm_up_seconds: How long calls are made before it.
        callers: Among which numbers of callers its best is looked for.
    """

    async def closed(number: int, name: str) -> Sample:
        return await generate([*common, f"--callers={number}", f"--seed={repetition}/{name}"])

    common = [f"--seconds={seconds}", f"--warm-up-seconds={warm_up_seconds}", "--goodput"]
    searched = {number: await closed(number, f"{number}") for number in callers}
    best = _best(searched)
    rate = max(1.0, TIMES * searched[best].operations_per_second)
    return Overload(
        system=system,
        repetition=repetition,
        searched=searched,
        flooded=await generate([*common, f"--open-rate={rate}", f"--seed={repetition}/flood"]),
        again=await closed(best, "again"),
    )


def _best(searched: Mapping[int, Sample]) -> int:
    return max(searched, key=lambda callers: searched[callers].operations_per_second)


def kept_median(overloads: Sequence[Overload], system: System) -> float | None:
    """Return the median share that a server keeps, or None where it was not measured."""
    shares = [overload.kept for overload in overloads if overload.system is system]
    return median(shares) if shares else None
