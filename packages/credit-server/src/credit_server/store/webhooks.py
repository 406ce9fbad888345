"""The port of webhooks and their deliveries, and the twin in memory.

A delivery is one event of an alert for one webhook. `AlertEvents.order` adds it before the event
gets its position, so that no event is missed. A delivery that has succeeded is removed. One that
has failed for about a day is a dead letter, which is kept until it is sent again or is too old.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, Protocol

from credit_models.ledger import AlertEvent


@dataclass(frozen=True, kw_only=True, slots=True)
class Webhook:
    """A URL that receives the events of an app.

    Attributes:
        id: Its id.
        app_id: The app. It has at most one webhook for a URL.
        url: Where the events are sent.
        secret: The key of the signatures, with the prefix `whsec_`. No repr shows it.
        created_at: When it was set.
        created_by: The number of the requester.
    """

    id: str
    app_id: int
    url: str
    secret: str
    created_at: datetime
    created_by: int

    def __repr__(self) -> str:
        return f"Webhook(id={self.id!r}, app_id={self.app_id}, url={self.url!r})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """An event for a webhook.

    Attributes:
        id: Its id, which follows from the event and the webhook.
        webhook_id: The webhook.
        app_id: The app.
        event: The event.
        attempts: The number of attempts, each of which claims the delivery.
        due_at: When it is sent next; None: it is a dead letter.
        error: Why the latest attempt failed; empty if no attempt has failed.
        created_at: When the entry of the event was created.
        failed_at: When it became a dead letter; None: it is not a dead letter.
    """

    id: str
    webhook_id: str
    app_id: int
    event: AlertEvent
    attempts: int = 0
    due_at: datetime | None
    error: str = ""
    created_at: datetime
    failed_at: datetime | None = None


class Claim(NamedTuple):
    """A delivery to send now, and its webhook; None if the webhook was removed meanwhile."""

    delivery: Delivery
    webhook: Webhook | None


class Backlog(NamedTuple):
    """The deliveries that have not succeeded.

    Attributes:
        oldest: When the entry of the oldest pending delivery was created; None: nothing is pending.
        dead: The number of dead letters.
    """

    oldest: datetime | None
    dead: int


def new_delivery(event: AlertEvent, webhook: Webhook) -> Delivery:
    """Return the delivery of an event that is due at once."""
    digest = sha256(f"delivery {event.id} {webhook.id}".encode()).hexdigest()
    return Delivery(
        id=event.id[:8] + digest[:16],
        webhook_id=webhook.id,
        app_id=event.app_id,
        event=event,
        due_at=event.created_at,
        created_at=event.created_at,
    )


class Webhooks(Protocol):
    """Keeps webhooks and deliveries."""

    async def set(self, webhook: Webhook, *, keep_secret: bool = False) -> Webhook:
        """Store a webhook, or the secret of the one that the app has for the URL.

        Args:
            webhook: The webhook.
            keep_secret: Whether the secret of one that the app has stays.

        Returns:
            What is stored.
        """
        ...

    async def of_app(self, app_id: int) -> Sequence[Webhook]:
        """Return the webhooks of an app, by their URLs."""
        ...

    async def remove(self, app_id: int, url: str) -> None:
        """Remove a webhook, if there is one, with its deliveries."""
        ...

    async def claim(
        self,
        now: datetime,
        until: datetime,
        *,
        after_app: int = 0,
        except_apps: Collection[int] = (),
        except_webhooks: Collection[str] = (),
    ) -> Claim | None:
        """Return a delivery that is due, and make it due later, so that no other process sends it.

        Of the deliveries of an app, those of one webhook come first, by their time.

        Args:
            now: The time.
            until: When it is due again, unless its result is stored before.
            after_app: The delivery is that of the next app after this one that has any.
            except_apps: The apps whose deliveries are left out.
            except_webhooks: The ids of the webhooks whose deliveries are left out.
        """
        ...

    async def delivered(self, delivery: Delivery) -> None:
        """Remove a delivery that has succeeded."""
        ...

    async def failed(
        self, delivery: Delivery, *, error: str, due_at: datetime | None, now: datetime
    ) -> None:
        """Store that an attempt has failed.

        Args:
            delivery: The delivery.
            error: Why it has failed.
            due_at: When to send it again; None: it becomes a dead letter.
            now: The time.
        """
        ...

    async def dead_letters(
        self, app_id: int, *, after_id: str = "", limit: int
    ) -> Sequence[tuple[Delivery, Webhook]]:
        """Return the dead letters of an app, by their ids.

        Args:
            app_id: The app.
            after_id: The page starts after this id; empty: with the first.
            limit: The most dead letters, at least 1.
        """
        ...

    async def resend(self, app_id: int, id_: str, now: datetime) -> int:
        """Make dead letters of an app due now, and return their number.

        Args:
            app_id: The app.
            id_: The dead letter; empty: all of the app.
            now: The time.
        """
        ...

    async def remove_dead(self, time: datetime, limit: int) -> int:
        """Remove dead letters whose last attempt was before a time, and return their number.

        Args:
            time: The time.
            limit: The most dead letters, at least 1. If it is returned, there may be more.
        """
        ...

    async def backlog(self) -> Backlog:
        """Return the deliveries that have not succeeded, for the metrics."""
        ...


class MemoryWebhooks:
    """Keeps webhooks and deliveries in this process."""

    def __init__(self) -> None:
        self._webhooks: dict[tuple[int, str], Webhook] = {}
        self._deliveries: dict[str, Delivery] = {}

    def enqueue(self, events: Iterable[AlertEvent]) -> None:
        """Add the deliveries of events."""
        for event in events:
            for webhook in self._webhooks.values():
                if webhook.app_id == event.app_id:
                    delivery = new_delivery(event, webhook)
                    self._deliveries.setdefault(delivery.id, delivery)

    async def set(self, webhook: Webhook, *, keep_secret: bool = False) -> Webhook:
        """Store a webhook: see the port."""
        place = (webhook.app_id, webhook.url)
        stored = self._webhooks.get(place, webhook)
        secret = stored.secret if keep_secret else webhook.secret
        self._webhooks[place] = replace(stored, secret=secret)
        return self._webhooks[place]

    async def of_app(self, app_id: int) -> Sequence[Webhook]:
        """Return the webhooks of an app: see the port."""
        found = [webhook for webhook in self._webhooks.values() if webhook.app_id == app_id]
        return sorted(found, key=lambda webhook: webhook.url)

    async def remove(self, app_id: int, url: str) -> None:
        """Remove a webhook: see the port."""
        removed = self._webhooks.pop((app_id, url), None)
        if removed is not None:
            self._deliveries = {
                id_: each for id_, each in self._deliveries.items() if each.webhook_id != removed.id
            }

    async def claim(
        self,
        now: datetime,
        until: datetime,
        *,
        after_app: int = 0,
        except_apps: Collection[int] = (),
        except_webhooks: Collection[str] = (),
    ) -> Claim | None:
        """Return a delivery that is due: see the port."""
        due = [
            (each.app_id, each.webhook_id, each.due_at, each.id)
            for each in self._deliveries.values()
            if each.due_at is not None
            and each.due_at <= now
            and each.app_id > after_app
            and each.app_id not in except_apps
            and each.webhook_id not in except_webhooks
        ]
        if not due:
            return None
        delivery = self._deliveries[min(due)[-1]]
        delivery = replace(delivery, due_at=until, attempts=delivery.attempts + 1)
        self._deliveries[delivery.id] = delivery
        return Claim(delivery, self._webhook(delivery))

    def _webhook(self, delivery: Delivery) -> Webhook | None:
        found = (each for each in self._webhooks.values() if each.id == delivery.webhook_id)
        return next(found, None)

    async def delivered(self, delivery: Delivery) -> None:
        """Remove a delivery: see the port."""
        self._deliveries.pop(delivery.id, None)

    async def failed(
        self, delivery: Delivery, *, error: str, due_at: datetime | None, now: datetime
    ) -> None:
        """Store that an attempt has failed: see the port."""
        stored = self._deliveries.get(delivery.id)
        if stored is not None:
            failed_at = now if due_at is None else None
            self._deliveries[delivery.id] = replace(
                stored, error=error, due_at=due_at, failed_at=failed_at
            )

    async def dead_letters(
        self, app_id: int, *, after_id: str = "", limit: int
    ) -> Sequence[tuple[Delivery, Webhook]]:
        """Return the dead letters of an app: see the port."""
        found = [
            (each, webhook)
            for id_, each in sorted(self._deliveries.items())
            if each.failed_at is not None
            and each.app_id == app_id
            and id_ > after_id
            and (webhook := self._webhook(each)) is not None
        ]
        return found[:limit]

    async def resend(self, app_id: int, id_: str, now: datetime) -> int:
        """Make dead letters due now: see the port."""
        dead = [
            each
            for each in self._deliveries.values()
            if each.failed_at is not None and each.app_id == app_id and id_ in ("", each.id)
        ]
        for each in dead:
            self._deliveries[each.id] = replace(each, attempts=0, due_at=now, failed_at=None)
        return len(dead)

    async def remove_dead(self, time: datetime, limit: int) -> int:
        """Remove old dead letters: see the port."""
        old = [
            each.id
            for each in self._deliveries.values()
            if each.failed_at is not None and each.failed_at < time
        ][:limit]
        for id_ in old:
            del self._deliveries[id_]
        return len(old)

    async def backlog(self) -> Backlog:
        """Return what has not succeeded: see the port."""
        pending = [each.created_at for each in self._deliveries.values() if each.failed_at is None]
        return Backlog(min(pending, default=None), len(self._deliveries) - len(pending))
