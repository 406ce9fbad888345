"""What the operator is told: health, metrics, logs."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from credit_server.settings.units import Seconds


class TelemetrySettings(BaseModel):
    """What the operator is told."""

    health_interval_seconds: Seconds = Field(
        default=2.0, description="pause before the store is asked again whether it takes writes"
    )
    health_timeout_seconds: Seconds = Field(
        default=3.0,
        description="how long the store has to answer that; health is wrong for no longer than"
        " interval and timeout together",
    )
    metrics: bool = Field(default=True, description="show metrics to Prometheus over HTTP")
    metrics_host: str = Field(default="127.0.0.1", description="address to show metrics on")
    metrics_port: int = Field(
        default=9464,
        ge=0,
        le=65535,
        description="port to show metrics on; 0: one that is free. Where it is not named, and the"
        " default is in use, one that is free is taken too",
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
