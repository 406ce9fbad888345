"""Send the events of alerts to webhooks until each is acknowledged, or has failed for a day.

A server claims a delivery before it sends it, so that several servers do not send it at once. If
the server stops before it stores the result, the claim expires, and another server sends the event
again. So an event is sent at least once, each time with the same id.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Protocol

import structlog
from credit_models.ledger import AlertEvent
from credit_models.timeouts import Timeout

from credit_server.repeat import Pauses, repeat
from credit_server.store.port import Store, StoreError
from credit_server.store.webhooks import Backlog, Claim, Delivery, Webhook
from credit_server.webhooks.sender import ATTEMPT_SECONDS, SendFailed

log = structlog.get_logger("credit_server.webhooks")

# How many events a server sends at once: in all, for one app and to one webhook. So webhooks that
# do not respond delay those of other apps only if they belong to 8 apps or more. The bound per app
# holds although an app can replace its webhooks while attempts are under way.
CONCURRENT_MAX = 64
CONCURRENT_MAX_PER_APP = 8
CONCURRENT_MAX_PER_WEBHOOK = 2

# The pause between two searches for due deliveries, and the longest pause after failures.
_INTERVAL_SECONDS = 0.9
_BACKOFF_SECONDS_MAX = 30.0

# How often the backlog is read for the metrics.
_BACKLOG_SECONDS = 10.0

# A claim lasts longer than the attempt and the storing of its result.
_CLAIM = timedelta(seconds=ATTEMPT_SECONDS + 40)

# The pauses between attempts: 5 s, 20 s, 80 s and so on, at most 5.7 hours. Each is reduced by a
# random part of up to a fifth. The last attempt is about 22 to 28 hours after the first one.
_FIRST_PAUSE_SECONDS, _FACTOR = 5.0, 4
_PAUSE_SECONDS_MAX = 5.0 * 4**6
ATTEMPTS_MAX = 11


def pause_after(attempts: int, random: Random) -> timedelta | None:
    """Return the pause after a number of failed attempts; None: the delivery is a dead letter."""
    if attempts >= ATTEMPTS_MAX:
        return None
    seconds = min(_FIRST_PAUSE_SECONDS * _FACTOR ** (attempts - 1), _PAUSE_SECONDS_MAX)
    return timedelta(seconds=seconds * random.uniform(0.8, 1.0))


class EventSender(Protocol):
    """Sends events to webhooks. `Sender` implements it over HTTP."""

    async def send(self, event: AlertEvent, webhook: Webhook) -> None:
        """Send an event.

        Raises:
            SendFailed: The webhook has not acknowledged the event.
        """
        ...


class WebhookObserver(Protocol):
    """Receives the progress of a dispatcher. Its methods must be quick and must not raise."""

    def delivered(self) -> None:
        """Note that a webhook has acknowledged an event."""

    def failed(self) -> None:
        """Note that an attempt has failed."""

    def waiting(self, oldest_seconds: float, dead: int) -> None:
        """Note the age of the oldest pending delivery, and the number of dead letters."""


def _utc_now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class Dispatcher:
    """Sends due deliveries. All servers do so concurrently."""

    def __init__(
        self,
        store: Store,
        sender: EventSender,
        observer: WebhookObserver,
        *,
        random: Random | None = None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        """Prepare; `run` sends.

        Args:
            store: Keeps webhooks and deliveries.
            sender: Sends them.
            observer: Receives the progress.
            random: For jitter; not for secrets.
            clock: Returns the time, UTC, in whole milliseconds.
        """
        self._webhooks = store.webhooks
        self._sender = sender
        self._observer = observer
        self._random = random or Random()  # noqa: S311 - jitter needs no secrecy
        self._clock = clock
        self._last_app = 0
        self._sending: dict[asyncio.Task[None], Delivery] = {}
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Search at once: deliveries were added, or an attempt has ended."""
        self._woken.set()

    async def run(self) -> None:
        """Send until cancelled."""
        observed_at = datetime.min.replace(tzinfo=UTC)

        async def search() -> None:
            nonlocal observed_at
            self._woken.clear()
            await self._start_due()
            if self._clock() - observed_at >= timedelta(seconds=_BACKLOG_SECONDS):
                observed_at = self._clock()
                await self.observe()

        try:
            await repeat(
                search,
                Pauses(
                    interval_seconds=_INTERVAL_SECONDS, backoff_seconds_max=_BACKOFF_SECONDS_MAX
                ),
                random=self._random,
                log=log,
                warning="events cannot be sent to webhooks; the server retries",
                expected=(StoreError,),
                sleep=self._pause,
            )
        finally:
            await self._cancel()

    async def send_due(self) -> None:
        """Send all deliveries that are due, and wait for the results.

        Raises:
            StoreError: The store cannot be reached.
        """
        try:
            await self._start_due()
            while self._sending:
                await self._wait()
                await self._start_due()
        finally:
            await self._cancel()

    async def _start_due(self) -> None:
        """Start to send deliveries that are due, as many as the limits allow."""
        while len(self._sending) < CONCURRENT_MAX:
            claim = await self._claim()
            if claim is None:  # the usual case: one read of an empty index
                return
            task = asyncio.create_task(self._send(claim))
            self._sending[task] = claim.delivery
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._sending[task]
        self.wake()

    async def _claim(self) -> Claim | None:
        """Claim a delivery that is due. Apps take turns."""
        claim = await self._claim_after(self._last_app)
        if claim is None and self._last_app:
            claim = await self._claim_after(0)
        self._last_app = 0 if claim is None else claim.delivery.app_id
        return claim

    async def _claim_after(self, app_id: int) -> Claim | None:
        now = self._clock()
        apps = Counter(each.app_id for each in self._sending.values())
        webhooks = Counter(each.webhook_id for each in self._sending.values())
        return await self._webhooks.claim(
            now,
            now + _CLAIM,
            after_app=app_id,
            except_apps=[id_ for id_, n in apps.items() if n >= CONCURRENT_MAX_PER_APP],
            except_webhooks=[id_ for id_, n in webhooks.items() if n >= CONCURRENT_MAX_PER_WEBHOOK],
        )

    async def _pause(self, seconds: float) -> None:
        """Pause for a time, or shorter if deliveries are added or an attempt ends."""
        with suppress(TimeoutError):
            async with Timeout(seconds):
                await self._woken.wait()

    async def _wait(self) -> None:
        """Wait until an attempt has ended."""
        await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)

    async def _cancel(self) -> None:
        sending = list(self._sending)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    async def _send(self, claim: Claim) -> None:
        """Send a delivery and store the result.

        An error of the store is logged. The claim of the delivery then ends, and a server sends the
        delivery again.
        """
        try:
            await self._attempt(claim)
        except Exception as error:
            log.warning(
                "the result of an attempt cannot be stored; the event is sent to the webhook again",
                app_id=claim.delivery.app_id,
                error=str(error),
                exc_info=None if isinstance(error, StoreError) else error,
            )

    async def _attempt(self, claim: Claim) -> None:
        delivery, webhook = claim
        if webhook is None:
            await self._webhooks.delivered(delivery)
            return
        try:
            await self._sender.send(delivery.event, webhook)
        except Exception as error:
            why = str(error)
            if not isinstance(error, SendFailed):
                log.exception("an attempt to send an event has failed", app_id=delivery.app_id)
                why = type(error).__name__
            pause = pause_after(delivery.attempts, self._random)
            now = self._clock()
            due_at = None if pause is None else _in_milliseconds(now + pause)
            await self._webhooks.failed(delivery, error=why, due_at=due_at, now=now)
            self._observer.failed()
            if due_at is None:
                log.warning(
                    "a webhook has not acknowledged an event for a day; the event is a dead letter",
                    app_id=delivery.app_id,
                    dead_letter=delivery.id,
                    error=why,
                )
        else:
            await self._webhooks.delivered(delivery)
            self._observer.delivered()

    async def observe(self) -> None:
        """Report the backlog.

        Raises:
            StoreError: The store cannot be reached.
        """
        backlog: Backlog = await self._webhooks.backlog()
        age = 0.0
        if backlog.oldest is not None:
            age = max(0.0, (self._clock() - backlog.oldest) / timedelta(seconds=1))
        self._observer.waiting(age, backlog.dead)


def _in_milliseconds(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
