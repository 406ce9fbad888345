"""How answers are shown: aligned columns for people, JSON for programs; a row at a time."""

import dataclasses
import datetime as dt
import json
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from enum import Enum, StrEnum
from typing import TypeAlias

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.text import Text

Record: TypeAlias = Mapping[str, object]


class Format(StrEnum):
    """What `--output` takes."""

    TABLE = "table"
    JSON = "json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        field: The record's field.
        width: Characters; longer values push what follows to the right rather than lose a digit.
        right: Whether values are aligned to the right.
    """

    field: str
    width: int
    right: bool = False

    def cell(self, value: object) -> str:
        """One value, padded."""
        text = _printable(value)
        return text.rjust(self.width) if self.right else text.ljust(self.width)


def record_of(message: object) -> Record:
    """All fields of a message under the contract's names, with the unset ones too.

    Times become ISO 8601 in UTC, enums their names, and integers stay integers.
    """
    if not dataclasses.is_dataclass(message):
        raise TypeError(f"{type(message).__name__} is not a message")
    return {
        field.name: _plain(getattr(message, field.name)) for field in dataclasses.fields(message)
    }


def show(record: Record, output: Format) -> None:
    """Writes one answer: a JSON document, or a line for each field."""
    if output is Format.JSON:
        _write(json.dumps(record))
        return
    width = max(map(len, record))
    for name, value in record.items():
        _write(f"{name.ljust(width)}  {_printable(value)}")


def show_rows(records: Sequence[Record], columns: Sequence[Column], noun: str) -> None:
    """Writes a table that is there as a whole; says so on stderr where it is empty."""
    _head(columns)
    for record in records:
        _row(record, columns)
    if not records:
        _say_none(noun)


async def show_stream(
    messages: AsyncGenerator[object, None], columns: Sequence[Column], output: Format, noun: str
) -> None:
    """Writes messages as they come, and holds none of them: JSON lines, or rows of a table.

    Where the rows go elsewhere and somebody watches, a count on stderr says how far it is. The
    messages are closed in the end, however it comes: also where the output can take no more.
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
    if output is Format.TABLE:
        _head(columns)
    count = 0
    async with aclosing(messages):
        with progress:
            task = progress.add_task(noun, total=None)
            async for message in messages:
                _entry(record_of(message), columns, output)
                progress.advance(task)
                count += 1
    if output is Format.TABLE and not count:
        _say_none(noun)


def _entry(record: Record, columns: Sequence[Column], output: Format) -> None:
    if output is Format.JSON:
        _write(json.dumps(record))
    else:
        _row(record, columns)


def _say_none(noun: str) -> None:
    sys.stderr.write(f"no {noun}\n")


def _head(columns: Sequence[Column]) -> None:
    line = "  ".join(column.cell(column.field.replace("_", " ").upper()) for column in columns)
    if sys.stdout.isatty():
        Console().print(Text(line.rstrip(), style="bold"), soft_wrap=True)
    else:
        _write(line.rstrip())


def _row(record: Record, columns: Sequence[Column]) -> None:
    _write("  ".join(column.cell(record[column.field]) for column in columns).rstrip())


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")


def _plain(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list):
        return [record_of(item) for item in value]
    return value


def _printable(value: object) -> str:
    """A value as text that cannot steer the terminal: names come from whoever sold the report."""
    text = "-" if value is None else str(value)
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
