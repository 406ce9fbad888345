"""The committer reports batches, conflicts, retries and rejected writes to an observer."""

import contextlib
from collections.abc import Sequence
from typing import Protocol


class CommitObserver(Protocol):
    """Receives what happens to writes. Its methods must be quick and must not raise."""

    def batch_settled(self, size: int, seconds: float, attempts: int) -> None:
        """Note that a batch has ended: each of its writes has an answer.

        Args:
            size: The number of its writes at the beginning, at least 1.
            seconds: How long it took, with all retries and the pauses between them.
            attempts: How many transactions were begun for it; at least 1, unless no caller waited.
        """

    def conflict(self) -> None:
        """Note that another writer changed what a batch had read."""

    def retried(self) -> None:
        """Note that a batch, or a part of one, is retried."""

    def commit_unknown(self) -> None:
        """Note that the store did not report whether it has committed."""

    def shed(self, cause: str) -> None:
        """Note that a write was rejected on arrival.

        Args:
            cause: `queue_full`, `expected_wait`, `deadline`, `clock_skewed` or `stopping`.
        """

    def batch(self, contexts: Sequence[object]) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that is entered while a batch runs.

        Args:
            contexts: The context of each of its writes; None for a write without one.
        """
