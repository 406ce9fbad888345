"""The summary of a run: medians per cell and server, and the ratio of the servers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from credit_bench.cell import Cell
from credit_bench.sample import Sample
from credit_bench.system import System


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A sample with its system, cell and repetition.

    Attributes:
        system: The system that was measured.
        cell: The load.
        repetition: The number of the repetition, from 1.
        sample: The sample.
    """

    system: System
    cell: Cell
    repetition: int
    sample: Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The medians over the repetitions for one server in one cell, and the sum of errors."""

    operations_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """The ratio of our operations per second to the peer's, computed per repetition.

    Attributes:
        median: The median of the ratios.
        least: The lowest ratio.
        greatest: The highest ratio.
    """

    median: float
    least: float
    greatest: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """The figures of one cell; None for a system that was not measured."""

    cell: Cell
    ours: Figures | None
    peer: Figures | None
    ratio: Ratio | None


def summarise(measurements: Iterable[Measurement]) -> list[Row]:
    """Return a row for each cell, in the order of first measurement."""
    by_cell: dict[Cell, list[Measurement]] = {}
    for measurement in measurements:
        by_cell.setdefault(measurement.cell, []).append(measurement)
    return [
        Row(
            cell=cell,
            ours=_figures(measured, System.OURS),
            peer=_figures(measured, System.PEER),
            ratio=_ratio(measured),
        )
        for cell, measured in by_cell.items()
    ]


def _figures(measured: Sequence[Measurement], system: System) -> Figures | None:
    samples = [measurement.sample for measurement in measured if measurement.system is system]
    if not samples:
        return None
    return Figures(
        operations_per_second=median(sample.operations_per_second for sample in samples),
        p50_ms=_median(sample.p50_ms for sample in samples),
        p99_ms=_median(sample.p99_ms for sample in samples),
        errors=sum(sample.failed for sample in samples),
    )


def _median(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return median(present) if present else None


def _ratio(measured: Sequence[Measurement]) -> Ratio | None:
    """Compare within each repetition, where both servers ran in direct succession."""
    rates = {
        (measurement.system, measurement.repetition): measurement.sample.operations_per_second
        for measurement in measured
    }
    ratios = [
        rates[System.OURS, repetition] / rate
        for (system, repetition), rate in rates.items()
        if system is System.PEER and rate > 0 and (System.OURS, repetition) in rates
    ]
    if not ratios:
        return None
    return Ratio(median=median(ratios), least=min(ratios), greatest=max(ratios))
