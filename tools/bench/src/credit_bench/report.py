"""The report: tables and sentences for people, and a JSON document for programs."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from credit_bench.audit import Audit
from credit_bench.options import Options
from credit_bench.overload import GOAL, TIMES, Overload, kept_median
from credit_bench.run import Result
from credit_bench.summary import Figures, Ratio, Row
from credit_bench.system import System

_ABSENT = "-"


def table(rows: Sequence[Row], options: Options) -> Table:
    """Return the table of all cells."""
    rendered = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption=(
            f"Medians of {options.repetitions} x {options.seconds:g} s; {options.users} users;"
            f" {os.cpu_count()} cores; seed {options.seed}"
        ),
    )
    rendered.add_column("\nusers")
    rendered.add_column("\ncallers", justify="right", no_wrap=True)
    for system in System:
        rendered.add_column(f"{system}\nop/s", justify="right")
        rendered.add_column("\np50/p99 ms", justify="right", no_wrap=True)
    rendered.add_column("ours/peer\n(least..greatest)", justify="right", no_wrap=True)
    for row in rows:
        rendered.add_row(
            row.cell.users,
            str(row.cell.callers),
            *_figures(row.ours),
            *_figures(row.peer),
            _ratio(row.ratio),
        )
    return rendered


def overload_table(overloads: Sequence[Overload]) -> Table:
    """Return the table of each server's goodput under an overload."""
    rendered = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption="Goodput: calls per second that succeed within one second of their arrival",
    )
    for column in ("server", "at best", "callers", f"at {TIMES}x", "kept", "p50/p99 ms"):
        rendered.add_column(column, justify="left" if column == "server" else "right", no_wrap=True)
    rendered.add_column("other calls")
    for overload in overloads:
        flooded = overload.flooded
        rendered.add_row(
            overload.system,
            f"{overload.best:.0f}",
            str(overload.callers),
            f"{flooded.operations_per_second:.0f}",
            f"{overload.kept:.0%}",
            f"{_milliseconds(flooded.p50_ms)}/{_milliseconds(flooded.p99_ms)}",
            ", ".join(f"{name} {count}" for name, count in sorted(flooded.errors.items())),
        )
    return rendered


def verdicts(result: Result) -> list[str]:
    """Return the results of the audits as sentences, and warn if the figures are unusable."""
    sentences = [_verdict(system, audit) for system, audit in result.audits.items()]
    if not result.clean:
        sentences.append("NOT CLEAN: a call or an audit failed; do not quote these figures.")
    sentences.extend(_kept(result.overloads, system) for system in System)
    shares = [measurement.sample.generator_cpu_share for measurement in result.measurements]
    shares += [overload.flooded.generator_cpu_share for overload in result.overloads]
    sentences.append(f"The load generator used {max(shares, default=0):.0%} of a core at most.")
    return [sentence for sentence in sentences if sentence]


def _kept(overloads: Sequence[Overload], system: System) -> str:
    kept = kept_median(overloads, system)
    if kept is None:
        return ""
    return (
        f"{system}: under {TIMES} times the load {kept:.0%} of the best goodput remains"
        f" (goal {GOAL:.0%})."
    )


def document(result: Result, rows: Sequence[Row], options: Options) -> str:
    """Return all measurements as JSON."""
    content: Mapping[str, Any] = {  # JSON
        "options": asdict(
            replace(options, mongodb_uri=None)  # it may contain a password
        ),
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "clean": result.clean,
        "rows": [asdict(row) for row in rows],
        "measurements": [asdict(measurement) for measurement in result.measurements],
        "overloads": [
            {**asdict(overload), "best": overload.best, "kept": overload.kept}
            for overload in result.overloads
        ],
        "audits": {
            system: {**asdict(audit), "passed": audit.passed}
            for system, audit in result.audits.items()
        },
    }
    return json.dumps(content, indent=2, default=str) + "\n"


def show(result: Result, rows: Sequence[Row], options: Options, console: Console) -> None:
    """Print the tables and the results of the audits."""
    if rows:
        console.print(table(rows, options))
    if result.overloads:
        console.print(overload_table(result.overloads))
    for sentence in verdicts(result):
        console.print(sentence, highlight=False)


def _verdict(system: System, audit: Audit) -> str:
    if audit.passed:
        finding = "every balance is the sum of its history, and nothing acknowledged is lost"
    else:
        finding = f"AUDIT FAILED: {'; '.join(audit.findings) or 'a write is lost or there twice'}"
    return (
        f"{system}: {finding} ({audit.transactions} transactions, {audit.purchases} purchases,"
        f" {audit.acknowledged} acknowledged, {audit.failed} failed)."
    )


def _figures(figures: Figures | None) -> tuple[str, str]:
    if figures is None:
        return _ABSENT, _ABSENT
    rate = f"{figures.operations_per_second:.0f}"
    if figures.errors:
        rate += f" ({figures.errors} errors)"
    return rate, f"{_milliseconds(figures.p50_ms)}/{_milliseconds(figures.p99_ms)}"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return _ABSENT
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return _ABSENT
    return f"{_times(ratio.median)} ({_times(ratio.least)}..{_times(ratio.greatest)})"


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
