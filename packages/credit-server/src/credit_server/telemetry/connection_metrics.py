"""Counts connections for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class ConnectionMetrics:
    """The metrics of all connections."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._open = Gauge("credit_connections", "Connections that are open.", registry=registry)
        self._closed = Counter(
            "credit_connections_closed_total",
            "Connections that were closed, by reason.",
            ("reason",),
            registry=registry,
        )

    def watch(self, count: Callable[[], int]) -> None:
        """Have the number of open connections asked for whenever somebody looks."""
        self._open.set_function(count)

    def closed(self, reason: str) -> None:
        """Count a connection that was closed.

        Args:
            reason: One of the server's own words; never what a client has sent.
        """
        self._closed.labels(reason).inc()
