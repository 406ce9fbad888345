"""Watch certificates that expire: export the days left, and log a warning every day."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from credit_server.access.tls import ENDS_SOON, Validity
from credit_server.telemetry.metrics import CertificateMetrics

log = structlog.get_logger("credit_server.access")

_DAY = timedelta(days=1)
_INTERVAL_SECONDS = 3600.0


def _now() -> datetime:
    return datetime.now(UTC)


class CertificateWatch:
    """Watches the files of certificates that the server uses."""

    def __init__(self, metrics: CertificateMetrics) -> None:
        """Prepare to watch.

        Args:
            metrics: Exports the days that are left.
        """
        self._metrics = metrics
        self._warned_at: datetime | None = None

    async def watch(
        self,
        validities: Callable[[], Sequence[Validity]],
        *,
        now: Callable[[], datetime] = _now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Check the certificates now and then every hour, until cancelled.

        Args:
            validities: Returns the periods in which the files in use are valid.
            now: Returns the time in UTC.
            sleep: Waits for a number of seconds.
        """
        while True:
            self.look(validities(), now())
            await sleep(_INTERVAL_SECONDS)

    def look(self, validities: Sequence[Validity], now: datetime) -> None:
        """Update the metric, and log a warning if one is due."""
        warnings = {}
        for validity in validities:
            left = validity.ends - now
            self._metrics.days_left(str(validity.path), left / _DAY)
            if left < ENDS_SOON or now < validity.begins:
                warnings[validity] = left
        if warnings and (self._warned_at is None or now - self._warned_at >= _DAY):
            self._warned_at = now
            for validity, left in warnings.items():
                _warn(validity, left, now)


def _warn(validity: Validity, left: timedelta, now: datetime) -> None:
    fields = {"path": str(validity.path), "ends": _utc(validity.ends)}
    if now < validity.begins:
        log.warning(
            "certificate is not valid yet: TLS handshakes fail; check this machine's clock",
            begins=_utc(validity.begins),
            **fields,
        )
    elif left <= timedelta():
        log.warning("certificate has expired: TLS handshakes fail; renew it", **fields)
    else:
        log.warning("certificate expires soon: renew it", days_left=left // _DAY, **fields)


def _utc(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
