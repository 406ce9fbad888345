"""The commands `credit-server export` and `credit-server import`."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from credit_server.backup.export import Advance, export
from credit_server.backup.manifest import Manifest, load
from credit_server.backup.records import changing
from credit_server.backup.restoring import check, compare_imported, import_
from credit_server.backup.rewinding import Rewound, rewind
from credit_server.embedded import EmbeddedMongod, open_uri
from credit_server.settings import StoreSettings
from credit_server.store.exporting import HISTORY, LedgerReader, open_reader
from credit_server.store.importing import open_writer


def run_export(settings: StoreSettings, folder: Path, *, secrets: bool) -> Manifest:
    """Export the database that the settings name.

    Raises:
        BackupError: The folder cannot be used, or the ledger does not add up.
        StoreError: The store cannot be read.
        EmbeddedError: The embedded mongod cannot be started.
    """
    with _uri(settings) as uri, _reader(settings, uri) as reader:
        total = reader.estimated_documents([*changing(secrets), *HISTORY])
        with _progress("export", total) as advance:
            return export(reader, folder, secrets=secrets, advance=advance)


def run_check(folder: Path) -> Manifest:
    """Check the files of a backup.

    Raises:
        BackupError: It is incomplete or damaged.
    """
    manifest = load(folder)
    with _progress("check", manifest.records) as advance:
        check(manifest, advance)
    return manifest


def run_import(settings: StoreSettings, folder: Path) -> Manifest:
    """Check a backup and import it into the empty database that the settings name.

    Raises:
        BackupError: The backup is incomplete or damaged, or the database differs from it.
        StoreError: The database is not empty, or cannot be written.
        EmbeddedError: The embedded mongod cannot be started, or a server uses its data.
    """
    manifest = run_check(folder)
    _import(settings, manifest)
    return manifest


def run_import_until(settings: StoreSettings, folder: Path, until: datetime) -> Rewound:
    """Check a backup, and import the ledger as it was at an earlier moment.

    The backup of that moment is made in a temporary folder, which needs as much space as the first
    backup.

    Raises:
        BackupError: As `run_import` and `rewind` raise.
        StoreError: The database is not empty, or cannot be written.
        EmbeddedError: The embedded mongod cannot be started, or a server uses its data.
    """
    manifest = run_check(folder)
    with TemporaryDirectory(prefix="credit-import-") as temporary:
        with _progress("rewind", manifest.records) as advance:
            rewound = rewind(manifest, Path(temporary) / "backup", until, advance)
        _import(settings, rewound.manifest)
    return rewound


def _import(settings: StoreSettings, manifest: Manifest) -> None:
    """Import a backup that was checked, and compare the database with it."""
    with (
        _uri(settings, shared=False) as uri,
        open_writer(
            uri,
            database=settings.mongodb_database,
            timeout_seconds=settings.store_timeout_seconds,
        ) as writer,
    ):
        with _progress("import", manifest.records, logged=True) as advance:
            import_(writer, manifest, advance)
        with (
            _reader(settings, uri) as reader,
            _progress("compare", manifest.records, logged=True) as advance,
        ):
            compare_imported(writer, reader, manifest, advance)
        writer.finish(manifest.header.event_gaps)


@contextmanager
def _uri(settings: StoreSettings, *, shared: bool = True) -> Iterator[str]:
    """Yield the connection string of the settings, or of the embedded mongod.

    If no mongod runs, this starts one for the duration of the context.

    Args:
        settings: Where the database is.
        shared: Whether to use the embedded mongod of a running server.
    """
    if settings.mongodb_uri is not None:
        yield settings.mongodb_uri.get_secret_value()
        return
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        if shared:
            uri = runner.run(stack.enter_async_context(open_uri(settings.data_dir)))
        else:
            mongod = EmbeddedMongod(data_dir=settings.data_dir)
            uri = runner.run(stack.enter_async_context(mongod)).uri
        try:
            yield uri
        finally:
            runner.run(stack.aclose())


def _reader(settings: StoreSettings, uri: str) -> AbstractContextManager[LedgerReader]:
    return open_reader(
        uri, database=settings.mongodb_database, timeout_seconds=settings.store_timeout_seconds
    )


def _progress(
    work: str, documents: int, *, logged: bool = False
) -> AbstractContextManager[Advance]:
    """Show the progress: a bar at a terminal, and elsewhere lines or nothing.

    Args:
        work: What is done.
        documents: About how many documents there are.
        logged: Whether to print a line on standard error for each tenth, if that is no terminal.
    """
    if not sys.stderr.isatty():
        return nullcontext(_tenths(work, documents) if logged else lambda _: None)
    from credit_server.progress import bar  # noqa: PLC0415 - see its first lines

    return bar(documents, "documents", work=work)


def _tenths(work: str, documents: int) -> Advance:
    """Return what prints a line now and after each tenth."""
    complete = shown = 0

    def show() -> None:
        line = f"{work}: {complete:,} of about {documents:,} documents"
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - it is for people

    def advance(count: int) -> None:
        nonlocal complete, shown
        complete += count
        if (tenths := 10 * complete // max(1, documents)) > shown:
            shown = tenths
            show()

    show()
    return advance
