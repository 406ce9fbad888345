"""Why a write got no answer from the ledger.

    CommitError
    ├── Overloaded      it would wait too long, or find no place; this one was not taken in
    ├── Stopping        the server is going away; this one was not taken in
    ├── ClockSkewed     the clocks of server and store differ; this one has not happened
    ├── NotCommitted    the store is away or contended; this one has not happened, nor will it
    └── ResultUnknown   the store did not report whether it has committed; it may have happened,
                        or may still happen

None of them is the caller's fault, and the same request with the same key may be sent again.
"""


class CommitError(Exception):
    """A write got no answer from the ledger."""


class Overloaded(CommitError):
    """The write would wait too long. It was not taken in and has not happened.

    Attributes:
        retry_seconds: When it should be sent again.
    """

    def __init__(self, message: str = "", *, retry_seconds: float = 0.1) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class Stopping(CommitError):
    """The server is shutting down. The write was not taken in and has not happened."""


class ClockSkewed(CommitError):
    """The clocks of the server and its store differ by too much. The write has not happened.

    Attributes:
        skew_seconds: By how much they differ, at least.
        limit_seconds: By how much they may differ.
    """

    def __init__(self, *, skew_seconds: float, limit_seconds: float) -> None:
        super().__init__(
            f"the clocks of the server and its store differ by at least {skew_seconds:.3f} s, and"
            f" {limit_seconds:g} s are allowed"
        )
        self.skew_seconds = skew_seconds
        self.limit_seconds = limit_seconds


class NotCommitted(CommitError):
    """The store could not be reached, or was contended for too long, or failed.

    The write has not happened, and no attempt at it is left that could still take effect.
    """


class ResultUnknown(CommitError):
    """It was not learnt in time whether the store has committed.

    The write may have happened, or may still happen.
    """
