"""Counts connections for Prometheus."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Gauge

from credit_server.telemetry.tally import Tally, ValueT


class ConnectionMetrics:
    """The metrics of all connections. The transport counts them itself; here they are shown."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._open = Gauge("credit_connections", "Connections that are open.", registry=registry)
        self._closed = Tally(
            "credit_connections_closed",
            "Connections that were closed, by reason.",
            "reason",
            registry,
        )

    def watch_open(self, count: Callable[[], int]) -> None:
        """Have the number of open connections asked for whenever somebody looks."""
        self._open.set_function(count)

    def watch_closed(
        self, counts: Callable[[], Mapping[ValueT, int]], reasons: Iterable[str] = ()
    ) -> None:
        """Have the closed connections, by reason, asked for whenever somebody looks.

        Args:
            counts: How many there have been; it only ever grows.
            reasons: What is shown from the start, so that a first one is an increase.
        """
        self._closed.expect(*reasons)
        self._closed.watch(counts)
