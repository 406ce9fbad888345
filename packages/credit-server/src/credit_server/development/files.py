"""Writes files that belong together and must not be overwritten: a key that is lost is lost."""

import os
from collections.abc import Sequence
from pathlib import Path

from credit_server.access import FileUnusable

SECRET = 0o600
PUBLIC = 0o644


def write_new_file(path: Path, data: bytes, mode: int) -> None:
    """Write a new file, and make the folder that it is in.

    Args:
        path: The file.
        data: Its content.
        mode: Who may read it, from its first byte on: SECRET or PUBLIC.

    Raises:
        FileUnusable: It exists, or cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FileUnusable(
            f"The folder {path.parent} cannot be made: {error.strerror}. Name another --directory."
        ) from None
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise FileUnusable(
            f"{path} exists and is not overwritten: name another --directory, or remove it."
        ) from None
    except OSError as error:
        raise FileUnusable(f"{path} cannot be written: {error.strerror}.") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def all_exist(files: Sequence[Path]) -> bool:
    """Return whether files that are made together exist: True for all of them, False for none.

    Raises:
        FileUnusable: Only some of them exist.
    """
    try:
        there = [file for file in files if file.exists()]
    except OSError as error:  # `exists` catches only the errors of files that are missing
        raise FileUnusable(f"{error.filename} cannot be accessed: {error.strerror}.") from None
    missing = [file for file in files if file not in there]
    if there and missing:
        raise FileUnusable(
            f"{_listed(there)} exists and is not overwritten, and {_listed(missing)} is missing:"
            f" put it back, {remedy(there)}"
        )
    return bool(there)


def remedy(files: Sequence[Path]) -> str:
    """Return what to do about files that are in the way, as the end of a sentence."""
    return f"name another --directory, or remove {_listed(files)} to have all of them made again."


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(str(file) for file in files)
