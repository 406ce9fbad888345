"""Check everything that a run has recorded."""

from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

from credit_torture.cohort_check import Checked, Interval, check_cohort
from credit_torture.record import Line, lines

FAULTS_FILE = "faults.ndjson"


def recorded_faults(folder: Path) -> tuple[list[Line], list[Line]]:
    """Return the faults of a run that happened, and the attempts that had no effect."""
    path = folder / FAULTS_FILE
    recorded = list(lines(path)) if path.exists() else []
    attempts = [line for line in recorded if "did_not_happen" in line]
    return [line for line in recorded if "did_not_happen" not in line], attempts


def check_calls(folder: Path, *, jobs: int) -> Checked:
    """Check the calls and watches of all cohorts.

    Args:
        folder: The folder with the files of the run.
        jobs: How many processes check.
    """
    happened, _ = recorded_faults(folder)
    faults = [(fault["began"], fault["ended"]) for fault in happened]
    numbers = sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("cohort-*.ndjson"))
    total = Checked()
    if not numbers:
        total.findings.append("no call was recorded")
    with ProcessPoolExecutor(jobs) as pool:
        for checked in pool.map(partial(_check, folder, faults), numbers):
            total.add(checked)
    return total


def longest_silence_seconds(acknowledged: Collection[int], span: Interval) -> float:
    """Return the longest time without an acknowledged write.

    Args:
        acknowledged: When writes were acknowledged, in nanoseconds.
        span: The time that counts, in nanoseconds.
    """
    began, ended = span
    within = sorted(at for at in acknowledged if began < at < ended)
    return max(later - earlier for earlier, later in pairwise([began, *within, ended])) / 1e9


def _check(folder: Path, faults: Collection[Interval], number: int) -> Checked:
    return check_cohort(folder, number, faults)
