"""The summary of a run: medians per cell and server, and how the servers compare."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from credit_bench.cell import Cell
from credit_bench.sample import Sample
from credit_bench.system import System


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A sample and where it belongs.

    Attributes:
        system: What was measured.
        cell: Under which load.
        repetition: The how-manieth time, from 1.
        sample: What was seen.
    """

    system: System
    cell: Cell
    repetition: int
    sample: Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The medians over the repetitions, for one server in one cell, and all errors."""

    operations_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """Our operations per second by the peer's, each repetition by itself.

    Attributes:
        median: Of the repetitions' ratios.
        least: The lowest of them.
        greatest: The highest of them.
    """

    median: float
    least: float
    greatest: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """All that is to be said about one cell. What was not measured is None."""

    cell: Cell
    ours: Figures | None
    peer: Figures | None
    ratio: Ratio | None


def summarise(measurements: Iterable[Measurement]) -> list[Row]:
    """Make a row for each cell, in the order in which the cells were measured first."""
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
    """Compare within each repetition, since the two were measured right after each other there."""
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
