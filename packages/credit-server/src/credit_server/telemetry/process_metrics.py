"""What Prometheus is told of the process: its version, memory, files, and how its loop keeps up."""

import asyncio
import platform
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    Info,
    ProcessCollector,
)

_LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LOOK_SECONDS = 0.5
"""Often enough for some thirty looks between two scrapes, and seldom enough to cost nothing."""


class ProcessMetrics:
    """The metrics of the process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        build = Info("credit_build", "What runs here.", registry=registry)
        build.info({"version": version("credit-server"), "python": platform.python_version()})
        self._lag = Histogram(
            "credit_event_loop_lag_seconds",
            "How much later than it was due the event loop ran a timer.",
            registry=registry,
            buckets=_LAGS,
        )

    async def watch_loop(self) -> None:
        """Measure how late the running loop is, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOK_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
            self._lag.observe(max(0.0, loop.time() - due))
