"""Define every metric that the server exports to Prometheus.

The metrics of calls have the names of go-grpc-prometheus, so dashboards and alerts that are made
for it work here too. Names, types, labels and buckets are released: a test freezes them.
"""

import asyncio
import platform
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar, cast

from grpclib.const import Status
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily

from credit_server.telemetry.conventions import UNKNOWN, Method, go_code

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PING_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
_SHED_CAUSES = (
    "queue_full",
    "expected_wait",
    "deadline",
    "calls",
    "loop_lag",
    "clock_skewed",
    "stopping",
)

# About thirty measurements between two scrapes. The cost is negligible.
_LAG_INTERVAL_SECONDS = 0.5

_LabelT = TypeVar("_LabelT", bound=str)


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodMetrics:
    """The metrics of one method. Their labels are bound once: a look-up costs more than a count.

    Attributes:
        method: The method.
        started: Counts calls that started.
        handled: Count calls that ended, by status.
        received: Counts messages that were received.
        sent: Counts messages that were sent.
        handling: Observes the duration of calls, in seconds.
    """

    method: Method
    started: Counter
    handled: Mapping[Status, Counter]
    received: Counter
    sent: Counter
    handling: Histogram


class CallMetrics:
    """The metrics of all calls.

    Every series exists from the start, so that a first failure is an increase. Prometheus's `rate`
    does not see an increase in a series that is new.
    """

    def __init__(self, registry: CollectorRegistry, methods: Mapping[str, Method]) -> None:
        """Register the metrics.

        Args:
            registry: The registry that exports them.
            methods: The methods that the server serves, by path.
        """
        labels = ("grpc_type", "grpc_service", "grpc_method")
        self._started = Counter(
            "grpc_server_started_total", "Calls that started.", labels, registry=registry
        )
        self._handled = Counter(
            "grpc_server_handled_total",
            "Calls that ended, by status.",
            (*labels, "grpc_code"),
            registry=registry,
        )
        self._received = Counter(
            "grpc_server_msg_received_total",
            "Valid messages that the server received.",
            labels,
            registry=registry,
        )
        self._sent = Counter(
            "grpc_server_msg_sent_total",
            "Messages that the server sent.",
            labels,
            registry=registry,
        )
        self._handling = Histogram(
            "grpc_server_handling_seconds",
            "Duration of calls, from their headers to their status.",
            labels,
            registry=registry,
            buckets=_SECONDS,
        )
        bound = {method: self._bind(method) for method in {*methods.values(), UNKNOWN}}
        self._unknown = bound[UNKNOWN]
        self._methods = {path: bound[method] for path, method in methods.items()}

    def of(self, path: str) -> MethodMetrics:
        """Return the metrics of the method with a path. All paths that are not served share one."""
        return self._methods.get(path, self._unknown)

    def _bind(self, method: Method) -> MethodMetrics:
        labels = method.type, method.service, method.name
        return MethodMetrics(
            method=method,
            started=self._started.labels(*labels),
            handled={status: self._handled.labels(*labels, go_code(status)) for status in Status},
            received=self._received.labels(*labels),
            sent=self._sent.labels(*labels),
            handling=self._handling.labels(*labels),
        )


class OperationMetrics:
    """The metrics of the operations of calls that have several."""

    def __init__(self, registry: CollectorRegistry, kinds: Iterable[str]) -> None:
        """Register the metrics.

        Args:
            registry: The registry that exports them.
            kinds: All kinds of operations.
        """
        ended = Counter(
            "credit_operations_total",
            "Operations of BatchWrite and Write that ended, by status.",
            ("kind", "grpc_code"),
            registry=registry,
        )
        self._ended = {
            (kind, status): ended.labels(kind, go_code(status))
            for kind in kinds
            for status in Status
        }

    def count(self, kind: str, status: Status) -> None:
        """Count an operation that ended."""
        self._ended[kind, status].inc()


