"""A disk of limited size for one mongod, which can be filled."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MEGABYTES = 1024
_BLOCK_BYTES = 4096


class NotMounted(Exception):
    """The file system cannot be mounted; the message is the reason."""


class Disk:
    """A file system in memory, mounted on the data folder of a mongod. Only root can mount it."""

    def __init__(self, folder: Path) -> None:
        """Mount the file system.

        Args:
            folder: The data folder, which need not exist.

        Raises:
            NotMounted: It cannot be mounted.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        options = f"size={_MEGABYTES}m"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        except OSError as error:
            raise NotMounted(str(error)) from error
        if ended.returncode != 0:
            raise NotMounted(ended.stderr.strip())

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
        subprocess.run(["umount", "--lazy", str(self._folder)], check=False)  # noqa: S603, S607


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Provide a disk for the duration of the context.

    Raises:
        NotMounted: The machine does not allow it.
    """
    disk = Disk(folder)
    try:
        yield disk
    finally:
        disk.unmount()
