"""Why a write got no answer from the ledger.

    CommitError
    ├── Overloaded      it would wait too long, or find no place; this one was not taken in
    ├── Stopping        the server is going away; this one was not taken in
    ├── NotCommitted    the store is away or contended; this one has not happened
    └── ResultUnknown   the store did not say whether it has committed; it may have happened or not

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


class NotCommitted(CommitError):
    """The store could not be reached, or was contended for too long. The write has not happened."""


class ResultUnknown(CommitError):
    """The store did not say in time whether it has committed. The write may have happened."""