class CommitMetrics:
    """The metrics of group commit.

    Attributes:
        batch_size: Observes the number of writes in a batch.
        batch_seconds: Observes the duration of a batch.
        queue_depth: The number of writes without an answer.
        conflicts: Counts attempts that lost against another writer.
        retries: Counts attempts after the first.
        commit_unknown: Counts commits without a known result.
        shed: Counts rejected calls by cause.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        self.batch_size = Histogram(
            "credit_batch_size", "Writes in a batch.", registry=registry, buckets=_BATCH_SIZES
        )
        self.batch_seconds = Histogram(
            "credit_batch_seconds",
            "Duration of a batch until its result was certain, with all its attempts.",
            registry=registry,
            buckets=_SECONDS,
        )
        self.queue_depth = Gauge(
            "credit_queue_depth", "Writes that have no answer yet.", registry=registry
        )
        self.conflicts = Counter(
            "credit_conflicts_total",
            "Attempts at a batch that lost against another writer.",
            registry=registry,
        )
        self.retries = Counter(
            "credit_retries_total", "Attempts at a batch after its first.", registry=registry
        )
        self.commit_unknown = Counter(
            "credit_commit_unknown_total",
            "Commits for which the store did not report whether they took effect.",
            registry=registry,
        )
        self.shed = LabelledCounts(
            "credit_shed",
            "Calls that were rejected before they were read: overload, clock skew or shutdown.",
            "cause",
            registry,
        )
        self.shed.expect(*_SHED_CAUSES)


class SweeperMetrics:
    """The metrics of the sweeper: a `SweepObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        self._settled = Counter(
            "credit_settled_total",
            "How often the sweeper wrote what was due in an app of a user.",
            registry=registry,
        )
        self._lag = Gauge(
            "credit_settle_lag_seconds",
            "How long the oldest entry that the sweeper found has been due;"
            " grows if the sweeper fails.",
            registry=registry,
        )

    def swept(self, settled: int, lag_seconds: float) -> None:
        """Record the progress of a sweep."""
        self._settled.inc(settled)
        self._lag.set(lag_seconds)


class WatchMetrics:
    """The metrics of streams of `Watch`: a `WatchObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        self._watchers = Gauge("credit_watchers", "Open streams of Watch.", registry=registry)
        self._delay = Histogram(
            "credit_watch_delay_seconds",
            "Time from the creation of a transaction until its watchers are notified.",
            registry=registry,
            buckets=_SECONDS,
        )

    def changed(self, watchers: int) -> None:
        """Record the number of streams."""
        self._watchers.set(watchers)

    def distributed(self, delay_seconds: float) -> None:
        """Record the delay of a transaction."""
        self._delay.observe(delay_seconds)


class WebhookMetrics:
    """The metrics of webhooks: a `WebhookObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        self._delivered = Counter(
            "credit_webhook_delivered_total",
            "Events that webhooks have acknowledged.",
            registry=registry,
        )
        self._failed = Counter(
            "credit_webhook_failed_total",
            "Attempts to deliver an event that have failed.",
            registry=registry,
        )
        self._oldest = Gauge(
            "credit_webhook_pending_seconds",
            "Age of the oldest event that a webhook has not acknowledged and that will be retried.",
            registry=registry,
        )
        self._dead = Gauge(
            "credit_webhook_dead_letters",
            "Events that no attempt has delivered. The server does not retry them.",
            registry=registry,
        )

    def delivered(self) -> None:
        """Count an acknowledged event."""
        self._delivered.inc()

    def failed(self) -> None:
        """Count an attempt that has failed."""
        self._failed.inc()

    def waiting(self, oldest_seconds: float, dead: int) -> None:
        """Record the backlog."""
        self._oldest.set(oldest_seconds)
        self._dead.set(dead)


class ConnectionMetrics:
    """The metrics of all connections. The transport counts them; this class exports the counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        self._open = Gauge("credit_connections", "Open connections.", registry=registry)
        self._closed = LabelledCounts(
            "credit_connections_closed", "Closed connections, by reason.", "reason", registry
        )

    def watch_open(self, count: Callable[[], int]) -> None:
        """Read the number of open connections from a function at each scrape, in any thread."""
        self._open.set_function(count)

    def watch_closed(
        self, counts: Callable[[], Mapping[_LabelT, int]], reasons: Iterable[str] = ()
    ) -> None:
        """Read the number of closed connections from a function at each scrape, in any thread.

        Args:
            counts: Returns the number by reason. It never decreases.
            reasons: The reasons that are exported from the start.
        """
        self._closed.expect(*reasons)
        self._closed.watch(counts)


