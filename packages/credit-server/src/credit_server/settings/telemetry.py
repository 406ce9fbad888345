"""What the operator is told: health, metrics, logs."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from credit_server.settings.units import Seconds


class TelemetrySettings(BaseModel):
    """What the operator is told."""

    health_interval_seconds: Seconds = Field(
        default=2.0, description="how often the store is asked whether it takes writes"
    )
    audit_log: Path | None = Field(
        default=None,
        description="file for the audit log, JSON lines; none: with the other logs, where"
        " identities are known, and nowhere else",
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console at a terminal, JSON otherwise"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is logged; calls are logged at info"
    )
