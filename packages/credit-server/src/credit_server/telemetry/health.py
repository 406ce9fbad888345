"""Keeps the health service true: whether the store takes writes."""

import asyncio
import time
from typing import Protocol

import structlog
from grpclib.health.check import ServiceStatus

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
    """

    def __init__(
        self,
        store: Store,
        status: ServiceStatus,
        watcher: StoreWatcher,
        *,
        interval_seconds: float,
        timeout_seconds: float,
    ) -> None:
        """Prepare to watch.

        Args:
            store: What is watched.
            status: Where the health service finds what to tell.
            watcher: Is told of every answer.
            interval_seconds: How long to wait after an answer.
            timeout_seconds: How long to wait for an answer.
        """
        self._store = store
        self._status = status
        self._watcher = watcher
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._tell(await self._ask())
            await asyncio.sleep(self._interval_seconds)

    async def _ask(self) -> Exception | None:
        """Return why the store takes no writes, or None if it does."""
        began = time.perf_counter()  # the loop's own clock counts milliseconds
        reason: Exception | None = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._store.ping()
        except Exception as error:  # noqa: BLE001 - whatever it is, the store did not say it is well
            reason = error
        self._watcher.asked(healthy=reason is None, seconds=time.perf_counter() - began)
        return reason

    def _tell(self, reason: Exception | None) -> None:
        was_healthy = bool(self._status.__status__())
        if reason is None and not was_healthy:
            log.info("the store is back")
        elif reason is not None and was_healthy:
            log.warning("the store is away", error=str(reason) or type(reason).__name__)
        self._status.set(reason is None)
