"""CPU time of processes, from /proc.

Operations per second mean little on a machine that also runs other programs. The CPU time of an
operation means more: it hardly depends on how often a process has to wait for its turn.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from credit_testing.child import descendants

# The name of the process that generates the load, in a sample.
LOAD = "load"

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of processes and their descendants; 0 for those that have ended."""
    return sum(_own(pid) + sum(map(_own, descendants(pid))) for pid in pids)


def _own(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # proc_pid_stat(5): the name, in parentheses, may contain spaces. Fields 14 and 15 are the time
    # in user and in kernel mode.
    fields = status.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


class CpuMeter:
    """Measures the CPU time that this process and others use between two moments.

    Args:
        watched: The process ids by the name that the sample shows.
    """

    def __init__(self, watched: Mapping[str, Sequence[int]]) -> None:
        self._watched = watched
        self._before = self._read()

    def milliseconds_per(self, operations: int) -> dict[str, float]:
        """Return the CPU time in milliseconds per operation since the start, by name."""
        if not operations:
            return {}
        now = self._read()
        return {
            name: (seconds - self._before[name]) * 1000 / operations
            for name, seconds in now.items()
        }

    def _read(self) -> dict[str, float]:
        seconds = {name: cpu_seconds(pids) for name, pids in self._watched.items()}
        return {**seconds, LOAD: time.process_time()}


def watched(texts: Iterable[str]) -> dict[str, list[int]]:
    """Return the process ids by name from texts such as `server=12,13`."""
    pids = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        pids[name] = [int(number) for number in numbers.split(",")]
    return pids
