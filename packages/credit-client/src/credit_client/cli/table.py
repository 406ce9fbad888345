"""Values and tables for people: amounts, local times, and columns that fit the terminal."""

import datetime as dt
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import typer
from rich.cells import cell_len, set_cell_size

Record: TypeAlias = Mapping[str, object]

_AMOUNTS = {
    "balance",
    "balance_after",
    "balance_before",
    "cap",
    "captured",
    "closing",
    "count",
    "credits",
    "credits_in",
    "credits_out",
    "effect",
    "entries",
    "expired",
    "expiring",
    "held",
    "left",
    "opening",
    "owed",
    "per_day",
    "per_hour",
    "per_month",
    "refunded",
    "refunded_credits",
    "released",
    "released_credits",
    "spent",
    "transactions",
}
_NUMBERS = {"app_id", "created_by", "per_minute", "priority", "sequence", "user_id"}
_TIMES = {"as_of", "at", "from", "until"}
# Free text is wrapped where it does not fit beside other columns. Ids, numbers and times stay in
# one piece, unless one alone is wider than the terminal.
_TEXTS = {"purpose", "report_name"}
_TEXT_WIDTH_MIN = 20
_SHORT_HEADS = {
    "balance_after": "BALANCE",
    "credits_in": "IN",
    "credits_out": "OUT",
    "sequence": "SEQ",
}

_GAP = "  "
_INDENT = "  "

# The rows that wait until the columns' widths are known. Longer values make a column wider later.
_MEASURED_ROWS = 20


def shown(field: str, value: object, *, utc: bool = False) -> str:
    """Return a value as text for people.

    Amounts have thousands separators, and effects a sign. Times are in the local time zone with its
    offset, unless `utc` is set. Control characters are escaped: the names of reports must not steer
    the terminal.
    """
    if value is None:
        return "-"
    if field == "effect" and isinstance(value, int) and value:
        return f"{value:+,}"
    if field in _AMOUNTS and isinstance(value, int):
        return f"{value:,}"
    if field in _TIMES or field.endswith("_at"):
        time = dt.datetime.fromisoformat(str(value))
        return str((time if utc else time.astimezone()).replace(microsecond=0))
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(value)
    )


@dataclass(kw_only=True, slots=True)
class _Column:
    field: str
    width: int
    right: bool

    def needed(self, room: int | None) -> int:
        """Return the narrowest width that the column can have in a line with so much room."""
        needed = min(self.width, _TEXT_WIDTH_MIN) if self.field in _TEXTS else self.width
        return needed if room is None else min(needed, room)


class Table:
    """Writes a table to standard output, a row at a time, in constant memory.

    A terminal that is too narrow for all columns gets a table without the optional ones, if a row
    fits in one line then. If it does not, each row has all columns on several lines: each line has
    as many columns as fit, and the lines after the first are indented. Elsewhere a row is one line.
    """

    def __init__(
        self, fields: Sequence[str], *, optional: Sequence[str] = (), utc: bool = False
    ) -> None:
        """Write nothing yet.

        Args:
            fields: The fields of the records, which are the columns.
            optional: Those that a narrow terminal may lack; the first one is left out first.
            utc: Whether times are in UTC and not in local time.
        """
        self._optional = optional
        self._utc = utc
        self._terminal_width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        self._heads = {field: _head(field) for field in fields}
        self._columns = [
            _Column(field=field, width=len(head), right=field in _AMOUNTS | _NUMBERS)
            for field, head in self._heads.items()
        ]
        self._waiting: list[Mapping[str, str]] | None = []

    def add(self, record: Record) -> None:
        """Write a row, or keep it until the widths of the columns are known."""
        cell_of = {
            column.field: shown(column.field, record[column.field], utc=self._utc)
            for column in self._columns
        }
        for column in self._columns:
            column.width = max(column.width, cell_len(cell_of[column.field]))
        if self._waiting is None:
            self._write_row(cell_of)
            return
        self._waiting.append(cell_of)
        if len(self._waiting) >= _MEASURED_ROWS:
            self._write_waiting()

    def end(self) -> None:
        """Write the rows that were kept."""
        if self._waiting is not None:
            self._write_waiting()

    def _write_waiting(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        self._leave_out()
        self._write_row(self._heads, bold=True)
        for cell_of in waiting:
            self._write_row(cell_of)

    def _leave_out(self) -> None:
        """Remove as few optional columns as make a row fit in one line; if none do, remove none."""
        everything = self._columns
        for field in (None, *self._optional):
            self._columns = [column for column in self._columns if column.field != field]
            if len(self._lines()) == 1:
                return
        self._columns = everything

    def _write_row(self, cell_of: Mapping[str, str], *, bold: bool = False) -> None:
        for number, columns in enumerate(self._lines()):
            indent = _INDENT if number else ""
            for line in _line(columns, cell_of, self._room(indent)):
                _write(indent + line, bold=bold)

    def _lines(self) -> list[list[_Column]]:
        """Distribute the columns over as few lines as the terminal's width allows."""
        lines: list[list[_Column]] = [[]]
        for column in self._columns:
            room = self._room(_INDENT if len(lines) > 1 else "")
            used = sum(each.needed(room) + len(_GAP) for each in lines[-1])
            if room is not None and lines[-1] and used + column.needed(room) > room:
                lines.append([])
            lines[-1].append(column)
        return lines

    def _room(self, indent: str) -> int | None:
        return None if self._terminal_width is None else self._terminal_width - len(indent)


def _head(field: str) -> str:
    return _SHORT_HEADS.get(field, field.replace("_", " ").upper())


def _line(columns: Sequence[_Column], cell_of: Mapping[str, str], room: int | None) -> list[str]:
    """Return the columns of one line side by side; text that is wrapped makes more lines."""
    widths = [column.needed(room) for column in columns]
    spare = 0 if room is None else room - sum(widths) - len(_GAP) * (len(columns) - 1)
    wrapped = []
    for column, needed in zip(columns, widths, strict=True):
        width = column.width if room is None else min(column.width, needed + spare)
        spare -= width - needed
        pieces = _wrapped(cell_of[column.field], width)
        wrapped.append([_padded(piece, width, right=column.right) for piece in pieces])
    height = max(map(len, wrapped))
    filled = [pieces + [" " * cell_len(pieces[0])] * (height - len(pieces)) for pieces in wrapped]
    return [_GAP.join(pieces).rstrip() for pieces in zip(*filled, strict=True)]


def _wrapped(cell: str, width: int) -> list[str]:
    if cell_len(cell) <= width:
        return [cell]
    # Few tables need it, and these modules take 50 ms of CPU to load.
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    return [line.plain.rstrip() for line in Text(cell).wrap(Console(), width)]


def _padded(text: str, width: int, *, right: bool) -> str:
    if right:
        return " " * (width - cell_len(text)) + text
    return set_cell_size(text, width)


def _write(line: str, *, bold: bool) -> None:
    styled = bold and sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    sys.stdout.write((typer.style(line, bold=True) if styled else line) + "\n")
