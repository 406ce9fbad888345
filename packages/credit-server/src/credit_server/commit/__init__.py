"""Group commit: concurrent writes share a transaction of the store."""

from credit_server.commit.clock import Clock
from credit_server.commit.committer import CommitLimits, Committer
from credit_server.commit.errors import (
    ClockSkewed,
    CommitError,
    NotCommitted,
    Overloaded,
    ResultUnknown,
    Stopping,
)
from credit_server.commit.event_order import EventOrder
from credit_server.commit.event_retention import EventRetention
from credit_server.commit.observer import CommitObserver
from credit_server.commit.pending import Answer, Submission, WriteResult
from credit_server.commit.sweeper import Sweeper, SweepLimits, SweepObserver

__all__ = [
    "Answer",
    "Clock",
    "ClockSkewed",
    "CommitError",
    "CommitLimits",
    "CommitObserver",
    "Committer",
    "EventOrder",
    "EventRetention",
    "NotCommitted",
    "Overloaded",
    "ResultUnknown",
    "Stopping",
    "Submission",
    "SweepLimits",
    "SweepObserver",
    "Sweeper",
    "WriteResult",
]
