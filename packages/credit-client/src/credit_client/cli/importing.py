"""`credit import`: reads a file, writes its rows, and shows progress and what was rejected."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, Annotated

import typer

from credit_client.cli.connection import Connection
from credit_client.cli.exits import Exit, complain
from credit_client.cli.options import By, Output, client_of, fail, format_of, number
from credit_client.cli.output import Format, show
from credit_client.cli.rows import BadLine, FileRow, RejectedFile, RowReader, UnusableFile
from credit_client.cli.write import retryable
from credit_client.client import CreditClient
from credit_client.errors import CreditError, Outcome
from credit_client.importing import CONCURRENCY_MAX, ImportReport, RejectedRow, check_name

# How many rejected rows are shown; a file has all.
_SHOWN_MAX = 20
# How many rows are read at a time, outside of the event loop: a pipe may be slow.
_READ_ROWS = 500
_OVERWRITES = "--rejected must not be the file that is imported"


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV with a header, or a JSON object on each line; - for standard input.",
            show_default=False,
        ),
    ],
    connection: Connection,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Names the import: rows without a key get one from it."),
    ] = None,
    by: By = 1,
    rejected: Annotated[
        Path | None,
        typer.Option("--rejected", help="Write rejected rows to this file.", dir_okay=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the rows, and send nothing.")
    ] = False,
    concurrency: Annotated[
        int, number("--concurrency", "Messages under way at a time, 1 to 64.")
    ] = 4,
    output: Output = None,
) -> None:
    """Add and use credits by the rows of a file. Running it again counts no row twice."""
    if rejected is not None:
        if os.path.realpath(rejected) == os.path.realpath(file):
            raise typer.BadParameter(_OVERWRITES)
        if not rejected.parent.is_dir():
            raise typer.BadParameter(f"--rejected: there is no folder {rejected.parent}")
    if not 1 <= concurrency <= CONCURRENCY_MAX:
        raise typer.BadParameter(f"--concurrency must be 1 to {CONCURRENCY_MAX}")
    if name is not None:
        try:
            check_name(name)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    options = [("--name", name), ("--by", by), ("--rejected", rejected)]
    words = [word for option in options if option[1] is not None for word in option]
    with _opened(file) as stream:
        if rejected is not None and _reads(stream, rejected):
            raise typer.BadParameter(_OVERWRITES)
        opened = ImportFile(stream, by=by, name=name, rejected=rejected)
        try:
            if dry_run:
                code = check(opened, format_of(output))
            else:
                client = client_of(connection)
                words = [*words, *connection.words(client.settings)]
                command = ["credit", "import", file, *words]
                code = write(client, opened, command, format_of(output), concurrency=concurrency)
        except UnusableFile as error:
            effect = (
                "rows before it may have taken effect, and count once when they are imported again"
                if opened.started
                else "nothing was sent"
            )
            fail(f"{file}: {error}; {effect}", Exit.MISUSE)
    if code is not Exit.DONE:
        raise typer.Exit(code)


def _opened(file: Path) -> AbstractContextManager[IO[bytes]]:
    if str(file) == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return file.open("rb")
    except OSError as error:
        raise typer.BadParameter(f"the file {file} cannot be read: {error.strerror}") from None


def _reads(stream: IO[bytes], path: Path) -> bool:
    """Return whether a stream and a path are the same regular file, also by another name."""
    try:
        read, named = os.fstat(stream.fileno()), path.stat()
    except OSError:  # there is no such file, or the stream has no descriptor
        return False
    return stat.S_ISREG(named.st_mode) and os.path.samestat(read, named)


class ImportFile:
    """One file to import.

    Attributes:
        reader: Its rows.
        rejected: Where rejected rows are written, or None.
        size: The file's size in bytes; None: it is no regular file.
        report: What has become of its rows so far.
        bad_lines: The lines that are no rows.
        started: Whether rows may have been sent.
    """

    def __init__(
        self, file: IO[bytes], *, by: int, name: str | None, rejected: Path | None
    ) -> None:
        """Read nothing yet; see `RowReader` for the arguments."""
        path = Path(str(getattr(file, "name", "")))
        self.reader = RowReader(file, by=by, name=name)
        self.rejected = None if rejected is None else RejectedFile(rejected, self.reader)
        self.size = path.stat().st_size if path.is_file() else None
        self.report = ImportReport()
        self.bad_lines = 0
        self.started = False
        self._shown = 0

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of rows, for the output."""
        return {
            "rows": self.report.rows + self.bad_lines,
            "applied": self.report.applied,
            "replayed": self.report.replayed,
            "rejected": self.report.rejected + self.bad_lines,
        }

    def note_bad(self, bad: BadLine) -> None:
        """Count and show a line that is no row."""
        self.bad_lines += 1
        self._note(bad.line, bad.source, bad.key, bad.problem)

    def note_rejected(self, rejection: RejectedRow) -> None:
        """Show a row that was rejected."""
        row, error = rejection.row, rejection.error
        if isinstance(row, FileRow):
            text = error.message if isinstance(error, CreditError) else str(error)
            self._note(row.line, row.source, row.idempotency_key, text)

    def _note(self, line: int, source: Mapping[str, object], key: str | None, problem: str) -> None:
        if self.rejected is not None:
            self.rejected.write(line, source, key, problem)
        self._shown += 1
        if self._shown <= _SHOWN_MAX:
            complain(f"credit: line {line}: {problem}\n")
        elif self._shown == _SHOWN_MAX + 1:
            where = "" if self.rejected else ": pass --rejected FILE to keep all"
            complain(f"credit: more rejected lines are not shown{where}\n")

    async def rows(self) -> AsyncIterator[FileRow]:
        """Yield the rows, read in a thread, and note the lines that are none."""
        lines = iter(self.reader)
        while some := await asyncio.to_thread(lambda: list(islice(lines, _READ_ROWS))):
            for line in some:
                if isinstance(line, BadLine):
                    self.note_bad(line)
                else:
                    self.started = True
                    yield line


