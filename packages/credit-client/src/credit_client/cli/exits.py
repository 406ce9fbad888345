"""The exit codes of the `credit` command: part of its interface, and listed in the README."""

import signal
from collections.abc import Mapping
from enum import IntEnum

from grpclib.const import Status

from credit_client.errors import (
    AccessDenied,
    AppTotalOverflow,
    BalanceOverflow,
    CreditError,
    CreditsLimitExceeded,
    DeadlineExceeded,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    Outcome,
    RateLimited,
    TlsFailed,
    TokenUnavailable,
    TooManyApps,
    Unavailable,
)
from credit_client.transport import AttemptFailed


class Exit(IntEnum):
    """What a script can tell apart."""

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
        "a balance or sum would pass 4294967295, a user would have too many apps, or one call adds"
        " too many credits"
    ),
    Exit.UNAVAILABLE: "the server cannot be reached or is in trouble",
    Exit.DEADLINE_EXCEEDED: "no answer in time, and no sign of trouble before",
    Exit.ACCESS_DENIED: "no token, one that the server does not take, or not allowed",
    Exit.RATE_LIMITED: "too many calls in too short a time: repeat later",
    Exit.OUTCOME_UNKNOWN: "a write may have taken effect: retry it with its key",
    Exit.NOT_SHOWN: "a write took effect, but its result could not be shown",
    Exit.HUNG_UP: "hung up",
    Exit.INTERRUPTED: "interrupted",
    Exit.QUIT: "quit",
    Exit.PIPE_CLOSED: "the reader of the output has gone",
    Exit.TERMINATED: "terminated",
}

_BY_NAME = {
    "SIGHUP": Exit.HUNG_UP,
    "SIGINT": Exit.INTERRUPTED,
    "SIGQUIT": Exit.QUIT,
    "SIGTERM": Exit.TERMINATED,
}

# The signals by which people and systems end a command, with its exit code and what it says.
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
    TooManyApps: Exit.OVERFLOW,
    AccessDenied: Exit.ACCESS_DENIED,
    TokenUnavailable: Exit.ACCESS_DENIED,
    RateLimited: Exit.RATE_LIMITED,
    TlsFailed: Exit.UNAVAILABLE,
    Unavailable: Exit.UNAVAILABLE,
    DeadlineExceeded: Exit.DEADLINE_EXCEEDED,
}


def exit_of(error: CreditError) -> Exit:
    """Return the exit code for an error.

    For a write, what became of it matters more than the cause. For the rest, where the time ran out
    during retries, the trouble is what a script wants to know: the server is not slow but away.
    """
    if error.idempotency_key is not None:
        if error.outcome is Outcome.UNKNOWN:
            return Exit.OUTCOME_UNKNOWN
        if error.outcome is Outcome.APPLIED:
            return Exit.NOT_SHOWN
    cause = error.__cause__
    trouble = isinstance(cause, AttemptFailed) and cause.status is Status.UNAVAILABLE
    if trouble and isinstance(error, DeadlineExceeded):
        return Exit.UNAVAILABLE
    return next((code for kind, code in _BY_ERROR.items() if isinstance(error, kind)), Exit.OTHER)
