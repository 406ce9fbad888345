"""Show answers: tables for people, JSON and CSV for programs. A list is shown row by row."""

import dataclasses
import datetime as dt
import json
import sys
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from credit_models import Receipt

from credit_client.cli.csv_rows import CsvRows
from credit_client.cli.table import Record, Table, shown

# Fields that are often unset. A table shows them only if they are set.
_SELDOM = {
    "credits",
    "effect",
    "expiring",
    "held",
    "owed",
    "owed_after",
    "released_credits",
    "type",
    "validated",
}

# The credits of an entry that removed a cap: the contract's greatest number.
_NO_CAP = 2**32 - 1

# The order of a receipt's fields in a table. What is not here comes first.
_LAST = (
    "type",
    "credits",
    "effect",
    "balance_before",
    "balance",
    "owed",
    "held",
    "released_credits",
    "expires_at",
    "related_id",
    "sequence",
    "revision",
    "replayed",
    "validated",
)


class Format(StrEnum):
    """The values of `--output`."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The form of a list.

    Attributes:
        noun: What the rows are.
        fields: All fields of a record, which are the columns of CSV.
        columns: The fields that are the columns of a table.
        optional: The columns that a table leaves out on a narrow terminal, in this order.
    """

    noun: str
    fields: Sequence[str]
    columns: Sequence[str]
    optional: Sequence[str] = ()


class Rows(Protocol):
    """Writes the rows of a list, each as it arrives."""

    def add(self, record: Record) -> None:
        """Write a row."""

    def end(self) -> None:
        """Write what is left after the last row."""


def fields_of(message_type: type) -> tuple[str, ...]:
    """Return the names of a message's fields."""
    return tuple(field.name for field in dataclasses.fields(message_type))


def record_of(message: object) -> Record:
    """Return all fields of a message under the contract's names, the unset ones too.

    Times become ISO 8601 in UTC, enums their names, bytes base64, and integers stay integers.
    """
    if not dataclasses.is_dataclass(message):
        raise TypeError(f"{type(message).__name__} is not a message")
    return {
        field.name: plain(getattr(message, field.name)) for field in dataclasses.fields(message)
    }


def show_json(record: Record) -> None:
    """Write a JSON document on one line."""
    sys.stdout.write(json.dumps(record) + "\n")


def show(record: Record, output: Format, *, utc: bool = False) -> None:
    """Write one answer: a JSON document, CSV of one row, or a line for each field with a value."""
    if output is Format.JSON:
        show_json(record)
    elif output is Format.CSV:
        _Csv(tuple(record)).add(record)
    else:
        given = {name: value for name, value in record.items() if _is_given(name, value)}
        if given.get("type") == "CAP" and given.get("credits") == _NO_CAP:
            del given["credits"]
        width = max(map(len, given))
        for name, value in given.items():
            sys.stdout.write(f"{name.ljust(width)}  {shown(name, value, utc=utc)}\n")


def show_receipt(receipt: Receipt, output: Format) -> None:
    """Write the receipt of a write, in a table with the balance before the one after it.

    The table leaves out the hash, because people do not compare hashes by eye.
    """
    record = dict(record_of(receipt))
    if output is Format.TABLE:
        record |= {name: record.pop(name) for name in _LAST}
        if receipt.revision in (0, receipt.sequence):
            del record["revision"]
        del record["hash"]
        if receipt.validated:
            del record["replayed"], record["transaction_id"]
    show(record, output)


def show_rows(
    records: Iterable[Record], layout: Layout, output: Format, *, utc: bool = False
) -> None:
    """Write a list that is complete already."""
    rows = _rows(layout, output, utc=utc)
    for record in records:
        rows.add(record)
    rows.end()


async def show_stream(
    messages: AsyncGenerator[object, None],
    layout: Layout,
    output: Format,
    *,
    utc: bool = False,
    record: Callable[[object], Record] = record_of,
    row: Callable[[Record], Record] | None = None,
    live: bool = False,
) -> None:
    """Write messages as they arrive, in constant memory: JSON lines, CSV, or rows of a table.

    Where standard output is no terminal and standard error is one, a count on stderr shows the
    progress. The messages are closed in any case, also where the output cannot be written.

    Args:
        messages: The messages.
        layout: The form of the list.
        output: The form of the output.
        utc: Whether a table has times in UTC.
        record: Makes the record of a message.
        row: Makes the row of a table from a record; None changes nothing.
        live: Whether to show each row at once, because the next one can be long in coming.
    """
    rows, count = _rows(layout, output, utc=utc), 0
    for_table = row if output is Format.TABLE else None
    async with aclosing(messages):
        with counted(layout.noun, watched=not sys.stdout.isatty()) as progressed:
            async for message in messages:
                made = record(message)
                rows.add(made if for_table is None else for_table(made))
                if live:
                    rows.end()
                    sys.stdout.flush()
                count += 1
                progressed(count)
    rows.end()


@contextmanager
def counted(
    noun: str, *, watched: bool, total: int | None = None
) -> Iterator[Callable[[int], None]]:
    """Show on standard error how many rows have arrived, if it is a terminal.

    Args:
        noun: What the rows are.
        watched: Whether to show it at all.
        total: The number of all rows, if it is known.

    Yields:
        A function that sets the number.
    """
    if not (watched and sys.stderr.isatty()):
        yield lambda _: None
        return
    from credit_client.cli.progress import counter  # noqa: PLC0415 - see that module

    with counter(noun, total) as progressed:
        yield progressed


def _rows(layout: Layout, output: Format, *, utc: bool) -> Rows:
    if output is Format.JSON:
        return _JsonLines()
    return _Csv(layout.fields) if output is Format.CSV else ReportedTable(layout, utc=utc)


class _JsonLines:
    """A list as NDJSON: a JSON document on each line."""

    def add(self, record: Record) -> None:
        show_json(record)

    def end(self) -> None:
        pass


class _Csv:
    """A list as CSV on standard output. It has a header even if it has no row."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._rows = CsvRows(sys.stdout, fields)
        self._rows.head()

    def add(self, record: Record) -> None:
        self._rows.add(record)

    def end(self) -> None:
        pass


class ReportedTable:
    """A list as a table. If it is empty, a line on standard error reports it."""

    def __init__(self, layout: Layout, *, utc: bool) -> None:
        """Write nothing yet."""
        self._table = Table(layout.columns, optional=layout.optional, utc=utc)
        self._noun = layout.noun
        self._empty = True

    def add(self, record: Record) -> None:
        """See `Rows`."""
        self._empty = False
        self._table.add(record)

    def end(self) -> None:
        """See `Rows`."""
        if self._empty:
            sys.stderr.write(f"no {self._noun}\n")
        else:
            self._table.end()


def _is_given(name: str, value: object) -> bool:
    if name in _SELDOM:
        return bool(value) and value != "UNSPECIFIED"
    return value not in (None, "", [], {})


def plain(value: object) -> object:
    """Return a value of a message as JSON has it; see `record_of`."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, list):
        return [record_of(item) for item in value]
    if dataclasses.is_dataclass(value):
        return record_of(value)
    return value
