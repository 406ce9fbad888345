"""A file that is read again when it changes, and whose last good content stays if it breaks."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog
from pydantic import ValidationError

from credit_server.access.errors import FileUnusable

log = structlog.get_logger("credit_server.access")

LOOK_SECONDS = 1.0
"""How often a file is looked at, at most: a look costs a system call of some microseconds."""

_BYTES_MAX = 4_194_304

Mark = tuple[int, ...]
_Content = TypeVar("_Content")


def mark(path: Path) -> Mark:
    """Tell one state of a file from another, without reading it.

    Symbolic links are followed: Kubernetes replaces a mounted secret by swapping one.

    Raises:
        OSError: There is no such file, or it may not be looked at.
    """
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class WatchedFile(Generic[_Content]):
    """A file's parsed content, always fresh. It is looked at when it is used; there is no task."""

    def __init__(
        self,
        path: Path,
        parse: Callable[[bytes], _Content],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read a file.

        Args:
            path: The file.
            parse: Makes the content of its bytes, or raises ValueError with a reason that quotes
                nothing secret.
            clock: Tells seconds that never go back.

        Raises:
            FileUnusable: It cannot be read or parsed.
        """
        self._path = path
        self._parse = parse
        self._clock = clock
        self._looked_at = self._looked_at_once_at = clock()
        self._mark, self._content = self._read()

    def current(self) -> _Content:
        """Return the content: the same object until the file changes."""
        now = self._clock()
        if now - self._looked_at >= LOOK_SECONDS:
            self._look(now)
        return self._content

    def current_now(self) -> _Content:
        """Return the content after a look at once.

        For one who misses something that may have just been written. It is bounded, too: whoever
        can make the server miss something must not make it look at the disk for each call.
        """
        now = self._clock()
        if now - self._looked_at_once_at >= LOOK_SECONDS:
            self._looked_at_once_at = now
            self._look(now)
        return self._content

    def _look(self, now: float) -> None:
        self._looked_at = now
        try:
            found: Mark | None = mark(self._path)
        except OSError:
            found = None
        if found == self._mark:
            return
        self._mark = found  # also if it is broken: the same state is complained of once
        try:
            self._mark, self._content = self._read()
        except FileUnusable as error:
            log.error("a changed file cannot be used; the earlier content stays", error=str(error))
        else:
            log.info("a changed file was read again", path=str(self._path))

    def _read(self) -> tuple[Mark | None, _Content]:
        try:
            with self._path.open("rb") as file:
                opened = os.fstat(file.fileno())
                data = file.read(_BYTES_MAX + 1)
            if len(data) > _BYTES_MAX:
                raise FileUnusable(f"{self._path} is longer than {_BYTES_MAX} bytes.")
            found = mark(self._path)
            # Replaced while it was read: the next look must see a change.
            same = (opened.st_ino, opened.st_size, opened.st_mtime_ns) == (found[1:4])
            return (found if same else None), self._parse(data)
        except OSError as error:
            raise FileUnusable(f"{self._path} cannot be read: {error.strerror}.") from None
        except ValidationError as error:
            raise FileUnusable(f"{self._path} cannot be used: {_sentence(error)}.") from None
        except ValueError as error:
            raise FileUnusable(f"{self._path} cannot be used: {error}.") from None


def _sentence(error: ValidationError) -> str:
    """Tell what is wrong where, on one line and without the values."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{_place(problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in problems
    )


def _place(location: tuple[int | str, ...]) -> str:
    parts = (str(part) if str(part).isprintable() else ascii(part) for part in location)
    return " → ".join(parts) or "the file"
