"""Observe calls and batches: count, measure and trace them."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TypeVar

from grpclib._typing import IServable
from grpclib.const import Status
from grpclib.protocol import Peer
from opentelemetry import trace
from prometheus_client import CollectorRegistry

from credit_server.telemetry import traces
from credit_server.telemetry.certificates import CertificateWatch
from credit_server.telemetry.conventions import methods_of
from credit_server.telemetry.metrics import (
    CallMetrics,
    CertificateMetrics,
    CommitMetrics,
    ConnectionMetrics,
    MethodMetrics,
    OperationMetrics,
    ProcessMetrics,
    StoreMetrics,
    SweeperMetrics,
    WatchMetrics,
    WebhookMetrics,
)
from credit_server.telemetry.traces import BatchSpans, CallSpan, CallSpans

_CauseT = TypeVar("_CauseT", bound=str)


class Telemetry:
    """Observes one server.

    Attributes:
        registry: The metrics, for Prometheus.
        commits: Observes batches.
        connections: The metrics of connections.
        store: The metrics of the store's health.
        sweeper: The metrics of the sweeper.
        watchers: The metrics of streams of Watch.
        webhooks: The metrics of webhooks.
        process: The metrics of the process.
        certificates: Watches certificates that expire.
    """

    def __init__(self, *, tracer_provider: trace.TracerProvider | None = None) -> None:
        """Register the metrics, and make a tracer if an SDK records spans.

        Args:
            tracer_provider: The provider of the tracer; None for the provider of the process.
        """
        tracer_provider = tracer_provider or trace.get_tracer_provider()
        # Without an SDK no span is made: it would cost 6 µs a call, most of it to read the client's
        # context, and be dropped.
        self._tracer: trace.Tracer | None = None
        if not isinstance(tracer_provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            self._tracer = tracer_provider.get_tracer("credit_server", version("credit-server"))
        self.registry = CollectorRegistry()
        self.commits = CommitTelemetry(
            CommitMetrics(self.registry), None if self._tracer is None else BatchSpans(self._tracer)
        )
        self.connections = ConnectionMetrics(self.registry)
        self.store = StoreMetrics(self.registry)
        self.sweeper = SweeperMetrics(self.registry)
        self.watchers = WatchMetrics(self.registry)
        self.webhooks = WebhookMetrics(self.registry)
        self.process = ProcessMetrics(self.registry)
        self.certificates = CertificateWatch(CertificateMetrics(self.registry))

    def calls(
        self,
        services: Iterable[IServable],
        *,
        server_address: str,
        server_port: int,
        operation_kinds: Iterable[str] = (),
    ) -> "CallTelemetry":
        """Return the observer of the calls of services. Call it once for a server.

        Args:
            services: All services of the server. They determine the labels of the metrics.
            server_address: The address on which the server listens.
            server_port: Its port; 0 if it is not known yet.
            operation_kinds: The kinds of operations of calls that have several.
        """
        spans = None
        if self._tracer is not None:
            spans = CallSpans(self._tracer, server_address=server_address, server_port=server_port)
        return CallTelemetry(
            CallMetrics(self.registry, methods_of(services)),
            OperationMetrics(self.registry, operation_kinds),
            spans,
        )


class ObservedCall:
    """Observes one call: a `CallObservation` of the gRPC layer.

    Attributes:
        trace_id: The trace that the call is recorded in; None if it is not recorded.
        context: The call's span, which the span of its batch links to; None if it has none.
    """

    __slots__ = ("_metrics", "_operations", "_span", "context", "trace_id")

    def __init__(
        self, metrics: MethodMetrics, operations: OperationMetrics, span: CallSpan | None
    ) -> None:
        """Prepare to observe a call, with the metrics of its method and its span, if any."""
        self._metrics = metrics
        self._operations = operations
        self._span = span
        self.trace_id = None if span is None else span.trace_id
        self.context = None if span is None else span.span

    def message_received(self) -> None:
        """Count a message that was received."""
        self._metrics.received.inc()

    def message_sent(self, count: int = 1) -> None:
        """Count messages that were sent."""
        self._metrics.sent.inc(count)

    def operation_ended(self, kind: str, status: Status) -> None:
        """Count an operation of the call."""
        self._operations.count(kind, status)

    def finished(self, status: Status, seconds: float) -> None:
        """Record the end of the call."""
        self._metrics.handled[status].inc()
        self._metrics.handling.observe(seconds)
        if self._span is not None:
            self._span.finished(status)


class CallTelemetry:
    """Observes all calls: a `CallObserver` of the gRPC layer."""

    def __init__(
        self, metrics: CallMetrics, operations: OperationMetrics, spans: CallSpans | None
    ) -> None:
        """Prepare to observe calls.

        Args:
            metrics: The metrics of calls.
            operations: The metrics of operations.
            spans: Starts spans; None if no SDK records them.
        """
        self._metrics = metrics
        self._operations = operations
        self._spans = spans

    def started(self, path: str, metadata: Mapping[str, str], peer: Peer) -> ObservedCall:
        """Record the start of a call, and return its observer."""
        metrics = self._metrics.of(path)
        metrics.started.inc()
        span = None if self._spans is None else self._spans.start(metrics.method, metadata, peer)
        return ObservedCall(metrics, self._operations, span)


class CommitTelemetry:
    """Observes all batches: a `CommitObserver` of group commit."""

    def __init__(self, metrics: CommitMetrics, spans: BatchSpans | None) -> None:
        """Prepare to observe batches.

        Args:
            metrics: The metrics of group commit.
            spans: Makes spans; None if no SDK records them.
        """
        self._metrics = metrics
        self._spans = spans

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Read the depth of the queue from a function at each scrape, in any thread."""
        self._metrics.queue_depth.set_function(depth)

    def watch_shed(self, counts: Callable[[], Mapping[_CauseT, int]]) -> None:
        """Read what is rejected before it becomes a write from a function at each scrape.

        Args:
            counts: Returns the number of rejected calls by cause. Any thread may call it.
        """
        self._metrics.shed.watch(counts)

    def batch(self, contexts: Sequence[object]) -> contextlib.AbstractContextManager[None]:
        """Return a context that encloses a batch; the contexts are `ObservedCall.context`."""
        return contextlib.nullcontext() if self._spans is None else self._spans.batch(contexts)

    def batch_settled(self, size: int, seconds: float, attempts: int) -> None:
        """Record a batch whose result is certain, or that failed."""
        self._metrics.batch_size.observe(size)
        self._metrics.batch_seconds.observe(seconds)

    def conflict(self) -> None:
        """Count an attempt that lost against another writer."""
        self._metrics.conflicts.inc()
        traces.add_event("conflict")

    def retried(self) -> None:
        """Count an attempt after the first."""
        self._metrics.retries.inc()
        traces.add_event("retry")

    def commit_unknown(self) -> None:
        """Count a commit without a known result."""
        self._metrics.commit_unknown.inc()
        traces.add_event("commit unknown")

    def shed(self, cause: str) -> None:
        """Count a rejected write."""
        self._metrics.shed.inc(cause)
