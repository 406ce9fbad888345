"""Import a backup into an empty database, and read the database back to compare its digest."""

from collections.abc import Iterator
from pathlib import Path

from credit_server.backup import chunk
from credit_server.backup.chunk import Chunk
from credit_server.backup.errors import BackupError, BackupUnusable
from credit_server.backup.export import Advance, accounts
from credit_server.backup.manifest import Manifest, digest_of
from credit_server.backup.records import changing, chunks, history
from credit_server.store.exporting import BEGINNING, HISTORY, LedgerReader
from credit_server.store.extended_json import Document, from_line
from credit_server.store.importing import LedgerWriter
from credit_server.store.schema import SCHEMA_VERSION


class ImportedDiffers(BackupError):
    """The imported database differs from the backup."""


def check(manifest: Manifest, advance: Advance) -> None:
    """Check every file of a backup.

    Raises:
        BackupUnusable: A file is missing or damaged, or a later release exported the backup.
    """
    if manifest.header.schema > SCHEMA_VERSION:
        raise BackupUnusable(
            f"{manifest.folder} has the schema {manifest.header.schema}, and this release has"
            f" {SCHEMA_VERSION}: import it with credit-server {manifest.header.release} or later"
        )
    for each in manifest.chunks:
        chunk.check(manifest.folder, each)
        advance(each.records)


def import_(writer: LedgerWriter, manifest: Manifest, advance: Advance) -> None:
    """Write all documents of a backup, or continue where an import was interrupted.

    Args:
        writer: The database.
        manifest: A backup that was checked.
        advance: Receives the progress.

    Raises:
        BackupUnusable: A file was damaged meanwhile.
        StoreError: The database is not empty, or does not accept a document.
    """
    complete = writer.begin(manifest.digest)
    advance(sum(each.records for each in manifest.chunks[:complete]))
    for number, each in enumerate(manifest.chunks[complete:], complete + 1):
        # Only the first of these chunks can have been interrupted.
        may_exist = number == complete + 1
        # Check the file before it is written, so that no part of a damaged file is imported.
        chunk.check(manifest.folder, each)
        documents = _documents(manifest.folder, each)
        for count in writer.insert(each.collection, documents, may_exist=may_exist):
            advance(count)
        writer.advance(number)
    writer.build()


def _documents(folder: Path, each: Chunk) -> Iterator[Document]:
    for line in chunk.read_lines(folder, each):
        try:
            yield from_line(line)
        except ValueError as error:
            raise BackupUnusable(f"{folder / each.file} has a line that is no document") from error


def compare_imported(
    writer: LedgerWriter, reader: LedgerReader, manifest: Manifest, advance: Advance
) -> None:
    """Compare a database with the backup, as long as no other process completed the import.

    Args:
        writer: The database.
        reader: The same database.
        manifest: The backup.
        advance: Receives the progress.

    Raises:
        ImportedDiffers: The database is not what the backup has.
        LedgerDamaged: An account and its history do not agree.
        StoreError: See `LedgerWriter.confirm`. Its message replaces the advice to drop the
            database, which may have acknowledged writes by then.
    """
    writer.confirm()
    try:
        compare(reader, manifest, advance)
    except BackupError:
        writer.confirm()
        raise


def compare(reader: LedgerReader, manifest: Manifest, advance: Advance) -> None:
    """Read a database as an export does, and compare each chunk with the backup.

    Raises:
        ImportedDiffers: A chunk differs.
        LedgerDamaged: An account and its history do not agree.
    """
    found: list[Chunk] = []
    for each in _chunks(reader, manifest):
        expected = manifest.chunks[len(found)] if len(found) < len(manifest.chunks) else None
        if each != expected:
            first = each if expected is None else expected
            raise ImportedDiffers(
                f"The database differs from the backup, first in the documents of {first.file}:"
                " drop the database, make sure that no server uses it, and import again"
            )
        found.append(each)
        advance(each.records)
    if digest_of(found) != manifest.digest:
        raise ImportedDiffers(
            "The database has fewer documents than the backup: drop the database, make sure that"
            " no server uses it, and import again"
        )


def _chunks(reader: LedgerReader, manifest: Manifest) -> Iterator[Chunk]:
    for collection in changing(manifest.header.secrets):
        found = reader.ordered(collection)
        yield from chunks(collection, found, _read_all, placed=False)
    for collection in HISTORY:
        found = history(reader, collection, accounts(manifest), BEGINNING)
        yield from chunks(collection, found, _read_all, placed=True)


def _read_all(_file: str, lines: Iterator[bytes]) -> None:
    for _ in lines:
        pass
