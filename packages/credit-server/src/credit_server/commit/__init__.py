"""Group commit: concurrent writes share a transaction of the store."""

from credit_server.commit.committer import CommitLimits, Committer
from credit_server.commit.errors import (
    CommitError,
    NotCommitted,
    Overloaded,
    ResultUnknown,
    Stopping,
)

__all__ = [
    "CommitError",
    "CommitLimits",
    "Committer",
    "NotCommitted",
    "Overloaded",
    "ResultUnknown",
    "Stopping",
]
