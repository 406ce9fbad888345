"""The calls about alerts: set alerts, which are limits of balances, and read their events."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence

from credit_models import Alert, AlertDirection, AlertEvent
from credit_models import ListAlertsResponse as AlertList

from credit_client.call import Caller
from credit_client.errors import DeadlineExceeded, Unavailable
from credit_client.methods import ALERT_EVENTS, ALERTS, REMOVE_ALERT, SET_ALERT
from credit_client.request import Values

_PAGE_SIZE = 1000

# The longest time that the server waits for an event, which the contract defines.
_WAIT_SECONDS = 20

# The pause after a call without an event, and after one that has failed with all its attempts.
_PAUSE_SECONDS = 0.1


class Alerts(ABC):
    """Sets, lists and removes alerts, and reads their events. Needs a server of 0.4.0 or later.

    Setting an alert again changes nothing, so these writes need no idempotency key.
    """

    @property
    @abstractmethod
    def _open_caller(self) -> Caller:
        """What makes the calls of the open client."""

    async def set_alert(
        self,
        *,
        app_id: int,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        user_id: int | str | None = None,
        direction: AlertDirection = AlertDirection.FALLS_BELOW,
        timeout_seconds: float | None = None,
    ) -> Sequence[Alert]:
        """Set an alert: each time the balance crosses the limit, the server writes an event.

        Args:
            app_id: The app.
            credits: The limit, in credits that can be spent.
            created_by: The identity of the acting person or service.
            user_id: The user; None: the alert is for every user of the app.
            direction: Whether there is an event when the balance falls below the limit, or when it
                rises to it.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            All alerts of the user in the app or, without a user, of the app.

        Raises:
            TooManyAlerts: The user or the app has the maximum number of alerts.
            TooManyApps: The user has credits in as many apps as one user may.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "created_by": created_by,
            "credits": credits,
            "direction": direction,
        }
        answer, _ = await self._open_caller.unary(
            SET_ALERT, values, timeout_seconds=timeout_seconds
        )
        return answer.reply.alerts

    async def remove_alert(
        self,
        *,
        app_id: int,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        user_id: int | str | None = None,
        direction: AlertDirection = AlertDirection.FALLS_BELOW,
        timeout_seconds: float | None = None,
    ) -> Sequence[Alert]:
        """Remove an alert. Removing one that is not set changes nothing.

        Args:
            app_id: The app.
            credits: The limit of the alert.
            created_by: The identity of the acting person or service.
            user_id: The user; None: the alert is for every user of the app.
            direction: The direction of the alert.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            The alerts that are left, as for `set_alert`.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "created_by": created_by,
            "credits": credits,
            "direction": direction,
        }
        answer, _ = await self._open_caller.unary(
            REMOVE_ALERT, values, timeout_seconds=timeout_seconds
        )
        return answer.reply.alerts

    async def alerts(
        self,
        *,
        app_id: int,
        user_id: int | str | None = None,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> AlertList:
        """Return the `app_alerts` of an app and, with a user, the `user_alerts` too.

        Args:
            app_id: The app.
            user_id: The user; None: only the alerts of the app.
            min_revision: As for `user_credits`; only with a user.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        values: Values = {"user_id": user_id, "app_id": app_id, "min_revision": min_revision}
        answer, _ = await self._open_caller.unary(ALERTS, values, timeout_seconds=timeout_seconds)
        return answer.reply

    async def alert_events(
        self,
        *,
        app_id: int,
        user_id: int | str | None = None,
        after_position: int = 0,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[AlertEvent, None]:
        """Return the events of an app so far, oldest first: `async for … in …`.

        The events are read in pages of 1,000. An event can be read about a second after its
        transaction, and for 30 days. To read later events, continue after the `position` of the
        last one.

        Args:
            app_id: The app.
            user_id: Only events of this user; None: of all users.
            after_position: The events after this `position`; 0 for all that are kept.
            timeout_seconds: The time for each page; None for the client's.

        Raises:
            AlertEventsExpired: The server has removed events of the app after the position, or has
                no event with the position, because an older backup was restored.
        """
        while True:
            values: Values = {
                "user_id": user_id,
                "app_id": app_id,
                "after_position": after_position,
                "page_size": _PAGE_SIZE,
            }
            answer, _ = await self._open_caller.unary(
                ALERT_EVENTS, values, timeout_seconds=timeout_seconds
            )
            for event in answer.reply.events:
                yield event
            if answer.reply.next_after_position <= after_position:
                return
            after_position = answer.reply.next_after_position

    async def alert_position(self, *, app_id: int, timeout_seconds: float | None = None) -> int:
        """Return the current position, after which `watch_alerts` returns only new events.

        Args:
            app_id: The app.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        answer, _ = await self._open_caller.unary(
            ALERT_EVENTS, {"app_id": app_id, "from_now": True}, timeout_seconds=timeout_seconds
        )
        return answer.reply.position

    async def watch_alerts(
        self,
        *,
        app_id: int,
        user_id: int | str | None = None,
        after_position: int,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[AlertEvent, None]:
        """Return the events of an app as they arrive, without an end: `async for … in …`.

        The server answers each call when there is an event, or after some seconds. If the server
        cannot be reached, the client retries forever. No event is missed or returned twice.

        Args:
            app_id: The app.
            user_id: Only events of this user; None: of all users.
            after_position: The events after this `position`: 0 for all that are kept, that of the
                last event that your app has processed, or that of `alert_position`. Store it, to
                continue after a restart.
            timeout_seconds: The time for each call; None for the client's.

        Raises:
            AlertEventsExpired: The server has removed events of the app after the position, or has
                no event with the position, because an older backup was restored.
        """
        while True:
            values: Values = {
                "user_id": user_id,
                "app_id": app_id,
                "after_position": after_position,
                "page_size": _PAGE_SIZE,
                "wait_seconds": _WAIT_SECONDS,
            }
            try:
                answer, _ = await self._open_caller.unary(
                    ALERT_EVENTS, values, timeout_seconds=timeout_seconds
                )
            except (Unavailable, DeadlineExceeded):
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            for event in answer.reply.events:
                yield event
            after_position = max(after_position, answer.reply.position)
            if not answer.reply.events:
                await asyncio.sleep(_PAUSE_SECONDS)
