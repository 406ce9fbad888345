"""The manifest of a backup: a header, a line for each chunk, and a last line with the digest."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from credit_server.backup.chunk import Chunk, sync_folder, writing
from credit_server.backup.errors import BackupUnusable
from credit_server.store.alert_events import EventGap

NAME = "manifest.ndjson"

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The first line of a manifest.

    Attributes:
        database: The name of the database.
        release: The release of credit-server that exported it.
        schema: The version of the database's schema.
        moment: The time of the primary just before the snapshot. The backup has every write that
            was acknowledged before.
        secrets: Whether the webhooks are part of the backup.
        event_gaps: The gaps in the positions of events that earlier imports have left.
    """

    database: str
    release: str
    schema: int
    moment: str
    secrets: bool
    event_gaps: list[EventGap] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Manifest:
    """A manifest, and the file that holds it.

    Attributes:
        folder: The folder of the backup.
        header: The first line.
        chunks: The chunks that are complete, in the order of the export.
        digest: The digest of the whole backup; empty while it is incomplete.
    """

    folder: Path
    header: Header
    chunks: list[Chunk] = field(default_factory=list)
    digest: str = ""

    @property
    def records(self) -> int:
        """The number of documents in all chunks."""
        return sum(chunk.records for chunk in self.chunks)

    def of(self, collection: str) -> list[Chunk]:
        """Return the chunks of a collection."""
        return [chunk for chunk in self.chunks if chunk.collection == collection]

    def records_of(self, collection: str) -> int:
        """Return the number of documents of a collection."""
        return sum(chunk.records for chunk in self.of(collection))

    def create(self) -> None:
        """Write the manifest of the chunks that are complete so far, atomically."""
        lines = [{"credit_backup": _FORMAT, **asdict(self.header)}]
        lines += [asdict(chunk) for chunk in self.chunks]
        part = self.folder / (NAME + ".part")
        with writing(self.folder):
            with part.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.folder / NAME)
            sync_folder(self.folder)

    def add(self, chunk: Chunk) -> None:
        """Append a chunk, whose file is complete."""
        self.chunks.append(chunk)
        self._append(asdict(chunk))

    def complete(self) -> None:
        """Append the digest: the backup is complete."""
        self.digest = digest_of(self.chunks)
        self._append({"records": self.records, "digest": self.digest})

    # Any: the values of JSON.
    def _append(self, line: dict[str, Any]) -> None:
        with writing(self.folder), (self.folder / NAME).open("r+b") as file:
            content = file.read()
            # A killed process may have written only a part of its last line.
            file.truncate(content.rfind(b"\n") + 1)
            file.seek(0, os.SEEK_END)
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def digest_of(chunks: Iterable[Chunk]) -> str:
    """Return the digest of documents: SHA-256 of the collections and digests of their chunks."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(f"{chunk.collection} {chunk.sha256}\n".encode())
    return digest.hexdigest()


def load(folder: Path) -> Manifest:
    """Return the manifest of a complete backup.

    Raises:
        BackupUnusable: The folder is no backup, or the backup is incomplete or damaged.
    """
    try:
        found = read(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BackupUnusable(
            f"{folder} is not a backup: it has no file {NAME}; name a folder that credit-server"
            " export has written"
        ) from error
    except OSError as error:
        raise BackupUnusable(
            f"{folder / NAME} cannot be read: {error.strerror}; allow this user to read the folder"
            " of the backup and its files"
        ) from error
    if not found.digest:
        raise BackupUnusable(f"{folder} is incomplete: repeat the export to continue it")
    if found.digest != digest_of(found.chunks):
        raise BackupUnusable(f"{folder / NAME} is damaged: its digest is not that of its chunks")
    return found


def read(folder: Path) -> Manifest:
    """Return the manifest of a backup, complete or not. A last line that is cut off is ignored.

    Raises:
        OSError: It cannot be read.
        BackupUnusable: It is damaged, or of a later release.
    """
    text = (folder / NAME).read_bytes()
    try:
        head, *lines = [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
        if head.pop("credit_backup") != _FORMAT:
            raise BackupUnusable(f"{folder} was exported by a later release: import it with that")
        gaps = [EventGap(*each) for each in head.pop("event_gaps", [])]
        manifest = Manifest(folder=folder, header=Header(**head, event_gaps=gaps))
        for line in lines:
            if "digest" in line:
                manifest.digest = line["digest"]
            else:
                manifest.chunks.append(Chunk(**{**line, "last": tuple(line["last"])}))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackupUnusable(f"{folder / NAME} is damaged: {error}") from error
    return manifest
