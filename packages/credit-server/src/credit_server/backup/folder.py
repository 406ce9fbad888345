"""The folder of an export: one export at a time uses it, and it has no files of anyone else."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from credit_server.backup.chunk import SUFFIX
from credit_server.backup.errors import BackupUnusable
from credit_server.backup.manifest import NAME, Manifest, read
from credit_server.store.exporting import CHANGING, HISTORY, SECRET

MARKER = "export.lock"
"""The file that an export creates before all others, locks while it runs, and removes at its end.
Without it and without a manifest, chunks belong to another backup."""

_COLLECTIONS = "|".join(CHANGING + SECRET + HISTORY)
_CHUNK = re.compile(rf"(?:{_COLLECTIONS})-[0-9]{{6,}}{re.escape(SUFFIX)}(?:\.part)?")
_MANIFEST_PART = NAME + ".part"


@contextmanager
def claimed(folder: Path) -> Iterator[Manifest | None]:
    """Use a folder for an export, which is complete when the context ends without an error.

    Args:
        folder: The folder of the backup; created, with mode 0700, if it is missing.

    Yields:
        The manifest of an export that was interrupted; None: the export must begin.

    Raises:
        BackupUnusable: The folder has a complete backup or other files, or another export writes
            to it, or it cannot be used. No file was changed.
    """
    with _usable(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_names(folder)
        _interrupted(folder)  # no marker is written into a complete backup
        descriptor = os.open(folder / MARKER, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with _usable(folder):
            _lock(folder, descriptor)
            found = _interrupted(folder)
            if found is None:
                _remove_chunks(folder)
        yield found
        with _usable(folder):
            (folder / MARKER).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # If the path is that of a file, `strerror` is "File exists".
        raise BackupUnusable(
            f"the folder {folder} cannot be used: {error.strerror}; name a new folder, or an empty"
            " one that this user can write to"
        ) from error


def _check_names(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    begun = names & {MARKER, NAME}
    others = sorted(
        name
        for name in names - {MARKER, NAME}
        if not begun or not (name == _MANIFEST_PART or _CHUNK.fullmatch(name))
    )
    if others:
        raise BackupUnusable(
            f"{folder} has other files ({others[0]}), and none was changed: name a new folder"
        )


def _interrupted(folder: Path) -> Manifest | None:
    if not (folder / NAME).exists():
        return None
    found = read(folder)
    if found.digest:
        raise BackupUnusable(f"{folder} has a complete backup: name another folder")
    return found


def _lock(folder: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BackupUnusable(
            f"another export writes to {folder}: this one has changed nothing; wait for the end of"
            " the other one, or name another folder"
        ) from error


def _remove_chunks(folder: Path) -> None:
    """Remove the chunks of an export that was interrupted before it had a manifest."""
    for path in list(folder.iterdir()):
        if path.name == _MANIFEST_PART or _CHUNK.fullmatch(path.name):
            path.unlink()
