"""The summary of results: medians with their spread, and ratios."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Self

from credit_bench.cpu import LOAD
from credit_bench.results import Measurement
from credit_bench.sample import Sample
from credit_bench.workloads import STATEMENT_ROWS, System, Workload

# The name of the measured server in the CPU times of a sample.
SERVER = "server"
MONGOD = "mongod"

# The time that a statement may take in addition to the time of a list with as many rows.
_STATEMENT_MS = 50.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """The median over the repetitions, with the lowest and the highest value."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self | None:
        """Return the spread of the values that are not None; None without any."""
        present = [value for value in values if value is not None]
        if not present:
            return None
        return cls(median=median(present), least=min(present), greatest=max(present))


class Measure(StrEnum):
    """A figure of a sample."""

    RATE = "operations per second"
    SERVER_CPU = "CPU of the server per operation, ms"
    MONGOD_CPU = "CPU of mongod per operation, ms"
    LOAD_CPU = "CPU of the load per operation, ms"
    CPU = "CPU of the server and mongod per operation, ms"
    P50 = "median latency, ms"
    P99 = "99th percentile of the latency, ms"
    STATEMENT_LIMIT = "50 ms and the time of a list for the rows of a statement, ms"

    def of(self, sample: Sample) -> float | None:
        """Return the figure; None if the sample does not have it."""
        figures: dict[Measure, Callable[[], float | None]] = {
            Measure.RATE: lambda: sample.operations_per_second,
            Measure.SERVER_CPU: lambda: sample.cpu_ms.get(SERVER),
            Measure.MONGOD_CPU: lambda: sample.cpu_ms.get(MONGOD),
            Measure.LOAD_CPU: lambda: sample.cpu_ms.get(LOAD),
            Measure.CPU: lambda: _cpu(sample),
            Measure.P50: lambda: sample.p50_ms,
            Measure.P99: lambda: sample.p99_ms,
            Measure.STATEMENT_LIMIT: lambda: _statement_limit_ms(sample),
        }
        return figures[self]()


def _cpu(sample: Sample) -> float | None:
    """Return the CPU time of mongod and the server; without a server, of mongod and the load."""
    if MONGOD not in sample.cpu_ms:
        return None
    return sample.cpu_ms[MONGOD] + sample.cpu_ms.get(SERVER, sample.cpu_ms[LOAD])


def _statement_limit_ms(listed: Sample) -> float | None:
    """Return how long a statement may take, from the sample of a list."""
    if not listed.operations_per_second:
        return None
    return _STATEMENT_MS + 1000 * STATEMENT_ROWS / listed.operations_per_second


Cell = tuple[Workload, System]


class Summary:
    """Finds figures in measurements."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._samples: dict[tuple[str, System], dict[int, Sample]] = {}
        for measurement in measurements:
            cell = self._samples.setdefault((measurement.workload, measurement.system), {})
            cell[measurement.repetition] = measurement.sample

    def spread(self, cell: Cell, measure: Measure) -> Spread | None:
        """Return a figure over the repetitions; None if the cell was not measured."""
        return Spread.of(map(measure.of, self._of(cell).values()))

    def errors(self, cell: Cell) -> int:
        """Return the number of failed operations."""
        return sum(sample.failed for sample in self._of(cell).values())

    def ratio(
        self, ours: Cell, other: Cell, measure: Measure, against: Measure | None = None
    ) -> Spread | None:
        """Return the ratio of two cells, computed within each repetition.

        In a repetition, the systems run in direct succession, so a disturbance affects both.

        Args:
            ours: The numerator.
            other: The denominator.
            measure: The figure that is compared.
            against: The figure of the denominator; None: the same.
        """
        others = self._of(other)
        ratios = []
        for repetition, sample in self._of(ours).items():
            if repetition in others:
                value = measure.of(sample)
                base = (against or measure).of(others[repetition])
                ratios.append(value / base if value is not None and base else None)
        return Spread.of(ratios)

    def _of(self, cell: Cell) -> dict[int, Sample]:
        workload, system = cell
        return self._samples.get((workload.name, system), {})
