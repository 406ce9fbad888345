"""The directory that holds the embedded database: its layout, and the lock of its one user."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from credit_server.embedded.errors import DataDirectoryInUse, MongodFailed

# A start writes about 40 kB, so this is years of restarts, and one old file is kept beside it.
_LOG_BYTES_MAX = 16 * 1024 * 1024
_PRIVATE = 0o700


@dataclass(frozen=True, kw_only=True, slots=True)
class DataDirectory:
    """Where the embedded database keeps what.

    Attributes:
        root: The absolute path, without symbolic links: `mongod` reports it back in this form.
    """

    root: Path

    @classmethod
    def at(cls, path: Path) -> Self:
        """Names the directory at a path, which need not exist."""
        return cls(root=path.expanduser().resolve())

    @property
    def database(self) -> Path:
        """`mongod`'s own files."""
        return self.root / "mongo"

    @property
    def log(self) -> Path:
        """`mongod`'s log, one JSON document a line."""
        return self.root / "mongod.log"

    @property
    def output(self) -> Path:
        """What the last `mongod` wrote to its standard output and error."""
        return self.root / "mongod.out"

    def create(self) -> None:
        """Makes the directories, for the owner alone, where they are missing.

        Raises:
            MongodFailed: They cannot be made or written to.
        """
        try:
            self.root.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            self.database.mkdir(mode=_PRIVATE, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def begin_log(self) -> int:
        """Sets a log that has grown large aside, in place of the one set aside before.

        Returns:
            The size of the log in bytes: where the next run's lines will begin.

        Raises:
            MongodFailed: The log cannot be moved.
        """
        try:
            size = self.log.stat().st_size if self.log.exists() else 0
            if size <= _LOG_BYTES_MAX:
                return size
            self.log.replace(self.log.with_suffix(".log.1"))
        except OSError as error:
            raise self._unusable(error) from error
        return 0

    def open_output(self) -> BinaryIO:
        """Opens an empty file for what the next run writes to its standard output and error.

        Raises:
            MongodFailed: It cannot be written.
        """
        try:
            return self.output.open("wb")
        except OSError as error:
            raise self._unusable(error) from error

    def lock(self) -> "DirectoryLock":
        """Claims the directory for this process.

        Raises:
            DataDirectoryInUse: Another live server holds it; the message names its process.
            MongodFailed: The lock file cannot be made, or the file system has no locks.
        """
        try:
            descriptor = os.open(self.root / "credit-server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
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
            raise self._unusable(error) from error
        return DirectoryLock(descriptor)

    def _unusable(self, error: OSError) -> MongodFailed:
        return MongodFailed(
            f"The data directory {self.root} cannot be used: {error.strerror}. "
            f"Make it a writable directory on a local disk with free space, or set CREDIT_DATA_DIR "
            f"to one."
        )


class DirectoryLock:
    """A claim on a data directory; it ends with `release`, or with the process."""

    def __init__(self, descriptor: int) -> None:
        # Descriptors made by Python are not inherited, so the lock does not live on in `mongod`.
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives the directory up. The file stays: removing it could remove a newer claim."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
