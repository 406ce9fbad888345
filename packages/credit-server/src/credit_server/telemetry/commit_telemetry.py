"""Observes group commit: counts, measures and traces batches."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

from credit_server.telemetry import batch_spans
from credit_server.telemetry.batch_spans import BatchSpans
from credit_server.telemetry.commit_metrics import CommitMetrics
from credit_server.telemetry.instruments import CommitInstruments
from credit_server.telemetry.tally import ValueT


class CommitTelemetry:
    """Observes all batches: a `commit.CommitObserver`."""

    def __init__(
        self, metrics: CommitMetrics, instruments: CommitInstruments, spans: BatchSpans | None
    ) -> None:
        """Prepare to observe.

        Args:
            metrics: Where Prometheus looks.
            instruments: Where OpenTelemetry looks.
            spans: Makes spans; None where nobody would see them.
        """
        self._metrics = metrics
        self._instruments = instruments
        self._spans = spans
        instruments.watch_shed(metrics.shed_totals)

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Have the depth of the queue asked for whenever somebody looks, from any thread."""
        self._metrics.watch_queue(depth)
        self._instruments.watch_queue(depth)

    def watch_shed(self, counts: Callable[[], Mapping[ValueT, int]]) -> None:
        """Have what is refused before it becomes a write asked for, by cause, from any thread."""
        self._metrics.watch_shed(counts)

    def batch(self, contexts: Sequence[object]) -> contextlib.AbstractContextManager[None]:
        """Enclose the settling of a batch; the contexts are what `ObservedCall.context` gives."""
        return contextlib.nullcontext() if self._spans is None else self._spans.batch(contexts)

    def batch_settled(self, size: int, seconds: float, attempts: int) -> None:
        """Note a batch whose result is certain, or was given up."""
        self._metrics.batch_settled(size, seconds)
        self._instruments.batch_settled(size, seconds)

    def conflict(self) -> None:
        """Count an attempt that lost against another writer."""
        self._metrics.conflict()
        self._instruments.conflict()
        batch_spans.event("conflict")

    def retried(self) -> None:
        """Count an attempt after the first."""
        self._metrics.retried()
        self._instruments.retried()
        batch_spans.event("retry")

    def commit_unknown(self) -> None:
        """Count a commit without a result."""
        self._metrics.commit_unknown()
        self._instruments.commit_unknown()
        batch_spans.event("commit unknown")

    def shed(self, cause: str) -> None:
        """Count a refusal."""
        self._metrics.shed(cause)
