"""Counts what becomes of batches, for Prometheus."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from credit_server.telemetry.tally import Tally, ValueT

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CAUSES = (
    "queue_full",
    "expected_wait",
    "deadline",
    "calls",
    "loop_lag",
    "clock_skewed",
    "stopping",
)


class CommitMetrics:
    """The metrics of group commit."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._size = Histogram(
            "credit_batch_size", "Writes in a batch.", registry=registry, buckets=_SIZES
        )
        self._seconds = Histogram(
            "credit_batch_seconds",
            "How long a batch took until its result was certain, with all its attempts.",
            registry=registry,
            buckets=_SECONDS,
        )
        self._depth = Gauge(
            "credit_queue_depth", "Writes that have no answer yet.", registry=registry
        )
        self._conflicts = Counter(
            "credit_conflicts_total",
            "Attempts at a batch that lost against another writer.",
            registry=registry,
        )
        self._retries = Counter(
            "credit_retries_total", "Attempts at a batch after its first.", registry=registry
        )
        self._unknown = Counter(
            "credit_commit_unknown_total",
            "Commits of which the store did not say whether they had happened.",
            registry=registry,
        )
        self._shed = Tally(
            "credit_shed",
            "Calls that were refused unread: too much to do, a skewed clock, or a shutdown.",
            "cause",
            registry,
        )
        self._shed.expect(*_CAUSES)

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Have the depth of the queue asked for whenever somebody looks."""
        self._depth.set_function(depth)

    def watch_shed(self, counts: Callable[[], Mapping[ValueT, int]]) -> None:
        """Have what others refuse, by cause, asked for whenever somebody looks."""
        self._shed.watch(counts)

    def batch_settled(self, size: int, seconds: float) -> None:
        """Note a batch whose result is certain, or was given up."""
        self._size.observe(size)
        self._seconds.observe(seconds)

    def conflict(self) -> None:
        """Count an attempt that lost against another writer."""
        self._conflicts.inc()

    def retried(self) -> None:
        """Count an attempt after the first."""
        self._retries.inc()

    def commit_unknown(self) -> None:
        """Count a commit without a result."""
        self._unknown.inc()

    def shed(self, cause: str) -> None:
        """Count a refusal."""
        self._shed.add(cause)

    def shed_totals(self) -> Mapping[str, int]:
        """Return all refusals by cause, those of others too, from any thread."""
        return self._shed.totals()
