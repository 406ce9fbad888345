"""Shows a long table at a terminal in a pager, as git and man do."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import TextIOBase
from typing import TextIO

# The variable LESS of less unless it is set, as in git: less ends at once if the text fits the
# screen, keeps the bold heads of tables, and leaves the text on the screen.
_LESS = "FRX"


@contextmanager
def paged() -> Iterator[None]:
    """Send what the body writes to standard output to a pager, if it is longer than the screen.

    No pager is used if standard input or output is not a terminal, or if the variable PAGER is
    empty or names no program. The body ends without an error when the pager is closed early.
    """
    command = _command(os.environ)
    if not command or not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield
        return
    screen = _Screen(sys.stdout, command)
    with contextlib.suppress(_PagerClosed):
        try:
            with redirect_stdout(screen):
                yield
        finally:
            screen.end()


class _PagerClosed(Exception):
    """The user has closed the pager."""


class _Screen(TextIOBase):
    """Standard output that starts a pager as soon as it has more lines than the terminal."""

    def __init__(self, terminal: TextIO, command: Sequence[str]) -> None:
        self._terminal = terminal
        self._command = command
        self._lines_left = shutil.get_terminal_size().lines - 1
        self._held: list[str] = []
        self._pager: subprocess.Popen[str] | None = None

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Write a text, or keep it until it is certain that the screen is too small.

        Raises:
            _PagerClosed: The pager is closed.
        """
        if self._pager is not None:
            self._write_to(self._pager, text)
            return len(text)
        self._held.append(text)
        self._lines_left -= text.count("\n")
        if self._lines_left < 0:
            self._pager = subprocess.Popen(  # noqa: S603 - the caller's own program
                self._command,
                stdin=subprocess.PIPE,
                stdout=self._terminal,
                text=True,
                encoding="utf-8",
                errors="backslashreplace",
                env={"LESS": _LESS, **os.environ},
            )
            self._write_to(self._pager, "".join(self._held))
        return len(text)

    def end(self) -> None:
        """Write what was kept, or wait until the user closes the pager."""
        if self._pager is None:
            self._terminal.write("".join(self._held))
            self._terminal.flush()
            return
        if self._pager.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._pager.stdin.close()
        while True:
            # Ctrl-C belongs to the pager, which would be left behind without its terminal.
            with contextlib.suppress(KeyboardInterrupt):
                self._pager.wait()
                return

    @staticmethod
    def _write_to(pager: subprocess.Popen[str], text: str) -> None:
        try:
            if pager.stdin is not None:
                pager.stdin.write(text)
        except BrokenPipeError:
            raise _PagerClosed from None


def _command(environment: Mapping[str, str]) -> Sequence[str]:
    """Return the words of the pager's command; none if there is no such program."""
    given = environment.get("PAGER")
    for candidate in ["less", "more"] if given is None else [given]:
        try:
            words = shlex.split(candidate)
        except ValueError:  # an unclosed quotation mark
            continue
        if words and words[0] != "cat" and shutil.which(words[0]):
            return words
    return []
