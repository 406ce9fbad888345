"""What Prometheus is told of the store's health."""

from prometheus_client import CollectorRegistry, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class StoreMetrics:
    """The metrics of the store's health."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._healthy = Gauge(
            "credit_store_healthy",
            "1 while the store takes writes, 0 otherwise.",
            registry=registry,
        )
        self._ping = Histogram(
            "credit_store_ping_seconds",
            "How long the store took to say that it takes writes.",
            registry=registry,
            buckets=_SECONDS,
        )

    def asked(self, *, healthy: bool, seconds: float) -> None:
        """Note an answer of the store, or that there was none.

        Args:
            healthy: Whether it takes writes.
            seconds: How long it took to say so; not measured where it did not.
        """
        self._healthy.set(healthy)
        if healthy:
            self._ping.observe(seconds)
