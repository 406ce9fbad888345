"""Record what a committer reports to its observer."""

import contextlib
from collections.abc import Iterator, Sequence


class RecordingObserver:
    """Record all reports of a committer."""

    def __init__(self) -> None:
        self.settled: list[tuple[int, int]] = []
        self.events: list[str] = []
        self.sheds: list[str] = []
        self.contexts: list[Sequence[object]] = []
        self.open_batches = 0

    def batch_settled(self, size: int, seconds: float, attempts: int) -> None:
        assert seconds >= 0
        self.settled.append((size, attempts))

    def conflict(self) -> None:
        self.events.append("conflict")

    def retried(self) -> None:
        self.events.append("retried")

    def commit_unknown(self) -> None:
        self.events.append("commit_unknown")

    def shed(self, cause: str) -> None:
        self.sheds.append(cause)

    @contextlib.contextmanager
    def batch(self, contexts: Sequence[object]) -> Iterator[None]:
        self.contexts.append(contexts)
        self.open_batches += 1
        try:
            yield
        finally:
            self.open_batches -= 1
