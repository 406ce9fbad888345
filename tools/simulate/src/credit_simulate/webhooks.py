"""The webhooks of a simulated server: the port, over its connection to the store."""

from collections.abc import Callable, Collection, Coroutine, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from credit_server.store.webhooks import Backlog, Claim, Delivery, Webhook

from credit_simulate.cluster import Node

_Value = TypeVar("_Value")


class _Connection(Protocol):
    # Any: asyncio's type of a coroutine.
    async def read(self, read: Callable[[Node], Coroutine[Any, Any, _Value]]) -> _Value: ...

    async def write(self, change: Callable[[Node], Coroutine[Any, Any, _Value]]) -> _Value: ...


class StoredWebhooks:
    """Webhooks and deliveries: see the port."""

    def __init__(self, connection: _Connection) -> None:
        """Use a connection.

        Args:
            connection: Sends the requests to the store.
        """
        self._connection = connection

    async def set(self, webhook: Webhook, *, keep_secret: bool = False) -> Webhook:
        """Store a webhook: see the port."""
        return await self._connection.write(
            lambda node: node.webhooks.set(webhook, keep_secret=keep_secret)
        )

    async def of_app(self, app_id: int) -> Sequence[Webhook]:
        """Return the webhooks of an app: see the port."""
        return await self._connection.read(lambda node: node.webhooks.of_app(app_id))

    async def remove(self, app_id: int, url: str) -> None:
        """Remove a webhook: see the port."""
        await self._connection.write(lambda node: node.webhooks.remove(app_id, url))

    async def claim(
        self,
        now: datetime,
        until: datetime,
        *,
        after_app: int = 0,
        except_apps: Collection[int] = (),
        except_webhooks: Collection[str] = (),
    ) -> Claim | None:
        """Claim a delivery: see the port. If none is pending, nothing is written."""
        if (await self.backlog()).oldest is None:
            return None
        return await self._connection.write(
            lambda node: node.webhooks.claim(
                now,
                until,
                after_app=after_app,
                except_apps=except_apps,
                except_webhooks=except_webhooks,
            )
        )

    async def delivered(self, delivery: Delivery) -> None:
        """Remove a delivery: see the port."""
        await self._connection.write(lambda node: node.webhooks.delivered(delivery))

    async def failed(
        self, delivery: Delivery, *, error: str, due_at: datetime | None, now: datetime
    ) -> None:
        """Store that an attempt has failed: see the port."""
        await self._connection.write(
            lambda node: node.webhooks.failed(delivery, error=error, due_at=due_at, now=now)
        )

    async def dead_letters(
        self, app_id: int, *, after_id: str = "", limit: int
    ) -> Sequence[tuple[Delivery, Webhook]]:
        """Return dead letters: see the port."""
        return await self._connection.read(
            lambda node: node.webhooks.dead_letters(app_id, after_id=after_id, limit=limit)
        )

    async def resend(self, app_id: int, id_: str, now: datetime) -> int:
        """Make dead letters due: see the port."""
        return await self._connection.write(lambda node: node.webhooks.resend(app_id, id_, now))

    async def remove_dead(self, time: datetime, limit: int) -> int:
        """Remove old dead letters: see the port."""
        return await self._connection.write(lambda node: node.webhooks.remove_dead(time, limit))

    async def backlog(self) -> Backlog:
        """Return the deliveries that have not succeeded: see the port."""
        return await self._connection.read(lambda node: node.webhooks.backlog())
