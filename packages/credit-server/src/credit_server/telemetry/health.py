"""Keeps the health service true: whether the store takes writes, and the clocks agree."""

import asyncio
import time
from typing import Protocol

import structlog
from grpclib.health.check import ServiceStatus

from credit_server.commit import Clock, ClockSkewed
from credit_server.store.port import Store

log = structlog.get_logger("credit_server")


class StoreWatcher(Protocol):
    """Is told of every answer of the store."""

    def asked(self, *, healthy: bool, seconds: float) -> None:
        """Note an answer, or that there was none in time."""
        ...


class HealthWatch:
    """Asks the store again and again, and sets the status that the health service tells.

    The store is asked at most `interval_seconds` after its last answer, and has `timeout_seconds`
    to answer: so the status is wrong for no longer than both together. One silence is enough: the
    driver has looked for another primary by then, and who probes us has patience of its own.

    Each answer holds the store's time, with which this machine's clock is compared.
    """

    def __init__(
        self,
        store: Store,
        status: ServiceStatus,
        watcher: StoreWatcher,
        clock: Clock,
        *,
        interval_seconds: float,
        timeout_seconds: float = 3.0,
    ) -> None:
        """Prepare to watch.

        Args:
            store: What is watched.
            status: Where the health service finds what to tell.
            watcher: Is told of every answer.
            clock: Receives the store's time, and is what writes take their time from.
            interval_seconds: How long to wait after an answer.
            timeout_seconds: How long to wait for an answer.
        """
        self._store = store
        self._status = status
        self._watcher = watcher
        self._clock = clock
        self._away = False
        self._skewed = False
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds

    async def begin(self) -> None:
        """Ask the store for the first time and compare its clock; `announce` sets the status.

        Raises:
            StoreError: The store does not answer.
        """
        began = time.perf_counter()
        self._clock.compare(await self._store.ping())
        self._watcher.asked(healthy=True, seconds=time.perf_counter() - began)

    def announce(self) -> None:
        """Set the status by the store's latest answer."""
        skew = self._skew()
        self._log_clock(skew)
        self._status.set(not self._away and skew is None)

    async def run(self) -> None:
        """Watch until cancelled. The first question comes after the interval."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            self._log_store(await self._ask())
            self.announce()

    async def _ask(self) -> Exception | None:
        """Return why the store takes no writes, or None if it does."""
        began = time.perf_counter()  # the loop's own clock counts milliseconds
        reason: Exception | None = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self._clock.compare(await self._store.ping())
        except Exception as error:  # noqa: BLE001 - whatever it is, the store did not say it is well
            reason = error
        self._watcher.asked(healthy=reason is None, seconds=time.perf_counter() - began)
        return reason

    def _skew(self) -> ClockSkewed | None:
        """Return why the clocks do not agree, or None if they may."""
        try:
            self._clock.now()
        except ClockSkewed as skew:
            return skew
        return None

    def _log_store(self, reason: Exception | None) -> None:
        if reason is None and self._away:
            log.info("the store is back")
        elif reason is not None and not self._away:
            log.warning("the store is away", error=str(reason) or type(reason).__name__)
        self._away = reason is not None

    def _log_clock(self, skew: ClockSkewed | None) -> None:
        if skew is None and self._skewed:
            log.info("the clocks of this machine and the store agree again: writes are accepted")
        elif skew is not None and not self._skewed:
            log.error(
                "the clocks of this machine and the store differ: writes are refused until they"
                " agree; keep the time of both machines with NTP",
                skew_seconds=round(skew.skew_seconds, 3),
                limit_seconds=skew.limit_seconds,
            )
        self._skewed = skew is not None
