"""How the `credit` command ends: its exit codes, and its last lines on a stream that works.

The exit codes are part of the command's interface, and `docs/cli.md` lists them. This module needs
no extra.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import TextIO

from grpclib.const import Status

from credit_client.errors import (
    AccessDenied,
    AccountFull,
    AlertEventsExpired,
    AlreadyPurchased,
    AppTotalOverflow,
    AvailableTooLow,
    BalanceOverflow,
    CapExceeded,
    CheckpointRejected,
    CreditError,
    CreditsLimitExceeded,
    DeadLetterNotFound,
    DeadlineExceeded,
    ExpiresTooEarly,
    GrantEmpty,
    GrantNotFound,
    GrantsFull,
    HistoryAltered,
    HoldExceeded,
    HoldLifeExceeded,
    HoldNotFound,
    HoldSettled,
    HoldsFull,
    IdempotencyKeyNotFound,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    NotReversible,
    Outcome,
    PageTokenInvalid,
    RateLimited,
    ResumeTokenExpired,
    ResumeTokenInvalid,
    ReversalExceeds,
    RevisionChanged,
    RevisionNotReached,
    SummaryTooLarge,
    TlsFailed,
    TokenUnavailable,
    TooManyAlerts,
    TooManyApps,
    TooManyWebhooks,
    TransactionNotFound,
    Unavailable,
    UserIdsExhausted,
    UserNotFound,
    WebhookUrlNotAllowed,
)
from credit_client.transport import AttemptFailed

_STDIN, _STDOUT, _STDERR = range(3)


class Exit(IntEnum):
    """The exit codes, each of which a script can act on."""

    DONE = 0
    OTHER = 1
    MISUSE = 2
    INSUFFICIENT_CREDITS = 3
    KEY_REUSED = 4
    OVERFLOW = 5
    UNAVAILABLE = 6
    DEADLINE_EXCEEDED = 7
    ACCESS_DENIED = 8
    RATE_LIMITED = 9
    OUTCOME_UNKNOWN = 10
    NOT_SHOWN = 11
    ROWS_REJECTED = 12
    NOT_CONFIRMED = 13
    NOT_FOUND = 14
    NOT_POSSIBLE = 15
    CAP_EXCEEDED = 16
    CONDITION_FAILED = 17
    HISTORY_ALTERED = 18
    HUNG_UP = 129  # 128 + SIGHUP, as shells have it
    INTERRUPTED = 130  # 128 + SIGINT
    QUIT = 131  # 128 + SIGQUIT
    PIPE_CLOSED = 141  # 128 + SIGPIPE
    TERMINATED = 143  # 128 + SIGTERM


MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done",
    Exit.OTHER: "another error, or the output cannot be written",
    Exit.MISUSE: "misuse, or a constraint is broken",
    Exit.INSUFFICIENT_CREDITS: "too few credits",
    Exit.KEY_REUSED: "the idempotency key belongs to another request",
    Exit.OVERFLOW: (
        "a balance, a sum or the number of a new user would pass 4294967295, a user would have too"
        " many apps, grants or holds, or one call adds too many credits"
    ),
    Exit.UNAVAILABLE: "the server cannot be reached or cannot serve",
    Exit.DEADLINE_EXCEEDED: "no answer in time, and no other failure before",
    Exit.ACCESS_DENIED: "no token, a token that the server rejects, or not allowed",
    Exit.RATE_LIMITED: "rate limit exceeded: retry later",
    Exit.OUTCOME_UNKNOWN: "a write may have taken effect: retry it with its key",
    Exit.NOT_SHOWN: "a write took effect, but its result could not be shown",
    Exit.ROWS_REJECTED: "rows of an import were rejected, and all others took effect",
    Exit.NOT_CONFIRMED: "not confirmed at the terminal: no change was made",
    Exit.NOT_FOUND: (
        "there is no such transaction, grant, hold, user, idempotency key or dead letter"
    ),
    Exit.NOT_POSSIBLE: (
        "the state of the hold, grant, transaction or report does not permit the write, such as a"
        " hold that has ended"
    ),
    Exit.CAP_EXCEEDED: "a spending cap would be exceeded: retry when its period has ended",
    Exit.CONDITION_FAILED: (
        "the user's revision is not the expected one or is lower than required, or the balance"
        " would be too low"
    ),
    Exit.HISTORY_ALTERED: (
        "a history was changed after the server wrote it, or a checkpoint has no valid signature"
    ),
    Exit.HUNG_UP: "hung up",
    Exit.INTERRUPTED: "interrupted",
    Exit.QUIT: "quit",
    Exit.PIPE_CLOSED: "the reader of the output has closed it",
    Exit.TERMINATED: "terminated",
}

_BY_NAME = {
    "SIGHUP": Exit.HUNG_UP,
    "SIGINT": Exit.INTERRUPTED,
    "SIGQUIT": Exit.QUIT,
    "SIGTERM": Exit.TERMINATED,
}

# The signals by which people and systems end a command, with its exit code and its message.
BY_SIGNAL: Mapping[int, tuple[Exit, str]] = {
    getattr(signal, name): (code, MEANINGS[code])
    for name, code in _BY_NAME.items()
    if hasattr(signal, name)  # Windows has two of them
}

_BY_ERROR: dict[type[CreditError], Exit] = {
    InvalidField: Exit.MISUSE,
    InsufficientCredits: Exit.INSUFFICIENT_CREDITS,
    IdempotencyKeyReused: Exit.KEY_REUSED,
    CreditsLimitExceeded: Exit.OVERFLOW,
    BalanceOverflow: Exit.OVERFLOW,
    AppTotalOverflow: Exit.OVERFLOW,
    TooManyAlerts: Exit.OVERFLOW,
    TooManyWebhooks: Exit.OVERFLOW,
    WebhookUrlNotAllowed: Exit.MISUSE,
    DeadLetterNotFound: Exit.NOT_FOUND,
    TooManyApps: Exit.OVERFLOW,
    GrantsFull: Exit.OVERFLOW,
    HoldsFull: Exit.OVERFLOW,
    AccountFull: Exit.OVERFLOW,
    ExpiresTooEarly: Exit.MISUSE,
    HoldLifeExceeded: Exit.MISUSE,
    TransactionNotFound: Exit.NOT_FOUND,
    IdempotencyKeyNotFound: Exit.NOT_FOUND,
    UserNotFound: Exit.NOT_FOUND,
    UserIdsExhausted: Exit.OVERFLOW,
    PageTokenInvalid: Exit.MISUSE,
    SummaryTooLarge: Exit.MISUSE,
    ResumeTokenInvalid: Exit.MISUSE,
    ResumeTokenExpired: Exit.NOT_POSSIBLE,
    AlertEventsExpired: Exit.NOT_POSSIBLE,
    GrantNotFound: Exit.NOT_FOUND,
    HoldNotFound: Exit.NOT_FOUND,
    HoldSettled: Exit.NOT_POSSIBLE,
    HoldExceeded: Exit.NOT_POSSIBLE,
    GrantEmpty: Exit.NOT_POSSIBLE,
    NotReversible: Exit.NOT_POSSIBLE,
    ReversalExceeds: Exit.NOT_POSSIBLE,
    AlreadyPurchased: Exit.NOT_POSSIBLE,
    CapExceeded: Exit.CAP_EXCEEDED,
    RevisionChanged: Exit.CONDITION_FAILED,
    RevisionNotReached: Exit.CONDITION_FAILED,
    AvailableTooLow: Exit.CONDITION_FAILED,
    HistoryAltered: Exit.HISTORY_ALTERED,
    CheckpointRejected: Exit.HISTORY_ALTERED,
    AccessDenied: Exit.ACCESS_DENIED,
    TokenUnavailable: Exit.ACCESS_DENIED,
    RateLimited: Exit.RATE_LIMITED,
    TlsFailed: Exit.UNAVAILABLE,
    Unavailable: Exit.UNAVAILABLE,
    DeadlineExceeded: Exit.DEADLINE_EXCEEDED,
}


def exit_of(error: CreditError) -> Exit:
    """Return the exit code for an error.

    For a write, its outcome matters more than the cause of the error. For other errors, where the
    time ran out during retries, the failure before counts: the server is not slow but away.
    """
    if error.idempotency_key is not None:
        if error.outcome is Outcome.UNKNOWN:
            return Exit.OUTCOME_UNKNOWN
        if error.outcome is Outcome.APPLIED:
            return Exit.NOT_SHOWN
    cause = error.__cause__
    away = isinstance(cause, AttemptFailed) and cause.status is Status.UNAVAILABLE
    if away and isinstance(error, DeadlineExceeded):
        return Exit.UNAVAILABLE
    return next((code for kind, code in _BY_ERROR.items() if isinstance(error, kind)), Exit.OTHER)


def open_standard_streams() -> None:
    """Open the streams that the shell closed (`>&-`), so that writing fails as on a full disk.

    Python sets such a stream to None, and the next socket would get its number.
    """
    for number in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(number)
        except OSError:
            # The system assigns the lowest free number. Read only: a closed stream gets no output.
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
    """Do what `complain` does in a signal handler, without Python's buffers: they may be in use."""
    for number in (_STDERR, _STDOUT):
        rest = os.fsencode(text)
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(number, rest) :]
            return


def discard(stream: TextIO) -> None:
    """Drop what a stream still holds, or Python would report at its exit that it cannot write."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _writer(number: int) -> TextIO:
    return open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
