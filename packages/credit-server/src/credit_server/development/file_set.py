"""A set of files that are made together: all of them are there, or none."""

from collections.abc import Sequence
from pathlib import Path

from credit_server.access import FileUnusable


def is_there(files: Sequence[Path]) -> bool:
    """Say whether a set has been made: True for all of its files, False for none.

    Raises:
        FileUnusable: Only a part of them is there, and nobody knows where the others went.
    """
    try:
        there = [file for file in files if file.exists()]
    except OSError as error:  # `exists` tells of what is not there alone
        raise FileUnusable(f"{error.filename} cannot be looked at: {error.strerror}.") from None
    missing = [file for file in files if file not in there]
    if there and missing:
        raise FileUnusable(
            f"{_listed(there)} exists and is not overwritten, and {_listed(missing)} is missing:"
            f" put it back, {remedy(there)}"
        )
    return bool(there)


def remedy(files: Sequence[Path]) -> str:
    """Say what to do about files that are in the way; the end of a sentence."""
    return f"name another --directory, or remove {_listed(files)} to have all made anew."


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(str(file) for file in files)
