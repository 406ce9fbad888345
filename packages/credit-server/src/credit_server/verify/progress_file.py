"""The file that keeps the progress of a verification, so that an interrupted one continues."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from credit_server.store.verification import Span
from credit_server.verify.findings import Code, Finding
from credit_server.verify.span_check import Found

_FORMAT = 1


class ProgressUnusable(Exception):
    """The progress file is invalid, or belongs to another database."""


class ProgressFile:
    """A file with one line of JSON for each range of users that was checked.

    A line is written when its range is complete, so a line that is cut off is ignored, and its
    range is checked again.
    """

    def __init__(self, path: Path, database: str) -> None:
        """Read the file if it exists.

        Args:
            path: The file.
            database: What identifies the database; see `Verification.identity`.

        Raises:
            ProgressUnusable: It cannot be read, or is of another database.
        """
        self._path = path
        self._header = {"credit_verify": _FORMAT, "database": database}
        self.done: dict[Span, Found] = {}
        try:
            if path.exists() and not path.is_file():
                # The file is removed at the end, and a device such as /dev/null must stay.
                raise ProgressUnusable(f"{path} is not a regular file: name another file")
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            if lines:
                self._read(lines)
            else:
                path.write_text(json.dumps(self._header) + "\n", encoding="utf-8")
        except OSError as error:
            raise ProgressUnusable(
                f"the progress file {path} cannot be used: {error.strerror}; name another file"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise ProgressUnusable(
                f"{path} is not a progress file of credit-server verify: name another file"
            ) from None

    def _read(self, lines: list[str]) -> None:
        if json.loads(lines[0]) != self._header:
            raise ProgressUnusable(
                f"{self._path} has the progress of another database or release, or the database was"
                " replaced: name another file, or remove it"
            )
        for line in lines[1:]:
            try:
                part = json.loads(line)
            except ValueError:
                continue  # it was cut off
            self.done[Span(part["first"], part["end"])] = _found(part)

    def add(self, span: Span, found: Found) -> None:
        """Record that a range was checked."""
        part = {"first": span.first, "end": span.end, **as_json(found)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._is_cut_off() + json.dumps(part) + "\n")

    def _is_cut_off(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) != b"\n"

    def remove(self) -> None:
        """Remove the file, because everything was checked."""
        self._path.unlink(missing_ok=True)

    def spans_from(self, first: int | None) -> Iterator[Span]:
        """Iterate over the ranges that were checked and begin at a user or later."""
        starts = sorted(self.done, key=lambda span: -1 if span.first is None else span.first)
        for span in starts:
            if first is None or (span.first is not None and span.first >= first):
                yield span


def as_json(found: Found) -> dict[str, object]:
    """Return what was found as JSON's values."""
    return {
        "users": found.users,
        "entries": found.entries,
        "counts": {code.value: count for code, count in found.counts.items()},
        "findings": [finding_json(finding) for finding in found.findings],
        "places": {code.value: sorted(places) for code, places in found.places.items()},
    }


def finding_json(finding: Finding) -> dict[str, object]:
    """Return a finding as JSON's values."""
    return {**asdict(finding), "code": finding.code.value}


# Any: the values of JSON.
def _found(part: Mapping[str, Any]) -> Found:
    return Found(
        users=part["users"],
        entries=part["entries"],
        counts=Counter({Code(code): count for code, count in part["counts"].items()}),
        findings=[Finding(**{**each, "code": Code(each["code"])}) for each in part["findings"]],
        places={Code(code): {(u, a) for u, a in places} for code, places in part["places"].items()},
    )