class StoreMetrics:
    """The metrics of the store's health."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        self._healthy = Gauge(
            "credit_store_healthy",
            "1 while the store takes writes, 0 otherwise.",
            registry=registry,
        )
        self._ping = Histogram(
            "credit_store_ping_seconds",
            "Duration of a health check of the store that succeeded.",
            registry=registry,
            buckets=_PING_SECONDS,
        )

    def checked(self, *, healthy: bool, seconds: float) -> None:
        """Record a health check of the store.

        Args:
            healthy: Whether the store takes writes.
            seconds: The duration of the check. It is recorded only if the check succeeded.
        """
        self._healthy.set(healthy)
        if healthy:
            self._ping.observe(seconds)


class ProcessMetrics:
    """The metrics of the process: version, CPU, memory, files, and the lag of the event loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        build = Info("credit_build", "Versions of credit-server and Python.", registry=registry)
        build.info({"version": version("credit-server"), "python": platform.python_version()})
        self._lag = Histogram(
            "credit_event_loop_lag_seconds",
            "Delay between the time at which a timer was due and the time at which it ran.",
            registry=registry,
            buckets=_LAG_SECONDS,
        )

    async def watch_loop(self) -> None:
        """Measure the lag of the running event loop until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_INTERVAL_SECONDS
            await asyncio.sleep(_LAG_INTERVAL_SECONDS)
            self._lag.observe(max(0.0, loop.time() - due))


class CertificateMetrics:
    """The metric of certificates that expire."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metric."""
        self._days_left = Gauge(
            "credit_certificate_days_left",
            "Days until the first certificate of the file expires; below 0: it has expired.",
            ["file"],
            registry=registry,
        )

    def days_left(self, file: str, days: float) -> None:
        """Set the days that are left for a file of certificates."""
        self._days_left.labels(file).set(days)


class LabelledCounts:
    """A counter with one label that also exports what other parts of the server count.

    A `Counter` of prometheus-client cannot read a count from elsewhere, and an event that is
    already counted need not be counted twice.
    """

    def __init__(
        self, name: str, documentation: str, label: str, registry: CollectorRegistry
    ) -> None:
        """Register the counter."""
        self._name = name
        self._documentation = documentation
        self._label = label
        self._own: Counts[str] = Counts()
        self._others: list[Callable[[], Mapping[str, int]]] = []
        registry.register(self)

    def expect(self, *values: str) -> None:
        """Export values of the label from the start, so that a first event is an increase."""
        for value in values:
            self._own[value] += 0

    def inc(self, value: str) -> None:
        """Count an event. The value is one of the server's own, never one that a client sent."""
        self._own[value] += 1

    def watch(self, counts: Callable[[], Mapping[_LabelT, int]]) -> None:
        """Add counts that another part of the server keeps.

        Args:
            counts: Returns the counts by label. They never decrease. Any thread may call it.
        """
        self._others.append(cast(Callable[[], Mapping[str, int]], counts))

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return the totals, in the thread of the scrape."""
        total = self._own.copy()
        for counts in self._others:
            # A copy of a dict is atomic: the event loop may add a key while this thread iterates.
            total.update({**counts()})
        family = CounterMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, count in total.items():
            family.add_metric([value], count)
        yield family
