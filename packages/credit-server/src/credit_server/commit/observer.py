"""What the committer tells whoever watches it: batches, conflicts, repetitions, refusals."""

import contextlib
from collections.abc import Sequence
from typing import Protocol


class CommitObserver(Protocol):
    """Is told what happens to writes. Its methods must be quick and must not raise."""

    def batch_settled(self, size: int, seconds: float, attempts: int) -> None:
        """A batch is done with: each of its writes has its answer, or has failed.

        Args:
            size: The writes that it began with, at least 1.
            seconds: How long it took, with all repetitions and the pauses between them.
            attempts: How many units of work were begun for it, at least 1 unless all had left.
        """

    def conflict(self) -> None:
        """Somebody else changed what a batch rests on."""

    def retried(self) -> None:
        """A batch, or a part of one, is tried again."""

    def commit_unknown(self) -> None:
        """The store did not say whether it has committed."""

    def shed(self, cause: str) -> None:
        """A write was refused on arrival.

        Args:
            cause: `queue_full`, `expected_wait`, `deadline`, `clock_skewed` or `stopping`.
        """

    def batch(self, contexts: Sequence[object]) -> contextlib.AbstractContextManager[None]:
        """Enclose the settling of a batch.

        Args:
            contexts: What came with each of its writes; None where nothing did.
        """


class NoObserver:
    """Watches nothing."""

    def batch_settled(self, size: int, seconds: float, attempts: int) -> None:
        """Does nothing."""

    def conflict(self) -> None:
        """Does nothing."""

    def retried(self) -> None:
        """Does nothing."""

    def commit_unknown(self) -> None:
        """Does nothing."""

    def shed(self, cause: str) -> None:
        """Does nothing."""

    def batch(self, contexts: Sequence[object]) -> contextlib.AbstractContextManager[None]:
        """Encloses nothing."""
        return contextlib.nullcontext()
