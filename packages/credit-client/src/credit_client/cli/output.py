"""How answers are shown: tables for people, JSON for programs; a list a row at a time."""

import dataclasses
import datetime as dt
import json
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from enum import Enum, StrEnum

from credit_models import Receipt, TransactionType
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from credit_client.cli.table import Record, Table, shown

# The fields of a receipt that some writes set and others do not. A table has those that are set.
_SELDOM = {"credits", "effect", "held", "owed", "released_credits", "type", "validated"}

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


def record_of(message: object) -> Record:
    """Return all fields of a message under the contract's names, the unset ones too.

    Times become ISO 8601 in UTC, enums their names, and integers stay integers.
    """
    if not dataclasses.is_dataclass(message):
        raise TypeError(f"{type(message).__name__} is not a message")
    return {
        field.name: _plain(getattr(message, field.name)) for field in dataclasses.fields(message)
    }


def show_json(record: Record) -> None:
    """Write a JSON document on one line."""
    sys.stdout.write(json.dumps(record) + "\n")


def show(record: Record, output: Format, *, utc: bool = False) -> None:
    """Write one answer: a JSON document, or a line for each field that has a value."""
    if output is Format.JSON:
        show_json(record)
        return
    given = {name: value for name, value in record.items() if _is_given(name, value)}
    width = max(map(len, given))
    for name, value in given.items():
        sys.stdout.write(f"{name.ljust(width)}  {shown(name, value, utc=utc)}\n")


def show_receipt(receipt: Receipt, output: Format) -> None:
    """Write the receipt of a write, in a table with the balance before the one after it."""
    record = dict(record_of(receipt))
    if output is Format.TABLE:
        record |= {name: record.pop(name) for name in _LAST}
        if receipt.type is TransactionType.UNSPECIFIED:
            # The receipts of `AddCredits` and `UseCredits` do not have it.
            del record["balance_before"]
        if receipt.revision in (0, receipt.sequence):
            del record["revision"]
        if receipt.validated:
            del record["replayed"], record["transaction_id"]
    show(record, output)


def show_rows(
    records: Iterable[Record],
    fields: Sequence[str],
    noun: str,
    *,
    optional: Sequence[str] = (),
    utc: bool = False,
) -> None:
    """Write a table that is complete already; report on stderr if it is empty."""
    table, count = Table(fields, optional=optional, utc=utc), 0
    for count, record in enumerate(records, 1):  # noqa: B007 - the last one is the count
        table.add(record)
    table.end()
    if not count:
        _report_none(noun)


async def show_stream(
    messages: AsyncGenerator[object, None],
    fields: Sequence[str],
    output: Format,
    noun: str,
    *,
    optional: Sequence[str] = (),
    utc: bool = False,
    row: Callable[[Record], Record] | None = None,
) -> None:
    """Write messages as they come, in constant memory: JSON lines, or rows of a table.

    Where standard output is no terminal and standard error is one, a count on stderr shows the
    progress. The messages are closed in any case, also where the output cannot be written.
    """
    watched = sys.stderr.isatty() and not sys.stdout.isatty()
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.completed} " + noun),
        console=Console(stderr=True),
        transient=True,
        disable=not watched,
        # It would print what is written to stdout at the terminal, and leave the file empty.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    table = Table(fields, optional=optional, utc=utc) if output is Format.TABLE else None
    count = 0
    async with aclosing(messages):
        with progress:
            task = progress.add_task(noun, total=None)
            async for message in messages:
                record = record_of(message)
                if table is None:
                    show_json(record)
                else:
                    table.add(record if row is None else row(record))
                progress.advance(task)
                count += 1
    if table is not None:
        table.end()
        if not count:
            _report_none(noun)


def _report_none(noun: str) -> None:
    sys.stderr.write(f"no {noun}\n")


def _is_given(name: str, value: object) -> bool:
    if name in _SELDOM:
        return bool(value) and value != "UNSPECIFIED"
    return value not in (None, "")


def _plain(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list):
        return [record_of(item) for item in value]
    if dataclasses.is_dataclass(value):
        return record_of(value)
    return value
