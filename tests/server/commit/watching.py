"""An observer that keeps all that it is told."""

import contextlib
from collections.abc import Iterator, Sequence


class Watching:
    """Keeps what a committer tells."""

    def __init__(self) -> None:
        self.settled: list[tuple[int, int]] = []
        self.told: list[str] = []
        self.sheds: list[str] = []
        self.contexts: list[Sequence[object]] = []
        self.open_batches = 0

    def batch_settled(self, size: int, seconds: float, attempts: int) -> None:
        assert seconds >= 0
        self.settled.append((size, attempts))

    def conflict(self) -> None:
        self.told.append("conflict")

    def retried(self) -> None:
        self.told.append("retried")

    def commit_unknown(self) -> None:
        self.told.append("commit_unknown")

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
