"""A write of the command: every end but a plain success names the key of the write."""

import errno
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from credit_client.cli.exits import (
    BY_SIGNAL,
    Exit,
    complain,
    complain_at_once,
    discard,
    exit_of,
)
from credit_client.cli.flags import sentence_of
from credit_client.errors import CreditError, Outcome

_CLAUSES = {
    Outcome.NO_CHANGE: "no change was made",
    Outcome.UNKNOWN: "the write may have taken effect",
    Outcome.APPLIED: "the write took effect",
}

# A refusal that made no change ends with one of these. There is nothing to retry with the same key.
_REFUSED = {
    Exit.MISUSE,
    Exit.INSUFFICIENT_CREDITS,
    Exit.KEY_REUSED,
    Exit.OVERFLOW,
    Exit.ACCESS_DENIED,
    Exit.RATE_LIMITED,
    Exit.NOT_FOUND,
    Exit.NOT_POSSIBLE,
    Exit.CAP_EXCEEDED,
    Exit.CONDITION_FAILED,
}

# How long a standard error that nothing reads may delay the end of the process.
_DEADLINE_SECONDS = 5


class Write:
    """One write under way.

    Attributes:
        outcome: What the write did to the ledger. The code that gets the receipt sets `APPLIED`.
    """

    def __init__(self, command: Sequence[object]) -> None:
        self.outcome = Outcome.UNKNOWN
        self._command = shlex.join(map(str, command))

    def ended(self, sentence: str) -> str:
        """Return two lines: why the command ends, and which command retries the write."""
        return (
            f"credit: {sentence}\n"
            f"credit: this command retries the write, and it counts once: {self._command}\n"
        )

    def ended_by(self, error: BaseException) -> tuple[Exit, str]:
        """Return the exit code and the complaint for what the call or its output raised."""
        if isinstance(error, CreditError):
            code, sentence = exit_of(error), sentence_of(error)
            return code, f"credit: {sentence}\n" if code in _REFUSED else self.ended(sentence)
        clause = _CLAUSES[self.outcome]
        if self.outcome is not Outcome.APPLIED:
            name = type(error).__name__
            trace = "".join(traceback.format_exception(error))
            return Exit.OUTCOME_UNKNOWN, trace + self.ended(f"unexpected {name}; {clause}")
        # What the network does arrives as a `CreditError`: this is the output, on a full disk.
        why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        closed = isinstance(error, OSError) and error.errno == errno.EPIPE
        return (
            Exit.PIPE_CLOSED if closed else Exit.NOT_SHOWN,
            self.ended(f"cannot write the output: {why}; {clause}"),
        )

    def leave(self, number: int, _frame: FrameType | None) -> NoReturn:
        """Handle a signal: name the key and end the process.

        It ends at once, and not by an exception: closing the connection takes time, in which a
        second signal may come, and an exception is lost where it is raised inside a destructor.
        """
        for other in BY_SIGNAL:
            signal.signal(other, signal.SIG_IGN)
        if hasattr(signal, "alarm"):
            signal.alarm(_DEADLINE_SECONDS)
        code, sentence = BY_SIGNAL[number]
        complain_at_once(self.ended(f"{sentence}; {_CLAUSES[self.outcome]}"))
        os._exit(code)


@contextmanager
def retryable(command: Sequence[object]) -> Iterator[Write]:
    """Name a write, and the command that retries it, at every end but a plain success.

    Args:
        command: The words of that command, with the key of the write.

    Raises:
        typer.Exit: The body failed.
    """
    write = Write(command)
    # A signal that is ignored, as under `nohup`, stays ignored.
    handled = [number for number in BY_SIGNAL if signal.getsignal(number) is not signal.SIG_IGN]
    before = [(number, signal.signal(number, write.leave)) for number in handled]
    try:
        yield write
    except BaseException as error:  # noqa: BLE001 - a bug must not hide the key either
        code, complaint = write.ended_by(error)
        if write.outcome is Outcome.APPLIED and isinstance(error, OSError):
            discard(sys.stdout)
        complain(complaint)
        raise typer.Exit(code) from None
    finally:
        for number, handler in before:
            signal.signal(number, handler)
