"""The chunks of a backup: compressed files of lines, each written as a whole or not at all."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from credit_server.backup.errors import BackupUnusable

RECORDS_MAX = 20_000
"""The records of a chunk. The digest of a backup depends on it, so it is part of the format."""

SUFFIX = ".ndjson.gz"

# Compressing is the largest part of an export's CPU: level 1 takes a third of the time of level 6,
# and the files are a fifth larger.
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as the manifest lists it.

    Attributes:
        file: The name of the file.
        collection: The collection of the documents.
        records: The number of documents, one in each line.
        sha256: The digest of the lines, in hexadecimal.
        last: The user and the sequence of the last document, in a chunk of histories; else empty.
    """

    file: str
    collection: str
    records: int
    sha256: str
    last: tuple[int, ...] = ()


def file_name(collection: str, number: int) -> str:
    """Return the name of a chunk's file; the numbers of a collection begin with 1."""
    return f"{collection}-{number:06d}{SUFFIX}"


def write_file(folder: Path, name: str, lines: Iterable[bytes]) -> None:
    """Write lines into a file, which is complete or does not exist, even after a power cut.

    Raises:
        BackupUnusable: The file cannot be written.
    """
    part = folder / (name + ".part")
    with writing(folder):
        with part.open("wb") as file:
            with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as zipped:
                zipped.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / name)
        sync_folder(folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Translate an error of the file system.

    Raises:
        BackupUnusable: A file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise BackupUnusable(
            f"{folder} cannot be written: {error.strerror}. The complete files are kept: repeat the"
            " export to continue"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make the names of a folder's files durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(folder: Path, chunk: Chunk) -> Iterator[bytes]:
    """Iterate over the lines of a chunk.

    A caller that writes the lines to a database must call `check` first: damage at the end of the
    file is found only after the lines before it were returned.

    Raises:
        BackupUnusable: The file is missing or damaged.
    """
    digest, records = hashlib.sha256(), 0
    try:
        with gzip.open(folder / chunk.file, "rb") as file:
            for line in file:
                digest.update(line)
                records += 1
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BackupUnusable(
            f"{folder / chunk.file} is damaged: copy the backup again, or use another one"
        ) from error
    except OSError as error:
        raise BackupUnusable(
            f"{folder / chunk.file} cannot be read: {error.strerror}; all files of the backup must"
            " be in its folder"
        ) from error
    if digest.hexdigest() != chunk.sha256 or records != chunk.records:
        raise BackupUnusable(
            f"{folder / chunk.file} is damaged: its content is not what was exported"
        )


def check(folder: Path, chunk: Chunk) -> None:
    """Check the file of a chunk.

    Raises:
        BackupUnusable: It is missing or damaged.
    """
    for _ in read_lines(folder, chunk):
        pass
