"""`credit export`: write all transactions of a user to a file. A later run can continue it."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, TextIO

import typer
from credit_models import CreditTransaction

from credit_client.cli.calls import make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.csv_rows import CsvRows
from credit_client.cli.exits import complain
from credit_client.cli.groups import with_groups
from credit_client.cli.history import transaction_record
from credit_client.cli.options import ArgumentUser, OptionUser, one_user
from credit_client.cli.output import Format, counted, fields_of
from credit_client.cli.table import Record
from credit_client.client import CreditClient

_FIELDS = fields_of(CreditTransaction)
# The beginning of a file of each form.
_BEGINNINGS = (",".join(_FIELDS).encode() + b"\r\n", b'{"id": "')
# A file has this ending until it is complete.
_PARTIAL = ".part"


class UnusableFile(Exception):
    """A file cannot be continued. The message names the reason."""


@with_groups
def export(
    connection: Connection,
    given: ArgumentUser = None,
    user: OptionUser = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            dir_okay=False,
            help="The file to write, which must not exist. Until it is complete, its name ends"
            " with .part. Default: standard output.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            dir_okay=False,
            help="Continue this file after its last complete row. A complete file gets the"
            " transactions since then.",
        ),
    ] = None,
    output: Annotated[
        Format | None,
        typer.Option(
            "--output",
            "-o",
            help="csv, or json for a JSON document on each line. Default: csv or, with --resume,"
            " the form of the file.",
        ),
    ] = None,
) -> None:
    """Write all transactions of a user to a file, oldest first, as CSV or JSON lines."""
    if output is Format.TABLE:
        raise typer.BadParameter("an export must be csv or json", param_hint="'--output'")
    if file is not None and resume is not None:
        raise typer.BadParameter("give --file for a new file, or --resume to continue one")
    path = file or resume
    user_id = one_user("export", given, user)
    number = user_id if isinstance(user_id, int) else _number_of(user_id, connection)
    if path is None:
        _export(number, connection, _Target(file=sys.stdout, form=output or Format.CSV))
        return
    with _opened(path, number, output, resuming=resume is not None) as target:
        _export(number, connection, target)


def _number_of(user: str, connection: Connection) -> int:
    """Return the number of a user, which each row of an export has, or end the command."""
    found: list[int] = []

    async def searched(client: CreditClient) -> None:
        found.append((await client.user_credits(user_id=user)).user_id)

    make_reads(lambda client, _: searched(client), connection)
    return found[0]


@dataclass(kw_only=True, slots=True)
class _Target:
    """Where an export is written.

    Attributes:
        file: The file.
        form: CSV or JSON.
        after: The sequence of the last row in the file; 0 if it has none.
        rows: The number of rows that this run has written.
    """

    file: TextIO
    form: Format
    after: int = 0
    rows: int = 0

    def writer(self) -> Callable[[Record], object]:
        """Return a function that writes a row. Write the header of a new CSV file."""
        if self.form is Format.JSON:
            return lambda record: self.file.write(json.dumps(record) + "\n")
        rows = CsvRows(self.file, _FIELDS)
        if not self.after:
            rows.head()
        return rows.add


def _export(user: int, connection: Connection, target: _Target) -> None:
    watched = not target.file.isatty()

    async def written(client: CreditClient) -> None:
        write = target.writer()
        # An identity that belongs to certain apps gets no revision: the total is not known then.
        held = await client.user_credits(user_id=user) if watched and sys.stderr.isatty() else None
        total = None if held is None or not held.revision else held.revision
        rows = client.transactions(user_id=user, after_sequence=target.after)
        async with aclosing(rows):
            with counted("transactions", watched=watched, total=total) as progressed:
                async for row in rows:
                    write(transaction_record(row))
                    target.rows, target.after = target.rows + 1, row.sequence
                    progressed(target.rows if total is None else row.sequence)

    make_reads(lambda client, _: written(client), connection)


@contextmanager
def _opened(path: Path, user: int, form: Format | None, *, resuming: bool) -> Iterator[_Target]:
    """Open a new file, or one to continue. Rename it once it is complete.

    Raises:
        typer.BadParameter: The file cannot be used.
    """
    partial = path.with_name(path.name + _PARTIAL)
    was_complete, is_new = path.exists(), not partial.exists()
    try:
        stream, after, found = _usable(path, partial, user, form, resuming=resuming)
    except UnusableFile as error:
        raise typer.BadParameter(f"{path}: {error}") from None
    except OSError as error:
        raise typer.BadParameter(
            f"the file {path} cannot be written: {error.strerror}; name a file in a folder that you"
            " can write to"
        ) from None
    with stream, io.TextIOWrapper(stream, encoding="utf-8", newline="") as text:
        target = _Target(file=text, form=found, after=after)
        try:
            yield target
            text.flush()
            os.fsync(text.fileno())
        except BaseException:
            if target.rows or not is_new:
                complain(
                    f"credit: the export is not complete: {partial} ends with sequence"
                    f" {target.after}; the same command with --resume {path} continues it\n"
                )
            elif was_complete:
                partial.replace(path)
            else:
                partial.unlink()
            raise
    partial.replace(path)
    noun = "transaction was" if target.rows == 1 else "transactions were"
    complain(f"credit: {target.rows:,} {noun} written to {path}\n")


def _usable(
    path: Path, partial: Path, user: int, form: Format | None, *, resuming: bool
) -> tuple[IO[bytes], int, Format]:
    """Open the partial file of an export; see `_prepared` for what is returned beside it.

    Raises:
        OSError: It cannot be opened.
        UnusableFile: The file exists and is not to be continued, or it is another export.
    """
    existing = [one for one in (path, partial) if one.exists()]
    if len(existing) > 1:
        raise UnusableFile(f"{partial.name} exists too: remove one of them")
    if not existing:
        return partial.open("xb"), 0, form or Format.CSV
    if not resuming:
        raise UnusableFile(f"{existing[0].name} exists: continue it with --resume {path}")
    stream = existing[0].open("r+b")
    try:
        after, found = _prepared(stream, user, form)
        if existing == [path]:
            path.rename(partial)
    except BaseException:
        stream.close()
        raise
    return stream, after, found


def _prepared(stream: IO[bytes], user: int, form: Format | None) -> tuple[int, Format]:
    """Find the end of the last complete row, and remove what follows it.

    Returns:
        The sequence of that row, 0 if there is none, and the form of the file.

    Raises:
        UnusableFile: It is not an export of the user in this form.
    """
    head = stream.readline()
    if not any(head.startswith(one) or one.startswith(head) for one in _BEGINNINGS):
        raise UnusableFile("it is not an export")
    found = Format.JSON if head.startswith(b"{") else Format.CSV
    if not head:
        found = form or found
    elif form not in (None, found):
        raise UnusableFile(f"its form is {found.value}, and -o is {form}")
    last, end = b"", 0
    if head.endswith(b"\n"):
        begin = len(head) if found is Format.CSV else 0
        stream.seek(begin)
        last, end = _last_row(stream, begin, quoted=found is Format.CSV)
    owner, after = _identity(last, found) if last else (user, 0)
    if owner != user:
        raise UnusableFile(f"it has transactions of user {owner}, and not of {user}")
    cut = stream.seek(0, os.SEEK_END) - end
    if cut:
        complain(f"credit: an incomplete row of {cut} bytes at the end was removed\n")
    # A header without a row is written again.
    stream.seek(end if last else 0)
    stream.truncate()
    return after, found


def _last_row(stream: IO[bytes], end: int, *, quoted: bool) -> tuple[bytes, int]:
    """Return the last complete row, and where it ends. A quoted cell of CSV can have many lines."""
    last, row = b"", b""
    for line in stream:
        row += line
        if row.endswith(b"\n") and not (quoted and row.count(b'"') % 2):
            last, end, row = row, end + len(row), b""
    return last, end


def _identity(row: bytes, form: Format) -> tuple[int, int]:
    """Return the user and the sequence of a row."""
    try:
        cells = [] if form is Format.JSON else _cells(row)
        record = dict(zip(_FIELDS, cells, strict=True)) if cells else json.loads(row)
        return int(record["user_id"]), int(record["sequence"])
    except (csv.Error, KeyError, TypeError, ValueError):
        raise UnusableFile("its last row is not a transaction") from None


def _cells(row: bytes) -> list[str]:
    return next(csv.reader(io.StringIO(row.decode("utf-8", "replace"), newline="")))