def check(file: ImportFile, output: Format) -> Exit:
    """Check the rows of a file and send nothing.

    Raises:
        UnusableFile: The file as a whole cannot be imported.
    """
    valid = 0
    for line in file.reader:
        if isinstance(line, BadLine):
            file.note_bad(line)
        else:
            valid += 1
    _close(file)
    show({"rows": valid + file.bad_lines, "valid": valid, "rejected": file.bad_lines}, output)
    return Exit.ROWS_REJECTED if file.bad_lines else Exit.DONE


def write(
    client: CreditClient,
    file: ImportFile,
    command: Sequence[object],
    output: Format,
    *,
    concurrency: int,
) -> Exit:
    """Write the rows of a file and show what became of them.

    Args:
        client: The client.
        file: The file.
        command: The words of the command, which repeat the import.
        output: How to show the numbers.
        concurrency: How many messages are under way at a time.

    Raises:
        UnusableFile: The file as a whole cannot be imported. Rows before may have taken effect.
        typer.Exit: The import ended early.
    """
    unusable: list[UnusableFile] = []

    async def made() -> None:
        with _progress(file) as progressed:

            def report(numbers: ImportReport) -> None:
                file.report = numbers
                progressed()

            async with client:
                file.report = await client.import_(
                    file.rows(),
                    concurrency=concurrency,
                    progress=report,
                    rejected=file.note_rejected,
                )

    with retryable(command) as running:
        try:
            asyncio.run(made())
        except UnusableFile as error:
            unusable.append(error)
        except CreditError:
            counts = file.counts
            complain(
                f"credit: the import ended early: of {counts['rows']} rows read,"
                f" {counts['applied'] + counts['replayed']} took effect and"
                f" {counts['rejected']} were rejected\n"
            )
            raise
        finally:
            _close(file)
        running.outcome = Outcome.APPLIED
        if not unusable:
            show(file.counts, output)
            sys.stdout.flush()
    if unusable:
        raise unusable[0]
    return Exit.ROWS_REJECTED if file.counts["rejected"] else Exit.DONE


def _close(file: ImportFile) -> None:
    if file.rejected is not None:
        file.rejected.close()


@contextmanager
def _progress(file: ImportFile) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error if it is a terminal. Yield a function that updates it."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from credit_client.cli.progress import file_bar  # noqa: PLC0415 - see that module

    with file_bar(file.size) as update:

        def show_counts() -> None:
            counts = file.counts
            rejected = f", {counts['rejected']:,} rejected" if counts["rejected"] else ""
            rows = f"{counts['applied'] + counts['replayed']:,} rows"
            update(file.reader.bytes_read, rows + rejected)

        yield show_counts
