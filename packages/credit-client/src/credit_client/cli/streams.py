"""The command's standard streams: open in any case, and complaints that find a way out."""

import contextlib
import os
import sys
from typing import TextIO

_STDIN, _STDOUT, _STDERR = range(3)


def open_standard_streams() -> None:
    """Open what the shell closed (`>&-`), so that writing to it fails as to a full disk.

    Python sets such a stream to None, and the next socket would get its number.
    """
    for number in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(number)
        except OSError:
            # The system gives the lowest free number. Read only: who closed it wants no output.
            os.open(os.devnull, os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = _writer(_STDOUT)
    if sys.stderr is None:
        sys.stderr = _writer(_STDERR)


def complain(text: str) -> None:
    """Write a text to standard error or, where that is impossible, to standard output."""
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            discard(stream)
        else:
            return


def complain_at_once(text: str) -> None:
    """Do the same inside a signal handler, past Python's buffers, which may be in use."""
    for number in (_STDERR, _STDOUT):
        rest = os.fsencode(text)
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(number, rest) :]
            return


def discard(stream: TextIO) -> None:
    """Drop what a stream still holds, or Python would complain at its end that it cannot write."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _writer(number: int) -> TextIO:
    return open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
