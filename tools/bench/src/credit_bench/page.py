"""The page of the documentation: writes tables and charts of the results between its markers.

A marker is `<!-- figures: NAME -->`, and the figures end at the next `<!-- end -->`. NAME is a
group, `bars` or `runs`. All other text of the page is written by people, and stays as it is.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from credit_bench.bars import BARS, KEPT_GOAL, KEPT_GOAL_BUSY
from credit_bench.chart import Series, bar_chart, line_chart
from credit_bench.overload import Overload, kept_median
from credit_bench.results import Result
from credit_bench.summary import Measure, Spread, Summary
from credit_bench.workloads import GROUPS, OVERLOAD, WORKLOADS, System, Workload, counted

_BLOCK = re.compile(r"(?<=<!-- figures: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
_ABSENT = "-"

# The axis of a group's line chart; the others have bars with the CPU time of the server.
_AXES: Mapping[str, str] = {
    "writes": "callers",
    "reads": "callers",
    "batches": "operations of a call",
    "lists": "rows of a list",
    "users": "users",
    "histories": "transactions of the user",
}
# The groups with a chart.
_TITLES: Mapping[str, str] = {
    "writes": "Writes",
    "reads": "Reads",
    "batches": "Batches",
    "lists": "Lists, in rows",
    "users": "Size of the database",
    "histories": "Length of a history",
    "engines": "CPU of a write",
    "grants": "CPU of a write, by the grants of the user",
    "calls": "CPU of a trivial call",
    "clients": "CPU of a call through a client library",
}


class UnknownFigures(Exception):
    """A marker of the page names figures that the benchmark does not have."""


def filled(page: str, results: Mapping[str, Result], charts: Path) -> str:
    """Return a page with new figures between its markers.

    Args:
        page: The text of the page.
        results: The results by group.
        charts: The folder of the charts, relative to the page.

    Raises:
        UnknownFigures: A marker names no group.
    """

    def block(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "bars":
            text = bars(results)
        elif name == "runs":
            text = runs(results.values())
        elif name in results:
            text = figures(results[name], charts)
        elif name in (*GROUPS, OVERLOAD):
            text = "Not measured.\n"
        else:
            raise UnknownFigures(f"there are no figures for the marker 'figures: {name}'")
        return f"{name}{match.group(2)}\n{text}\n"

    return _BLOCK.sub(block, page)


def figures(result: Result, charts: Path) -> str:
    """Return the table of a group, its chart, and notes on what was not measured."""
    parts = [overload_table(result.overloads) if result.group == OVERLOAD else table(result)]
    if result.group in _TITLES:
        parts.insert(0, f"![{_TITLES[result.group]}]({(charts / result.group).as_posix()}.svg)\n")
    notes = [f"Not measured: {system} ({reason})." for system, reason in _missing(result)]
    notes += [
        f"NOT CLEAN: {measurement.workload}, {measurement.system}: {_counts(failed)}."
        for measurement in result.measurements
        if (failed := measurement.failures)
    ]
    notes += [
        f"NOT CLEAN: the audit of {name} failed:"
        f" {'; '.join(audit.findings) or 'a write is lost or there twice'}."
        for name, audit in result.audits.items()
        if not audit.passed
    ]
    return "\n".join(parts) + "".join(f"\n{note}\n" for note in notes)


def _missing(result: Result) -> Iterator[tuple[System, str]]:
    for system, reason in result.unavailable.items():
        yield system, reason.partition("\n")[0]


def table(result: Result) -> str:
    """Return the figures of a group: a row for each workload and system."""
    summary = Summary(result.measurements)
    lines = [
        _row("load", "system", "op/s (lowest..highest)", "p50 / p99, ms", "CPU per operation, ms:"
             " server", "mongod", "load", "ours ÷ this one (lowest..highest)"),
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for workload in workloads(result):
        for system in workload.systems:
            cell = (workload, system)
            rate = summary.spread(cell, Measure.RATE)
            if rate is None:
                continue
            errors = summary.errors(cell)
            first = workload.systems[0]
            ratio = summary.ratio((workload, first), cell, Measure.RATE)
            lines.append(
                _row(
                    workload.title,
                    system,
                    _spread(rate) + (f", {errors:,} failed or rejected" if errors else ""),
                    f"{_median(summary.spread(cell, Measure.P50))}"
                    f" / {_median(summary.spread(cell, Measure.P99))}",
                    _median(summary.spread(cell, Measure.SERVER_CPU)),
                    _median(summary.spread(cell, Measure.MONGOD_CPU)),
                    _median(summary.spread(cell, Measure.LOAD_CPU)),
                    _ABSENT if system is first else _spread(ratio),
                )
            )
    return "\n".join(lines) + "\n"


def overload_table(overloads: Sequence[Overload]) -> str:
    """Return the goodput of each server under ten times the load."""
    lines = [
        _row("server", "beside", "best, op/s", "under the load, op/s", "kept", "median", "kept in"
             " the first two seconds", "p99, ms", "calls that failed"),
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for system, busy in dict.fromkeys((entry.system, entry.busy) for entry in overloads):
        chosen = [entry for entry in overloads if (entry.system, entry.busy) == (system, busy)]
        errors: dict[str, int] = {}
        for entry in chosen:
            for name, count in entry.flooded.errors.items():
                errors[name] = errors.get(name, 0) + count
        lines.append(
            _row(
                system,
                "a busy loop on each core" if busy else "no busy loop",
                _list(f"{entry.best:.0f}" for entry in chosen),
                _list(f"{entry.flooded.operations_per_second:.0f}" for entry in chosen),
                _list(f"{entry.kept:.0%}" for entry in chosen),
                f"{kept_median(chosen, system, busy=busy):.0%}",
                _list(f"{entry.kept_at_first:.0%}" for entry in chosen),
                _list(_number(entry.flooded.p99_ms) for entry in chosen),
                _counts(errors),
            )
        )
    return "\n".join(lines) + "\n"


def bars(results: Mapping[str, Result]) -> str:
    """Return the table of the bars, reached and missed."""
    summary = Summary(
        measurement for result in results.values() for measurement in result.measurements
    )
    lines = [
        _row("what", "bar", "median (lowest..highest)", "reached", "by CPU alone"),
        "|---|---|---|---|---|",
    ]
    for bar in BARS:
        ratio = bar.ratio(summary)
        reached = _ABSENT if ratio is None else "yes" if bar.reached(ratio) else "no"
        value = "not measured" if ratio is None else _spread(ratio)
        by_cpu = _spread(bar.by_cpu(summary))
        lines.append(_row(bar.text, bar.condition, value, reached, by_cpu))
    overloads = results[OVERLOAD].overloads if OVERLOAD in results else ()
    for busy, goal in ((False, KEPT_GOAL), (True, KEPT_GOAL_BUSY)):
        kept = kept_median(overloads, System.OURS, busy=busy)
        beside = " beside a busy loop on each core" if busy else ""
        lines.append(
            _row(
                f"kept under ten times the load{beside}",
                f"≥ {goal:.0%}",
                "not measured" if kept is None else f"{kept:.0%}",
                _ABSENT if kept is None else "yes" if kept >= goal else "no",
                _ABSENT,
            )
        )
    return "\n".join(lines) + "\n"


def runs(results: Iterable[Result]) -> str:
    """Return when and on what machine each group was measured."""
    lines = [
        _row("group", "began at (UTC)", "commit", "cores", "load average", "versions"),
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        facts = dict(result.facts)
        shown = [str(facts.pop(name)) for name in ("began_at", "commit", "cores")]
        loads = [str(facts.pop(f"load_average_at_{moment}")) for moment in ("start", "end")]
        versions = ", ".join(f"{name} {value}" for name, value in facts.items())
        lines.append(_row(result.group, *shown, " to ".join(loads), versions))
    return "\n".join(lines) + "\n"


def chart(result: Result) -> str | None:
    """Return the chart of a group as SVG; None without figures, or if the group has no chart."""
    if result.group not in _TITLES:
        return None
    summary = Summary(result.measurements)
    if result.group not in _AXES:
        shown = [
            (_bar_label(workload, system), spread)
            for workload in workloads(result)
            for system in workload.systems
            if (spread := summary.spread((workload, system), Measure.SERVER_CPU)) is not None
        ]
        return bar_chart(_TITLES[result.group], Measure.SERVER_CPU, shown) if shown else None
    lines: dict[str, list[tuple[float, Spread]]] = {}
    for workload in workloads(result):
        for system in workload.systems:
            spread = summary.spread((workload, system), Measure.RATE)
            if spread is not None:
                name = _series(workload, system)
                lines.setdefault(name, []).append((_x(workload), spread))
    if not lines:
        return None
    return line_chart(
        _TITLES[result.group],
        _AXES[result.group],
        Measure.RATE,
        [Series(name=name, points=sorted(points, key=_first)) for name, points in lines.items()],
    )


def workloads(result: Result) -> list[Workload]:
    """Return the workloads of a result."""
    return [workload for workload in WORKLOADS if workload.group == result.group]


def _bar_label(workload: Workload, system: System) -> str:
    label = f"{system}, {counted(workload.callers, 'caller')}"
    grants = workload.ledger.grants
    return f"{label}, {counted(grants, 'grant')}" if grants else label


def _series(workload: Workload, system: System) -> str:
    kinds = {other.operation for other in WORKLOADS if other.group == workload.group}
    users = {other.users for other in WORKLOADS if other.group == workload.group}
    return ", ".join(
        [
            str(system),
            *([f"{workload.operation}s"] if len(kinds) > 1 else []),
            *([str(workload.users)] if len(users) > 1 else []),
        ]
    )


def _x(workload: Workload) -> float:
    return {
        "callers": workload.callers,
        "operations of a call": workload.batch,
        "rows of a list": workload.ledger.history,
        "users": workload.ledger.users,
        "transactions of the user": workload.ledger.history,
    }[_AXES[workload.group]]


def _first(point: tuple[float, Spread]) -> float:
    return point[0]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _list(texts: Iterator[str]) -> str:
    return ", ".join(texts) or _ABSENT


def _counts(errors: Mapping[str, int]) -> str:
    return _list(f"{name} {count:,}" for name, count in sorted(errors.items()))


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return _ABSENT
    return f"{_number(spread.median)} ({_number(spread.least)}..{_number(spread.greatest)})"


def _median(spread: Spread | None) -> str:
    return _ABSENT if spread is None else _number(spread.median)


def _number(value: float | None) -> str:
    if value is None:
        return _ABSENT
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
