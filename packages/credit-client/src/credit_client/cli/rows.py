"""The rows of a file to import: CSV with a header, or a JSON object on each line."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

from credit_client.cli.options import user_id
from credit_client.errors import InvalidField
from credit_client.importing import ImportRow

_NUMBERS = ("app_id", "credits", "created_by")
_TEXTS = ("user_id", "kind", "report_id", "report_name", "idempotency_key")
# What a file of rejected rows has in addition. It can be imported again as it is.
_ADDED = ("line", "error")
_REQUIRED = ("user_id", "app_id", "credits")


class UnusableFile(Exception):
    """The file as a whole cannot be imported. The text names the remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRow(ImportRow):
    """A row of a file.

    Attributes:
        line: The number of its line, from 1; of the last one, if it has several.
        source: Its values as the file has them.
    """

    line: int
    source: Mapping[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class BadLine:
    """A line that is no row.

    Attributes:
        line: Its number, from 1.
        source: Its values, as far as they can be read.
        problem: Why it is no row.
    """

    line: int
    source: Mapping[str, object]
    problem: str


class RowReader:
    """Reads the rows of a file, in constant memory. The first line shows the file's form.

    A row without a key gets one from the import's name and its position. Lines that are no rows
    count too, so that correcting one leaves the keys of the others.

    Attributes:
        bytes_read: How far the file has been read.
        header: The columns of a CSV file, or None.
    """

    def __init__(
        self,
        file: IO[bytes],
        *,
        by: int,
        name: str | None,
        bad: Callable[[BadLine], None],
    ) -> None:
        """Read nothing yet.

        Args:
            file: The file.
            by: The `created_by` of rows without one.
            name: The name of the import.
            bad: Called with each line that is no row.
        """
        self.bytes_read = 0
        self.header: Sequence[str] | None = None
        self._file = file
        self._by = by
        self._name = name
        self._bad = bad
        self._position = 0

    def __iter__(self) -> Iterator[FileRow]:
        """Iterate over the rows.

        Raises:
            UnusableFile: The header is wrong, or a row has no key and the import no name.
        """
        lines = self._lines()
        first = next((line for line in lines if line.strip()), None)
        if first is None:
            return
        whole = _chain(first, lines)
        records = _objects(whole) if first.lstrip().startswith("{") else self._table(whole)
        for line, record in records:
            self._position += 1
            try:
                if isinstance(record, str):
                    raise ValueError(record)
                row = self._row(line, record)
            except (InvalidField, TypeError, ValueError) as error:
                source = {} if isinstance(record, str) else record
                problem = error.message if isinstance(error, InvalidField) else str(error)
                self._bad(BadLine(line=line, source=source, problem=problem))
            else:
                yield row

    def _lines(self) -> Iterator[str]:
        for number, line in enumerate(self._file):
            self.bytes_read += len(line)
            # The checks of a row report bytes that are no text; they have their line then.
            yield line.decode("utf-8-sig" if not number else "utf-8", "surrogateescape")

    def _table(self, lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, object] | str]]:
        reader = csv.reader(lines)
        header = [name.strip() for name in next(reader)]
        _check_header(header)
        self.header = header
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, f"it is no CSV: {error}"
                continue
            if not values:
                continue
            record: dict[str, object] = dict(zip(header, values, strict=False))
            if len(values) != len(header):
                problem = f"it has {len(values)} values, and the header has {len(header)}"
                self._position += 1
                self._bad(BadLine(line=reader.line_num, source=record, problem=problem))
                continue
            yield reader.line_num, {name: value for name, value in record.items() if value != ""}

    def _row(self, line: int, record: Mapping[str, object]) -> FileRow:
        unknown = [name for name in record if name not in (*_NUMBERS, *_TEXTS, *_ADDED)]
        if unknown:
            raise ValueError(f"{unknown[0]} is no field of a row")
        missing = [name for name in _REQUIRED if record.get(name) is None]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        # Any: the checks of a row, which are the SDK's, find values of a wrong type.
        values: dict[str, Any] = {
            name: value
            for name, value in record.items()
            if name not in _ADDED and value is not None
        }
        if self.header is not None:
            values |= {name: _whole(name, values[name]) for name in _NUMBERS if name in values}
        if isinstance(values["user_id"], str):
            values["user_id"] = user_id(values["user_id"])
        if "idempotency_key" not in values:
            values["idempotency_key"] = self._key(line)
        row = FileRow(**({"created_by": self._by} | values), line=line, source=record)
        row.write()
        return row

    def _key(self, line: int) -> str:
        if self._name is None:
            raise UnusableFile(
                f"line {line} has no idempotency_key: pass --name, so that the import can be"
                " repeated without counting a row twice"
            )
        return f"{self._name}:{self._position}"


class RejectedFile:
    """Writes rejected rows in the form of the imported file, with their lines and errors."""

    def __init__(self, path: Path, reader: RowReader) -> None:
        """Write nothing yet: without a rejected row there is no file."""
        self._path = path
        self._reader = reader
        self._file: TextIO | None = None

    def write(self, line: int, source: Mapping[str, object], key: str | None, error: str) -> None:
        """Write a rejected row, with its key, so that importing it again counts once."""
        record = {**source, "line": line, "error": error}
        if key is not None:
            record["idempotency_key"] = key
        header = self._reader.header
        columns = (
            None if header is None else list(dict.fromkeys([*header, "idempotency_key", *_ADDED]))
        )
        if self._file is None:
            self._file = self._path.open(
                "w", encoding="utf-8", errors="surrogateescape", newline=""
            )
            if columns is not None:
                csv.writer(self._file).writerow(columns)
        if columns is None:
            self._file.write(json.dumps(record) + "\n")
        else:
            csv.writer(self._file).writerow([record.get(name, "") for name in columns])

    def close(self) -> None:
        """Write what is left."""
        if self._file is not None:
            self._file.close()


def _chain(first: str, lines: Iterable[str]) -> Iterator[str]:
    yield first
    yield from lines


def _objects(lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            yield number, f"it is no JSON: {error}"
        else:
            yield number, record if isinstance(record, dict) else "it is no JSON object"


def _check_header(header: Sequence[str]) -> None:
    known = (*_NUMBERS, *_TEXTS, *_ADDED)
    for name in header:
        if name not in known:
            raise UnusableFile(
                f"the header has the column {name!r}; columns are {', '.join(known[:-2])}"
            )
    for name in _REQUIRED:
        if name not in header:
            raise UnusableFile(f"the header has no column {name}")
    if len(set(header)) < len(header):
        raise UnusableFile("the header has a column twice")


def _whole(name: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None
