"""The overload: measures a server's goodput under ten times the load that it can serve."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median

from credit_testing.child import started

from credit_bench.sample import Sample
from credit_bench.workloads import System

# The numbers of callers among which the best goodput is searched; more callers only queue.
CALLERS = (64, 256, 512)
# The load of the flood, as a multiple of the best goodput.
TIMES = 10
# The minimum share of the best goodput that must remain under the flood.
GOAL = 0.9
# The time in which a server may detect an overload. The sample counts its goodput separately.
WARM_UP_SECONDS = 2.0
DEADLINE_SECONDS = 1.0

Generate = Callable[[Sequence[str]], Awaitable[Sample]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Overload:
    """A server at its best goodput, then under ten times that load, then at its best again.

    Attributes:
        system: The system.
        repetition: The number of the repetition, from 1.
        busy: Whether a busy loop ran on each core at the same time.
        searched: The samples of closed loops, by number of callers.
        flooded: The sample of an open loop with ten times the calls per second of the best one.
        again: The sample of a closed loop after the flood, with the callers of the best one.
    """

    system: System
    repetition: int
    busy: bool = False
    searched: Mapping[int, Sample]
    flooded: Sample
    again: Sample

    @property
    def callers(self) -> int:
        """Return the number of callers with the highest goodput in a closed loop."""
        return _best(self.searched)

    @property
    def best(self) -> float:
        """Return the best goodput in calls per second: the mean of before and after the flood.

        The speed of a shared machine varies, so the flood is compared with a measurement on either
        side of it.
        """
        before = self.searched[self.callers].operations_per_second
        return (before + self.again.operations_per_second) / 2

    @property
    def kept(self) -> float:
        """Return the share of the best goodput that remains under the flood, or 0 without any."""
        return self.flooded.operations_per_second / self.best if self.best else 0.0

    @property
    def kept_at_first(self) -> float:
        """Return the share of the best goodput that remains in the first seconds of the flood."""
        return self.flooded.warm_up_operations_per_second / self.best if self.best else 0.0

    @property
    def samples(self) -> list[Sample]:
        """Return all samples, for the audit."""
        return [*self.searched.values(), self.flooded, self.again]


async def measure(
    system: System,
    repetition: int,
    generate: Generate,
    *,
    seconds: float,
    warm_up_seconds: float = WARM_UP_SECONDS,
    callers: Sequence[int] = CALLERS,
    busy: bool = False,
) -> Overload:
    """Measure a server's best goodput, then a flood, then the best again.

    Args:
        system: The system.
        repetition: The number of the repetition.
        generate: Runs the load generator with the given arguments.
        seconds: The length of each measurement.
        warm_up_seconds: The time before it in which calls are made.
        callers: The numbers of callers among which the best goodput is searched.
        busy: Whether the caller runs a busy loop on each core.
    """

    async def closed(number: int, name: str) -> Sample:
        return await generate([*common, f"--callers={number}", f"--seed={repetition}/{name}"])

    common = [
        f"--seconds={seconds}",
        f"--warm-up-seconds={warm_up_seconds}",
        f"--deadline-seconds={DEADLINE_SECONDS}",
    ]
    searched = {number: await closed(number, f"{number}") for number in callers}
    best = _best(searched)
    rate = max(1.0, TIMES * searched[best].operations_per_second)
    return Overload(
        system=system,
        repetition=repetition,
        busy=busy,
        searched=searched,
        flooded=await generate([*common, f"--open-rate={rate}", f"--seed={repetition}/flood"]),
        again=await closed(best, "again"),
    )


@asynccontextmanager
async def busy_loops(count: int) -> AsyncIterator[None]:
    """Run processes that do nothing but use CPU."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(started(sys.executable, "-c", "while True: pass"))
        yield


def _best(searched: Mapping[int, Sample]) -> int:
    return max(searched, key=lambda callers: searched[callers].operations_per_second)


def kept_median(
    overloads: Sequence[Overload], system: System, *, busy: bool = False
) -> float | None:
    """Return the median share of goodput that remains, or None without a measurement."""
    shares = [
        overload.kept
        for overload in overloads
        if overload.system is system and overload.busy is busy
    ]
    return median(shares) if shares else None
