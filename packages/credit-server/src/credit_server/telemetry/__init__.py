"""What the operator is told of a running server: metrics, traces and health."""

from credit_server.telemetry.exposition import Exposition, exposed
from credit_server.telemetry.health import HealthWatch
from credit_server.telemetry.telemetry import Telemetry

__all__ = ["Exposition", "HealthWatch", "Telemetry", "exposed"]
