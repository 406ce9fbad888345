"""The audit log's own file: JSON lines, appended, found again after it was rotated away."""

import json
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import structlog

from credit_server.access.audit import AuditLog, ordinary_log
from credit_server.errors import StartError

log = structlog.get_logger("credit_server.audit")

_OTHERS = stat.S_IROTH | stat.S_IWOTH


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AuditFile:
    """Appends lines to a file that only its owner may read.

    A line is written at once and whole, by one call of the system, so that it survives the process
    and several servers may share a file. It is not synced: what a crash of the machine may lose
    here, the ledger still has. A line takes 14 µs of the processor (2-core machine): handing it to
    a thread would take longer.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = _utc_now) -> None:
        """Open the file, or make it.

        Args:
            path: Where it is. Its folder must be there.
            clock: Tells the time, UTC.

        Raises:
            OSError: It cannot be opened.
        """
        self._path = path
        self._clock = clock
        self._failed = 0  # lines in a row
        self._torn = False
        self._open()

    def __call__(self, line: Mapping[str, str | int | bool]) -> None:
        """Append a line.

        Where that fails, the ordinary log says so once, and at the end of it how many lines it
        concerns. The server goes on: what a line is about has happened.
        """
        # As the ordinary log writes it.
        timestamp = self._clock().isoformat(timespec="microseconds").replace("+00:00", "Z")
        stamped = {"timestamp": timestamp, **line}
        # After half a line a new one begins.
        data = b"\n" * self._torn + json.dumps(stamped).encode() + b"\n"
        file = str(self._path)
        try:
            self._append(data)
        except OSError as error:
            if not self._failed:
                log.error("the audit log cannot be written", file=file, reason=str(error))
            self._failed += 1
        else:
            if self._failed:
                log.warning("the audit log is written again", file=file, lines_failed=self._failed)
            self._failed = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _append(self, data: bytes) -> None:
        try:
            self._follow()
        finally:
            # Where none can be opened at the path, the file that was rotated away still takes it.
            self._torn = os.write(self._file, data) != len(data)
        if self._torn:
            raise OSError("only a part of a line was written")

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self._path, flags, mode=0o600)
        status = os.fstat(self._file)
        self._opened = _which(status)
        if stat.S_IMODE(status.st_mode) & _OTHERS:
            log.warning(
                "the audit log is open to all users of this machine: chmod o= it",
                file=str(self._path),
            )

    def _follow(self) -> None:
        """Open the file anew if the one at its path is no longer the one that is open."""
        try:
            unchanged = _which(self._path.stat()) == self._opened
        except FileNotFoundError:
            unchanged = False
        if not unchanged:
            rotated = self._file
            self._open()
            os.close(rotated)


def _which(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


@asynccontextmanager
async def open_audit(path: Path | None, *, identities: bool) -> AsyncIterator[AuditLog]:
    """Open the audit log for as long as the context lasts.

    Args:
        path: Its file; None: it goes to the ordinary log, and without identities nowhere.
        identities: Whether the server knows its callers.

    Raises:
        StartError: The file cannot be opened.
    """
    if path is None:
        yield AuditLog(ordinary_log if identities else None)
        return
    try:
        file = AuditFile(path)
    except OSError as error:
        raise StartError(
            f"The audit log {path} cannot be opened: {error.strerror}. See --audit-log."
        ) from error
    try:
        yield AuditLog(file)
    finally:
        file.close()
