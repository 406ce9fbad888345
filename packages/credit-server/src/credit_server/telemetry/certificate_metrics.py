"""Certificates that end: a metric with the days left, and a warning at start and every day."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from prometheus_client import CollectorRegistry, Gauge

from credit_server.access.tls import ENDS_SOON, Validity

log = structlog.get_logger("credit_server.access")

_DAY = timedelta(days=1)
_LOOK_SECONDS = 3600.0


def _now() -> datetime:
    return datetime.now(UTC)


class CertificateMetrics:
    """The days left of each file of certificates that the server uses."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._days_left = Gauge(
            "credit_certificate_days_left",
            "Days until the first certificate of the file ends; below 0: it has ended.",
            ["file"],
            registry=registry,
        )
        self._warned: datetime | None = None

    async def watch(
        self,
        validities: Callable[[], Sequence[Validity]],
        *,
        now: Callable[[], datetime] = _now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Look at once and then every hour, until cancelled.

        Args:
            validities: Returns when the files in use are valid.
            now: Returns the time in UTC.
            sleep: Waits for so many seconds.
        """
        while True:
            self.look(validities(), now())
            await sleep(_LOOK_SECONDS)

    def look(self, validities: Sequence[Validity], now: datetime) -> None:
        """Update the metric, and log a warning where one is due."""
        warnings = {}
        for validity in validities:
            left = validity.ends - now
            self._days_left.labels(str(validity.path)).set(left / _DAY)
            if left < ENDS_SOON or now < validity.begins:
                warnings[validity] = left
        if warnings and (self._warned is None or now - self._warned >= _DAY):
            self._warned = now
            for validity, left in warnings.items():
                _warn(validity, left, now)


def _warn(validity: Validity, left: timedelta, now: datetime) -> None:
    fields = {"path": str(validity.path), "ends": f"{validity.ends:%Y-%m-%dT%H:%M:%SZ}"}
    if now < validity.begins:
        begins = f"{validity.begins:%Y-%m-%dT%H:%M:%SZ}"
        log.warning("a certificate is not valid yet: handshakes fail", begins=begins, **fields)
    elif left <= timedelta():
        log.warning("a certificate has ended: handshakes fail; renew it", **fields)
    else:
        log.warning("a certificate ends soon: renew it", days_left=left // _DAY, **fields)
