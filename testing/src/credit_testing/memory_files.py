"""Keep the files of tests in memory: the tests of the store take a tenth less CPU time."""

import os
from pathlib import Path

_FOLDER = Path("/dev/shm")  # Linux's file system in memory
# Each mongod takes 300 MB, and a parallel run has up to 15 at once.
_FREE_BYTES = 8 * 10**9
_MEMORY_BYTES = 16 * 10**9


def folder_in_memory() -> Path | None:
    """Return a folder in memory; None if there is too little memory, or programs cannot run there.

    Tests write programs and run them.
    """
    try:
        files = os.statvfs(_FOLDER)
    except OSError:
        return None
    free = files.f_bavail * files.f_frsize
    fits = free >= _FREE_BYTES and _available_bytes() >= _MEMORY_BYTES
    return _FOLDER if fits and not files.f_flag & os.ST_NOEXEC else None


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return 1024 * int(value.split()[0])
    return 0
