"""Writes a file that must not exist yet: a key that is overwritten is lost."""

import os
from pathlib import Path

from credit_server.access import FileUnusable

SECRET = 0o600
PUBLIC = 0o644


def write_new_file(path: Path, data: bytes, mode: int) -> None:
    """Write a new file, and the folder that it is in.

    Args:
        path: The file.
        data: What it holds.
        mode: Who may read it, from its first byte on: SECRET or PUBLIC.

    Raises:
        FileUnusable: It exists, or cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FileUnusable(f"{path.parent} cannot be made a folder: {error.strerror}.") from None
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
