"""Read what a process uses, and its connections, from Linux's /proc."""

import os
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_ESTABLISHED = "01"  # proc(5): the state of a socket in /proc/net/tcp


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in user and kernel mode."""
    # proc(5): after the name, which may hold any character, utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds."""
    return _status(pid, "VmRSS")


def reset_peak(pid: int) -> None:
    """Reset the peak memory of a process."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM


def peak_bytes(pid: int) -> int:
    """Return the peak memory of a process since `reset_peak`."""
    return _status(pid, "VmHWM")


def established_ports(port: int) -> set[int]:
    """Return the source ports of a server's established connections.

    Args:
        port: The server's port on loopback.
    """
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
            found.add(int(remote.rpartition(":")[2], 16))
    return found


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise LookupError(f"process {pid} has no {name}")
