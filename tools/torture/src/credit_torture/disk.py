"""A disk of limited size for one mongod, which can be filled."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MEGABYTES = 1024
_BLOCK_BYTES = 4096


class Disk:
    """A file system in memory, mounted on the data folder of a mongod. Only root can mount it.

    Attributes:
        mounted: Whether the file system is mounted. Otherwise it cannot be filled.
    """

    def __init__(self, folder: Path) -> None:
        """Mount the file system.

        Args:
            folder: The data folder, which need not exist.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        options = f"size={_MEGABYTES}m"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        self.mounted = _succeeds(command)

    def fill(self) -> None:
        """Take all space that is left."""
        with self._filler.open("ab", buffering=0) as file:
            free = os.statvfs(self._folder).f_bavail * os.statvfs(self._folder).f_frsize
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, free)
            with suppress(OSError):
                while True:
                    file.write(bytes(_BLOCK_BYTES))

    def free(self) -> None:
        """Free the space."""
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self._folder / "filler"

    def unmount(self) -> None:
        """Unmount the file system, which removes its data."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self._folder)], check=False)  # noqa: S603, S607
            self.mounted = False


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Provide a disk for the duration of the context."""
    disk = Disk(folder)
    try:
        yield disk
    finally:
        disk.unmount()


def _succeeds(command: list[str]) -> bool:
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603
    return False
