"""A disk of limited size for one mongod, which can be filled."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BYTES = 2**30
_ATTEMPTS_MAX = 100


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
        self._mount(f"size={_BYTES}")

    def fill(self) -> None:
        """Make the file system as small as its data. Unlike a file, this takes no memory."""
        for attempt in range(_ATTEMPTS_MAX):
            usage = os.statvfs(self._folder)
            used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
            try:
                self._mount(f"remount,size={used}")
            except NotMounted:  # the data has grown in the meantime
                if attempt == _ATTEMPTS_MAX - 1:
                    raise
            else:
                return

    def free(self) -> None:
        """Enlarge the file system to its original size."""
        self._mount(f"remount,size={_BYTES}")

    def unmount(self) -> None:
        """Unmount the file system, which removes its data."""
        subprocess.run(["umount", "--lazy", str(self._folder)], check=False)  # noqa: S603, S607

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._folder)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        except OSError as error:
            raise NotMounted(str(error)) from error
        if ended.returncode != 0:
            raise NotMounted(ended.stderr.strip())


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
