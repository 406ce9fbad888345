"""Write rows as CSV (RFC 4180) that a spreadsheet opens without running a cell as a formula."""

import csv
import json
from collections.abc import Sequence
from typing import TextIO

from credit_client.cli.table import Record

# A spreadsheet takes a cell that begins with one of these as a formula (OWASP, "CSV Injection").
# The last four are the full-width forms of the first four.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class CsvRows:
    """Writes records as rows of CSV."""

    def __init__(self, out: TextIO, fields: Sequence[str]) -> None:
        """Write nothing yet.

        Args:
            out: Where the rows are written.
            fields: The fields of the records, which are the columns.
        """
        self._fields = fields
        self._writer = csv.writer(out)

    def head(self) -> None:
        """Write the names of the columns."""
        self._writer.writerow(self._fields)

    def add(self, record: Record) -> None:
        """Write a row."""
        self._writer.writerow([_cell(record[field]) for field in self._fields])


def _cell(value: object) -> object:
    """Return the value of a cell.

    Numbers stay numbers. Lists and messages are JSON. A text that a spreadsheet would take as a
    formula gets an apostrophe before it.
    """
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, bool | dict | list):
        return json.dumps(value)
    if isinstance(value, int | float):
        return value
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
