"""Print the results as a table."""

import os
import resource
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from credit_resilience.row import BYSTANDER_SECONDS_MAX, Cost, Row

_ENDED = "-"


def line(row: Row) -> str:
    """Return the line to print when an attack has ended."""
    return f"{row.attack.name}: {row.outcome.seen} ({row.seconds:.1f} s) {_verdict(row)}"


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table of all rows and the number of failed rows."""
    console.print(table(rows))
    failed = [row.attack.name for row in rows if row.failures]
    console.print(
        f"{len(failed)} of {len(rows)} rows fail: {', '.join(failed)}"
        if failed
        else f"{len(rows)} of {len(rows)} rows pass",
        highlight=False,
        markup=False,
    )


def table(rows: Sequence[Row]) -> Table:
    """Return the table of all rows."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    result = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption=(
            f"A row fails when the bystander waits longer than {BYSTANDER_SECONDS_MAX:g} s or is"
            f" not served, memory grows by more than allowed, or the"
            f" server does not react as required. {os.cpu_count()} cores; at most {files} files."
        ),
    )
    for name in ("attack", "required", "seen"):
        result.add_column(name, overflow="fold")
    for name in ("bystander ms\nrest/attacked", "CPU s", "MiB\nmore/allowed", "s"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("verdict", overflow="fold")
    for row in rows:
        result.add_row(
            row.attack.name,
            row.attack.required,
            row.outcome.seen,
            f"{row.at_rest.worst_seconds * 1000:.0f}/{row.attacked.worst_seconds * 1000:.0f}",
            _ENDED if row.cost is None else f"{row.cost.cpu_seconds:.2f}",
            _ENDED if row.cost is None else _growth(row, row.cost),
            f"{row.seconds:.1f}",
            _verdict(row),
        )
    return result


def _growth(row: Row, cost: Cost) -> str:
    return f"{cost.growth_bytes / 2**20:.1f}/{row.attack.growth_bytes_max >> 20}"


def _verdict(row: Row) -> str:
    return f"FAIL: {'; '.join(row.failures)}" if row.failures else "pass"
