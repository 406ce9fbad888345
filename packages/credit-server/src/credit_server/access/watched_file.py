"""Files that are loaded again when they change. A broken change keeps the last good content."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog
from credit_models.faults import rule
from pydantic import ValidationError

from credit_server.access.identity import FileUnusable

log = structlog.get_logger("credit_server.access")

# How often files are checked, at most: a check costs a system call of some microseconds for each.
LOOK_SECONDS = 1.0

_BYTES_MAX = 4_194_304

_Content = TypeVar("_Content")


class WatchedFiles(Generic[_Content]):
    """What some files contain, always fresh. They are checked when it is used; there is no task."""

    def __init__(
        self,
        paths: Sequence[Path],
        load: Callable[[], _Content],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the files.

        Args:
            paths: The files.
            load: Returns their content, or raises FileUnusable.
            clock: Returns seconds that never go back.

        Raises:
            FileUnusable: They cannot be loaded.
        """
        self._paths = paths
        self._load = load
        self._clock = clock
        self._checked_at = self._checked_now_at = clock()
        # Before they are read: if one is replaced meanwhile, the next check sees a change.
        self._state = self._current_state()
        self._content = load()

    def current(self) -> _Content:
        """Return the content: the same object until a file changes."""
        now = self._clock()
        if now - self._checked_at >= LOOK_SECONDS:
            self._check(now)
        return self._content

    def current_now(self) -> _Content:
        """Return the content after an immediate check.

        It is for callers that miss something that may have just been written. It is bounded too:
        a client that can make the server miss something must not make it check for each call.
        """
        now = self._clock()
        if now - self._checked_now_at >= LOOK_SECONDS:
            self._checked_now_at = now
            self._check(now)
        return self._content

    def _check(self, now: float) -> None:
        self._checked_at = now
        state = self._current_state()
        if state == self._state:
            return
        self._state = state  # also if it is broken: the same state is logged once
        try:
            self._content = self._load()
        except FileUnusable as error:
            log.error("a changed file cannot be used; the earlier content stays", error=str(error))
        else:
            log.info("a changed file was read again", path=str(self._paths[0]))

    def _current_state(self) -> list[tuple[int, ...] | None]:
        """Return what distinguishes one state of the files from another, without reading them."""
        return [_state(path) for path in self._paths]


class WatchedFile(WatchedFiles[_Content]):
    """The parsed content of one file, always fresh."""

    def __init__(
        self,
        path: Path,
        parse: Callable[[bytes], _Content],
        *,
        setting: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read a file.

        Args:
            path: The file.
            parse: Returns the content of its bytes, or raises ValueError with a reason that quotes
                nothing secret.
            setting: The environment variable that names the file, for error messages.
            clock: Returns seconds that never go back.

        Raises:
            FileUnusable: It cannot be read or parsed.
        """
        super().__init__([path], lambda: _read(path, parse, setting), clock=clock)


def _state(path: Path) -> tuple[int, ...] | None:
    # Symbolic links are followed: Kubernetes replaces a mounted secret by swapping one.
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: Path, parse: Callable[[bytes], _Content], setting: str) -> _Content:
    name = f"{setting} {path}"
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
        if len(data) > _BYTES_MAX:
            raise FileUnusable(f"{name} is longer than {_BYTES_MAX} bytes.")
        return parse(data)
    except OSError as error:
        raise FileUnusable(f"{name} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        raise FileUnusable(f"{name} cannot be used: {_sentence(error)}.") from None
    except ValueError as error:
        raise FileUnusable(f"{name} cannot be used: {error}.") from None


def _sentence(error: ValidationError) -> str:
    """Describe what is wrong where, on one line and without the values."""
    problems = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{_place(problem['loc'])}: {rule(problem)}" for problem in problems)


def _place(location: tuple[int | str, ...]) -> str:
    parts = (str(part) if str(part).isprintable() else ascii(part) for part in location)
    return " → ".join(parts) or "the file"
