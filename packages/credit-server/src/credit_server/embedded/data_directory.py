"""The directory of the embedded database: its layout, and the lock of the server that uses it."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from credit_server.embedded.errors import DataDirectoryInUse, MongodFailed

# A start writes about 40 kB, so this is enough for years of restarts. One older file is kept.
_LOG_BYTES_MAX = 16 * 1024 * 1024
_PRIVATE = 0o700


@dataclass(frozen=True, kw_only=True, slots=True)
class DataDirectory:
    """The paths of the embedded database.

    Attributes:
        root: The absolute path without symbolic links, the form in which `mongod` reports it.
    """

    root: Path

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return the directory at a path, which need not exist."""
        return cls(root=Path(os.path.realpath(path)))  # `Path.resolve` raises for a link to itself

    @property
    def database(self) -> Path:
        """The directory of `mongod`'s own files."""
        return self.root / "mongo"

    @property
    def log(self) -> Path:
        """The file of `mongod`'s log, with one JSON document a line."""
        return self.root / "mongod.log"

    @property
    def output(self) -> Path:
        """The file of what the last `mongod` wrote to its standard output and error."""
        return self.root / "mongod.out"

    def create(self) -> None:
        """Create the missing directories, for their owner alone.

        Raises:
            MongodFailed: They cannot be created or written to.
        """
        try:
            self.root.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            self.database.mkdir(mode=_PRIVATE, exist_ok=True)
        except OSError as error:
            raise self.unusable(error) from error

    def begin_log(self) -> int:
        """Rename a log that has grown large; the one that was renamed before is replaced.

        Returns:
            The size of the log in bytes: the next run's lines begin there.

        Raises:
            MongodFailed: The log cannot be renamed.
        """
        try:
            size = self.log.stat().st_size if self.log.exists() else 0
            if size <= _LOG_BYTES_MAX:
                return size
            self.log.replace(self.log.with_suffix(".log.1"))
        except OSError as error:
            raise self.unusable(error) from error
        return 0

    def open_output(self) -> BinaryIO:
        """Open an empty file for what the next run writes to its standard output and error.

        Raises:
            MongodFailed: It cannot be written.
        """
        try:
            return self.output.open("wb")
        except OSError as error:
            raise self.unusable(error) from error

    def lock(self) -> "DirectoryLock":
        """Lock the directory for this process.

        Raises:
            DataDirectoryInUse: Another live server holds the lock; the message names its process.
            MongodFailed: The lock file cannot be created, or the file system has no locks.
        """
        try:
            descriptor = os.open(self.root / "credit-server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self.unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise DataDirectoryInUse(
                f"The data directory {self.root} is in use by another credit-server "
                f"(process {holder}). Stop that server, or give this one a directory of its own "
                f"with CREDIT_DATA_DIR."
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise self.unusable(error) from error
        return DirectoryLock(descriptor)

    def unusable(self, error: OSError) -> MongodFailed:
        """Return the error for a directory whose files cannot be read or written."""
        return MongodFailed(
            f"The data directory {self.root} cannot be used: {error.strerror}. "
            f"Make it a writable directory on a local disk with free space, or set CREDIT_DATA_DIR "
            f"to one."
        )


class DirectoryLock:
    """The lock on a data directory. It ends with `release`, or with the process."""

    def __init__(self, descriptor: int) -> None:
        # Descriptors made by Python are not inherited: `mongod` does not keep the lock.
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock. Its file stays: removing it could remove the lock of another server."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
