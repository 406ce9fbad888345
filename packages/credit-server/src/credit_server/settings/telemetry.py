"""Health, metrics and logs."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from credit_server.settings.fields import Settings


class TelemetrySettings(Settings):
    """Health, metrics and logs."""

    title: ClassVar[str] = "Health, metrics and logs"

    metrics: bool = True
    """Show metrics to Prometheus over HTTP."""

    metrics_host: str = "127.0.0.1"
    """Address to show metrics on."""

    metrics_port: Annotated[int, Ge(0), Le(65535)] = 9464
    """Port to show metrics on; 0: any free port. If it is not set and the default is in use, the
    server uses any free port too."""

    audit_log: Path | None = None
    """File for the audit log, as JSON lines. Without one, the audit log goes to the other logs if
    the server has identities, and nowhere if not."""

    log_format: Literal["auto", "console", "json"] = "auto"
    """Format of the log. auto: console at a terminal, JSON otherwise."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged. Calls are logged at info."""
