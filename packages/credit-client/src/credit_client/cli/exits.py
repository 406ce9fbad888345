"""The exit codes of the `credit` command: part of its interface, and listed in the README."""

from enum import IntEnum

from credit_client.errors import (
    AppTotalOverflow,
    BalanceOverflow,
    CreditError,
    DeadlineExceeded,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    TooManyApps,
    Unavailable,
)


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
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it
    PIPE_CLOSED = 141  # 128 + SIGPIPE


_BY_ERROR: dict[type[CreditError], Exit] = {
    InvalidField: Exit.MISUSE,
    InsufficientCredits: Exit.INSUFFICIENT_CREDITS,
    IdempotencyKeyReused: Exit.KEY_REUSED,
    BalanceOverflow: Exit.OVERFLOW,
    AppTotalOverflow: Exit.OVERFLOW,
    TooManyApps: Exit.OVERFLOW,
    Unavailable: Exit.UNAVAILABLE,
    DeadlineExceeded: Exit.DEADLINE_EXCEEDED,
}


def exit_of(error: CreditError) -> Exit:
    """The exit code for an error."""
    return next((code for kind, code in _BY_ERROR.items() if isinstance(error, kind)), Exit.OTHER)
