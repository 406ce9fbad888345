"""Watch the store and the clocks, and keep the health service up to date."""

import asyncio
import time

import structlog
from credit_models.timeouts import Timeout
from grpclib.health.check import ServiceStatus

from credit_server.commit import Clock, ClockSkewed
from credit_server.store.port import Store
from credit_server.telemetry.metrics import StoreMetrics

log = structlog.get_logger("credit_server")


class HealthWatch:
    """Checks the store periodically, and sets the status that the health service returns.

    A check starts `interval_seconds` after the previous one, and fails after `timeout_seconds`. So
    the status is wrong for no longer than both together. One failed check is enough: the driver has
    looked for another primary by then, and the tolerance of a probe is configured in the probe.

    Each check returns the store's time, with which this machine's clock is compared.
    """

    def __init__(
        self,
        store: Store,
        status: ServiceStatus,
        metrics: StoreMetrics,
        clock: Clock,
        *,
        interval_seconds: float = 2.0,
        timeout_seconds: float = 3.0,
    ) -> None:
        """Prepare to watch.

        Args:
            store: The store to check.
            status: The status of the health service.
            metrics: Records every check.
            clock: Receives the store's time. Writes take their time from it.
            interval_seconds: The pause after a check, above 0.
            timeout_seconds: The time limit of a check, above 0.
        """
        self._store = store
        self._status = status
        self._metrics = metrics
        self._clock = clock
        self._away = False
        self._skewed = False
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds

    async def begin(self) -> None:
        """Check the store for the first time, and compare its clock; `announce` sets the status.

        Raises:
            StoreError: The store does not answer.
        """
        began = time.perf_counter()
        self._clock.compare(await self._store.ping())
        self._metrics.checked(healthy=True, seconds=time.perf_counter() - began)

    def announce(self) -> None:
        """Set the status by the result of the latest check."""
        skew = self._skew()
        self._log_clock(skew)
        self._status.set(not self._away and skew is None)

    async def run(self) -> None:
        """Watch until cancelled. The first check comes after the interval."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            self._log_store(await self._check())
            self.announce()

    async def _check(self) -> Exception | None:
        """Return why the store takes no writes; None if it does."""
        began = time.perf_counter()  # the loop's own clock counts milliseconds
        fault: Exception | None = None
        try:
            async with Timeout(self._timeout_seconds):
                self._clock.compare(await self._store.ping())
        except Exception as error:  # noqa: BLE001 - any error means that the check has failed
            fault = error
        self._metrics.checked(healthy=fault is None, seconds=time.perf_counter() - began)
        return fault

    def _skew(self) -> ClockSkewed | None:
        """Return by how much the clocks differ; None if it is within the limit."""
        try:
            self._clock.now()
        except ClockSkewed as skew:
            return skew
        return None

    def _log_store(self, fault: Exception | None) -> None:
        if fault is None and self._away:
            log.info("the store is available again")
        elif fault is not None and not self._away:
            log.warning("the store is unavailable", error=str(fault) or type(fault).__name__)
        self._away = fault is not None

    def _log_clock(self, skew: ClockSkewed | None) -> None:
        if skew is None and self._skewed:
            log.info("the clocks of this machine and the store agree again: writes are accepted")
        elif skew is not None and not self._skewed:
            log.error(
                "the clocks of this machine and the store differ: writes are rejected until they"
                " agree; synchronize both machines with NTP",
                skew_seconds=round(skew.skew_seconds, 3),
                limit_seconds=skew.limit_seconds,
            )
        self._skewed = skew is not None
