"""The command `credit-torture`."""

import argparse
import asyncio
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from credit_testing.child import ChildFailed
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from credit_torture.check import check_calls, recorded_faults
from credit_torture.faults import FAULTS
from credit_torture.log_check import log_findings
from credit_torture.nemesis import Pace
from credit_torture.report import OUTCOMES, Report, load
from credit_torture.run import JOURNAL, SERVERS, Plan, Run

# ruff: noqa: T201 - a command prints

_SECONDS = 300.0
_FOLDER = Path(".torture")
_INTERRUPTED = 130
_PROGRESS_SECONDS, _LOG_SECONDS = 1.0, 60.0
_FINDINGS_SHOWN = 20
_WIDTH_MIN = 160
"""The width of the tables if the terminal is narrower or its width is unknown."""
_PACE = Pace(hold_seconds=(0.5, 8.0), pause_seconds=4.0, writes=20, concurrent_max=2)


def main() -> None:
    """Run, check or print; exit with 1 if there is a finding, and with 130 after an interrupt."""
    sys.exit(_main(_parser().parse_args()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="credit-torture",
        description="Kill, stop and disconnect real servers and mongods under load, and check"
        " every answer against the histories.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run, check, and print the result")
    run.add_argument(
        "--seconds", type=float, default=None, help=f"duration of the faults (default {_SECONDS:g})"
    )
    run.add_argument("--faults", type=int, default=None, help="end after this many faults instead")
    run.add_argument("--seed", type=int, default=None, help="decides the faults and the calls")
    run.add_argument(
        "--rate", type=float, default=30.0, help="maximum operations per second (default 30)"
    )
    run.add_argument(
        "--kind",
        action="append",
        choices=list(FAULTS),
        help="cause only this fault; may be repeated",
    )
    run.add_argument(
        "--folder", type=Path, default=None, help="folder of the evidence (default .torture/SEED)"
    )
    run.add_argument("--json", action="store_true", help="print the report as JSON")
    check = commands.add_parser(
        "check",
        help="check the recorded calls, watches and logs of a run again, even if it did not finish",
    )
    check.add_argument("folder", type=Path, help="the folder of its evidence")
    table = commands.add_parser("table", help="print a report as Markdown")
    table.add_argument("report", type=Path, help="the report.json of a run")
    return parser


def _main(options: argparse.Namespace) -> int:
    if options.command == "table":
        print(load(options.report).markdown())
        return 0
    if options.command == "check":
        return _check(options.folder)
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    folder = options.folder or _FOLDER / str(seed)
    if folder.exists():
        print(f"{folder} exists: remove it, or name another --folder", file=sys.stderr)
        return 2
    plan = Plan(
        seed=seed,
        seconds=None if options.faults else options.seconds or _SECONDS,
        faults=options.faults,
        kinds=options.kind or list(FAULTS),
        pace=_PACE,
        rate=options.rate,
    )
    print(f"seed {seed}; the evidence is in {folder}", file=sys.stderr)
    try:
        report = asyncio.run(_until_terminated(Run(plan, folder)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    except ChildFailed as error:
        print(f"wrong: the run ended early: {error}", file=sys.stderr)
        _check(folder)
        return 1
    print(report.json()) if options.json else show(
        report, Console(emoji=False, width=max(_WIDTH_MIN, shutil.get_terminal_size().columns))
    )
    return 1 if report.findings else 0


def _check(folder: Path) -> int:
    journal = folder / JOURNAL
    if not journal.is_dir():
        print(f"{journal} is not a folder: name the folder of a run's evidence", file=sys.stderr)
        return 2
    checked = check_calls(journal, jobs=os.cpu_count() or 1)
    happened, _ = recorded_faults(journal)
    findings = [*log_findings(folder / SERVERS, happened), *checked.findings]
    for finding in findings:
        print(f"wrong: {finding}")
    print(
        f"{checked.calls.total():,} calls, {checked.entries:,} entries, {checked.reads:,} reads"
        f" and {checked.watched:,} events of watches checked; {checked.unchecked:,} rejections"
        f" not checked; {len(findings):,} findings"
    )
    return 1 if findings else 0


async def _until_terminated(run: Run) -> Report:
    task = asyncio.current_task()
    assert task is not None
    # A SIGTERM would otherwise end this process at once and leave its children behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    progress = asyncio.create_task(_show_progress(run))
    try:
        return await run.run()
    finally:
        progress.cancel()


async def _show_progress(run: Run) -> None:
    """Print a line that replaces itself at a terminal, or one line a minute elsewhere."""
    shown = sys.stderr.isatty()
    while True:
        line = (
            f"{run.phase}: {run.count()} faults, {run.acknowledged.total():,} acknowledged writes"
            + "".join(f"; without {fault}: {reason}" for fault, reason in run.left_out.items())
        )
        before, after = ("\r\x1b[K", "") if shown else ("", "\n")
        print(f"{before}{line}", end=after, file=sys.stderr, flush=True)
        await asyncio.sleep(_PROGRESS_SECONDS if shown else _LOG_SECONDS)


def show(report: Report, console: Console) -> None:
    """Print a report."""
    console.print(_table(("fault", "times"), [(name, str(n)) for name, n in report.faults.items()]))
    if report.did_not_happen:
        header = ("fault that did not happen at the first attempt", "reason", "times")
        console.print(_table(header, list(report.delays())))
    rows: list[Sequence[str]] = [
        (kind, *(str(outcomes.get(outcome, "")) for outcome in OUTCOMES))
        for kind, outcomes in report.calls.items()
    ]
    console.print(_table(("call", *OUTCOMES), rows))
    results = [(name.strip("*"), value.strip("*")) for name, value in report.results()]
    console.print(_table((f"seed {report.seed}", ""), results))
    for finding in report.findings[:_FINDINGS_SHOWN]:
        console.print(f"wrong: {finding[:2000]}", style="red", markup=False, highlight=False)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table()
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


if __name__ == "__main__":
    main()
