"""Why a write got no answer from the ledger.

    CommitError
    ├── Overloaded      more writes wait than are queued; this one was not taken in
    ├── Stopping        the server is going away; this one was not taken in
    └── ResultUnknown   the store went away or is contended; this one may have happened or not

None of them is the caller's fault, and the same request with the same key may be sent again.
"""


class CommitError(Exception):
    """A write got no answer from the ledger."""


class Overloaded(CommitError):
    """The queue is full. The write was not taken in and has not happened."""


class Stopping(CommitError):
    """The server is shutting down. The write was not taken in and has not happened."""


class ResultUnknown(CommitError):
    """The store did not answer in time. The write may have happened or not."""
