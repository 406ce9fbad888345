"""Why a write got no answer from the ledger.

    CommitError
    ├── Overloaded      more writes wait than are queued; this one was not taken in
    ├── Stopping        the server is going away; this one was not taken in
    ├── NotCommitted    the store is away or contended; this one has not happened
    └── ResultUnknown   the store did not say whether it has committed; it may have happened or not

None of them is the caller's fault, and the same request with the same key may be sent again.
"""


class CommitError(Exception):
    """A write got no answer from the ledger."""


class Overloaded(CommitError):
    """The queue is full. The write was not taken in and has not happened."""


class Stopping(CommitError):
    """The server is shutting down. The write was not taken in and has not happened."""


class NotCommitted(CommitError):
    """The store could not be reached, or was contended for too long. The write has not happened."""


class ResultUnknown(CommitError):
    """The store did not say in time whether it has committed. The write may have happened."""
