"""The number of CPUs that this process may use."""

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cpus(*, cgroups: Path = _CGROUPS, own_cgroup: Path = _OWN_CGROUP) -> int:
    """Return how many CPUs this process may keep busy, at least 1.

    The affinity of the process limits it (`taskset`, `cpuset`), and so do the CPU quotas of its
    control group and of the groups above (`CPUQuota` of systemd, the limits of a container). A part
    of a CPU is not counted. Only version 2 of control groups is read.

    Args:
        cgroups: Where the control groups are mounted.
        own_cgroup: The file that names the control group of this process.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, int(min([allowed, *_quotas(cgroups, own_cgroup)])))


def _quotas(cgroups: Path, own_cgroup: Path) -> list[float]:
    """Return the quotas of the process's control group and its parents, in CPUs."""
    try:
        (path,) = [
            line.removeprefix("0::").lstrip("/")
            for line in own_cgroup.read_text().splitlines()
            if line.startswith("0::")
        ]
    except (OSError, ValueError):
        return []
    group = cgroups / path
    # Within a container the path may be that of the host, and the mounted root is its own group.
    folders = [group, *group.parents[: len(Path(path).parts)]] if path else [cgroups]
    return [quota for folder in folders if (quota := _quota(folder / "cpu.max")) is not None]


def _quota(file: Path) -> float | None:
    """Return the quota in a file `cpu.max`; None: there is no limit."""
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
