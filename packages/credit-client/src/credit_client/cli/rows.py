"""The rows of a file to import: CSV with a header, or a JSON object on each line."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

from credit_client.cli.options import user_id
from credit_client.errors import InvalidField
from credit_client.importing import ImportRow

_NUMBERS = ("app_id", "credits", "created_by")
_TEXTS = ("user_id", "kind", "report_id", "report_name", "idempotency_key")
# What a file of rejected rows has in addition. `text` is a line that cannot be parsed.
_ADDED = ("text", "line", "error")
_REQUIRED = ("user_id", "app_id", "credits")
_MOVE_TEXT = ": move the values in text to their own fields, and empty text"


class UnusableFile(Exception):
    """The import cannot start, or must stop at a line. The text states why and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRow(ImportRow):
    """A row of a file.

    Attributes:
        line: The number of its line, from 1.
        source: Its values as the file has them.
    """

    line: int
    source: Mapping[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class BadLine:
    """A line that is no row.

    Attributes:
        line: Its number, from 1.
        source: Its values as in the file. If they cannot be parsed, the only value is `text`, the
            line.
        key: The key for the corrected row. None: the user must enter a key.
        problem: Why it is no row.
    """

    line: int
    source: Mapping[str, object]
    key: str | None
    problem: str


class RowReader:
    """Reads the rows of a file, in constant memory. The first line shows the file's form.

    A row without a key gets one from the import's name and its position. Lines that are no rows
    count too, so that correcting one leaves the keys of the others.

    Attributes:
        bytes_read: How far the file has been read.
        header: The columns of a CSV file, or None.
    """

    def __init__(self, file: IO[bytes], *, by: int, name: str | None) -> None:
        """Read nothing yet.

        Args:
            file: The file.
            by: The `created_by` of rows without one.
            name: The name of the import.
        """
        self.bytes_read = 0
        self.header: Sequence[str] | None = None
        self._file = file
        self._by = by
        self._name = name
        self._position = 0
        # Whether a JSON object had an `error`; None: none was read yet.
        self._has_errors: bool | None = None

    def __iter__(self) -> Iterator[FileRow | BadLine]:
        """Iterate over the lines, except empty ones.

        Raises:
            UnusableFile: The header is wrong, a row has no key and the import no name, or it is
                uncertain where a row ends.
        """
        lines = self._lines()
        line, text = next(((n, text) for n, text in lines if text.strip()), (0, ""))
        if not text:
            raise UnusableFile("the file is empty")
        if text.lstrip().startswith("{"):
            yield self._read(line, text)
        else:
            self.header = _header(line, text)
        for line, text in lines:
            # A CSV line of spaces is a bad row, and counts as a position.
            if text if self.header is not None else text.strip():
                yield self._read(line, text)

    def _lines(self) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(self._file, 1):
            self.bytes_read += len(line)
            # The checks of a line report bytes that are no text.
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
            text = text.rstrip("\r\n")
            if number == 1 and "\0" in text:  # UTF-16, or no text at all
                raise UnusableFile("the file is not UTF-8 text: save it as CSV in UTF-8")
            if "\r" in text:
                raise UnusableFile(
                    f"line {number} has a carriage return (CR) before its end, which is not valid"
                    " CSV: save the file with line ends LF or CRLF"
                )
            yield number, text

    def _read(self, line: int, text: str) -> FileRow | BadLine:
        self._position += 1
        try:
            source = _object(text) if self.header is None else _record(self.header, line, text)
        except ValueError as error:
            return self._unreadable(line, text, str(error))
        is_rejected = "error" in (self.header or source)
        self._has_errors = bool(self._has_errors) or is_rejected
        key = None if is_rejected else self._key()
        try:
            return self._row(line, text, source, key)
        except (InvalidField, TypeError, ValueError) as error:
            problem = error.message if isinstance(error, InvalidField) else str(error)
            return BadLine(line=line, source=source, key=key, problem=problem)

    def _unreadable(self, line: int, text: str, problem: str) -> BadLine:
        """Return a line that cannot be parsed."""
        if self.header is not None:
            is_rejected = "error" in self.header
        elif self._has_errors is not None:
            is_rejected = self._has_errors
        else:
            is_rejected = '"error"' in text
        key = None if is_rejected else self._key()
        if key is not None and "idempotency_key" in (self.header or text):
            problem += f"; its key is {key} if it has none of its own"
            key = None
        return BadLine(line=line, source={"text": text}, key=key, problem=problem)

    def _key(self) -> str | None:
        """Return the key of the position; None: the import has no name.

        Do not call it for rows of a file of rejected rows: their keys come from the first file.
        """
        return None if self._name is None else f"{self._name}:{self._position}"

    def _row(self, line: int, text: str, source: Mapping[str, object], key: str | None) -> FileRow:
        if source.get("text"):
            # Keep the error of the first import: it has the reason and, if needed, the key to use.
            raise ValueError(str(source.get("error", "")).removesuffix(_MOVE_TEXT) + _MOVE_TEXT)
        if source.get("idempotency_key") is None and key is None:
            raise UnusableFile(_without_key(line, rejected="error" in (self.header or source)))
        if not _is_unicode(text):
            raise ValueError("it is not valid UTF-8")
        unknown = [name for name in source if name not in (*_NUMBERS, *_TEXTS, *_ADDED)]
        if unknown:
            raise ValueError(f"{unknown[0]} is not a field of a row")
        missing = [name for name in _REQUIRED if source.get(name) is None]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        # Any: the checks of a row, which are the SDK's, find values of a wrong type.
        values: dict[str, Any] = {
            name: value
            for name, value in source.items()
            if name not in _ADDED and value is not None
        }
        if self.header is not None:
            values |= {name: _whole(name, values[name]) for name in _NUMBERS if name in values}
        if isinstance(values["user_id"], str):
            values["user_id"] = user_id(values["user_id"])
        defaults = {"created_by": self._by, "idempotency_key": key}
        row = FileRow(**(defaults | values), line=line, source=source)
        row.write()
        return row


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
        # Keep a key that the row already has: the key itself may be the reason.
        if record.get("idempotency_key") is None and key is not None:
            record["idempotency_key"] = key
        header = self._reader.header
        columns = (
            None if header is None else list(dict.fromkeys([*header, "idempotency_key", *_ADDED]))
        )
        if self._file is None:
            # Line by line: a signal ends the process without closing files.
            self._file = self._path.open(
                "w", buffering=1, encoding="utf-8", errors="surrogateescape", newline=""
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


def _object(text: str) -> Mapping[str, object]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the line is not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError("the line is not a JSON object")
    return record


def _record(header: Sequence[str], line: int, text: str) -> Mapping[str, object]:
    try:
        values = _values(line, text)
    except csv.Error as error:
        raise ValueError(f"the line is not valid CSV: {error}") from None
    if len(values) != len(header):
        raise ValueError(f"it has {len(values)} values, and the header has {len(header)}")
    return {name: value for name, value in zip(header, values, strict=True) if value != ""}


def _values(line: int, text: str) -> Sequence[str]:
    """Return the values of a CSV line.

    Raises:
        csv.Error: It is no CSV.
        UnusableFile: A quote is not closed. No value of a row may have a line break, so this is a
            mistake, and the next lines may be rows or not: their positions are uncertain.
    """
    try:
        return next(csv.reader([text + "\n"], strict=True))
    except csv.Error as error:
        if "unexpected end of data" not in str(error):
            raise
        raise UnusableFile(
            f"line {line} has a quote that is not closed, or a value with a line break: correct"
            " the line, and import the file again"
        ) from None


def _header(line: int, text: str) -> Sequence[str]:
    """Return the columns that the first line names.

    Raises:
        UnusableFile: It names others, or is no line of CSV.
    """
    if not _is_unicode(text):
        raise UnusableFile("the first line is not valid UTF-8: save the file as CSV in UTF-8")
    try:
        header = [name.strip() for name in _values(line, text)]
    except csv.Error as error:
        raise UnusableFile(f"the first line is not valid CSV: {error}") from None
    known = (*_NUMBERS, *_TEXTS, *_ADDED)
    columns = ", ".join(known[: -len(_ADDED)])
    if len(header) == 1 and any(separator in text for separator in ";\t|"):
        raise UnusableFile("the columns of a CSV file must be separated by commas")
    if not set(header) & set(known):
        raise UnusableFile(f"the first line must name the columns of a CSV file: {columns}")
    for name in header:
        if name not in known:
            raise UnusableFile(f"the header has the column {name!r}; columns are {columns}")
    for name in _REQUIRED:
        if name not in header:
            raise UnusableFile(f"the header has no column {name}")
    if len(set(header)) < len(header):
        raise UnusableFile("the header has a column twice")
    return header


def _without_key(line: int, *, rejected: bool) -> str:
    if rejected:
        return (
            f"line {line} is a rejected row without its idempotency_key: run the first import"
            " again with --rejected, which writes the key, or names it in the error of the row"
        )
    return (
        f"line {line} has no idempotency_key: pass --name, so that the import can be repeated"
        " without counting a row twice"
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(name: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None
