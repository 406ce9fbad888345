"""Write a backup: mutable documents at one snapshot, then the histories up to it."""

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from credit_server.backup import chunk
from credit_server.backup.folder import claimed
from credit_server.backup.manifest import Header, Manifest
from credit_server.backup.records import changing, chunks, history
from credit_server.store.exporting import BEGINNING, HISTORY, AccountState, LedgerReader, Position
from credit_server.store.extended_json import from_line
from credit_server.store.port import StoreMisconfigured
from credit_server.store.schema import ALERT_EVENTS, USER_CREDITS

Advance = Callable[[int], None]
"""Receives the number of documents that were processed."""


def export(reader: LedgerReader, folder: Path, *, secrets: bool, advance: Advance) -> Manifest:
    """Write a backup, or continue one that was interrupted.

    An export that was interrupted in the histories continues there, because entries up to a
    revision never change. One that was interrupted before starts over at a new snapshot.

    Args:
        reader: The ledger.
        folder: The folder of the backup.
        secrets: Whether webhooks, which have secrets, are part of the backup.
        advance: Receives the progress.

    Raises:
        BackupUnusable: The folder cannot be used, or another export uses it.
        LedgerDamaged: The ledger does not add up.
        StoreError: The store cannot be read, or the folder has an export of another database.
    """
    schema = reader.schema_version()
    with claimed(folder) as interrupted:
        manifest = interrupted
        if manifest is None:
            manifest = _begin(reader, folder, schema=schema, secrets=secrets, advance=advance)
        elif (manifest.header.database, manifest.header.secrets) != (reader.name, secrets):
            raise StoreMisconfigured(
                f"{folder} has an interrupted export of the database '{manifest.header.database}'"
                f" {'with' if manifest.header.secrets else 'without'} --secrets: continue it with"
                " the same options, or name another folder"
            )
        else:
            advance(manifest.records)
        for collection in HISTORY:
            _add_history(reader, manifest, collection, advance)
        manifest.complete()
    return manifest


def _begin(
    reader: LedgerReader, folder: Path, *, schema: int, secrets: bool, advance: Advance
) -> Manifest:
    """Write the mutable documents, then the manifest. Without it, the export starts over."""
    header = Header(
        database=reader.name,
        release=version("credit-server"),
        schema=schema,
        moment=reader.time().isoformat(timespec="milliseconds"),
        secrets=secrets,
        event_gaps=reader.event_gaps(),
    )
    manifest = Manifest(folder=folder, header=header)
    with reader.snapshot() as snapshot:
        for collection in changing(secrets):
            for each in chunks(
                collection, snapshot.ordered(collection), _writer(folder), placed=False
            ):
                manifest.chunks.append(each)
                advance(each.records)
    manifest.create()
    return manifest


def _add_history(
    reader: LedgerReader, manifest: Manifest, collection: str, advance: Advance
) -> None:
    complete = manifest.of(collection)
    after = Position(*complete[-1].last) if complete else BEGINNING
    found = history(reader, collection, accounts(manifest), after)
    for each in chunks(
        collection, found, _writer(manifest.folder), first=len(complete) + 1, placed=True
    ):
        manifest.add(each)
        advance(each.records)


def accounts(manifest: Manifest) -> Iterator[AccountState]:
    """Iterate over the accounts of a backup."""
    for each in manifest.of(USER_CREDITS):
        for line in chunk.read_lines(manifest.folder, each):
            yield AccountState.of(from_line(line))


def newest_event(manifest: Manifest) -> int:
    """Return the greatest position of an event of an alert in a backup; 0 if there is none."""
    lines = (
        line
        for each in manifest.of(ALERT_EVENTS)
        for line in chunk.read_lines(manifest.folder, each)
    )
    positions = (from_line(line).get("position", 0) for line in lines)
    return max((each for each in positions if isinstance(each, int)), default=0)


def _writer(folder: Path) -> Callable[[str, Iterator[bytes]], None]:
    return lambda file, lines: chunk.write_file(folder, file, lines)
