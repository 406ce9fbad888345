"""Report a running server to its operator: metrics, traces and health."""

from credit_server.telemetry.exposition import Exposition, exposed
from credit_server.telemetry.health import HealthWatch
from credit_server.telemetry.observers import Telemetry

__all__ = ["Exposition", "HealthWatch", "Telemetry", "exposed"]
