"""The calls about webhooks: URLs that receive the events of alerts as signed HTTP requests."""

import secrets
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import AsyncGenerator, Sequence

from credit_models import DeadLetter, Webhook

from credit_client.call import Caller
from credit_client.methods import (
    DEAD_LETTERS,
    REMOVE_WEBHOOK,
    RESEND_DEAD_LETTERS,
    SET_WEBHOOK,
    WEBHOOKS,
)
from credit_client.request import Values

_PAGE_SIZE = 1000


class Webhooks(ABC):
    """Sets, lists and removes webhooks, and resends dead letters. Needs a server of 0.4.0 or later.

    Setting a webhook again with the same secret changes nothing, so these writes need no
    idempotency key.
    """

    @property
    @abstractmethod
    def _open_caller(self) -> Caller:
        """What makes the calls of the open client."""

    async def set_webhook(
        self,
        *,
        app_id: int,
        url: str,
        created_by: int,
        secret: str | None = None,
        timeout_seconds: float | None = None,
    ) -> str:
        """Set a webhook: the server sends the events of the app to its URL.

        Args:
            app_id: The app.
            url: Where the events are sent, by HTTPS.
            created_by: The identity of the acting person or service.
            secret: The key of the signatures: `whsec_` followed by base64 of 24 to 64 bytes. None:
                a new secret. It replaces the secret of a webhook that is already set.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            The secret. No other call returns it: store it where the messages are verified.

        Raises:
            WebhookUrlNotAllowed: The URL is not HTTPS, or has a private address.
            TooManyWebhooks: The app has the maximum number of webhooks.
        """
        # The client makes the secret and not the server, so that a retry does not lose it.
        if secret is None:
            secret = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
        values: Values = {
            "app_id": app_id,
            "created_by": created_by,
            "url": url,
            "secret": secret,
        }
        await self._open_caller.unary(SET_WEBHOOK, values, timeout_seconds=timeout_seconds)
        return secret

    async def webhooks(
        self, *, app_id: int, timeout_seconds: float | None = None
    ) -> Sequence[Webhook]:
        """Return the webhooks of an app, without their secrets."""
        answer, _ = await self._open_caller.unary(
            WEBHOOKS, {"app_id": app_id}, timeout_seconds=timeout_seconds
        )
        return answer.reply.webhooks

    async def remove_webhook(
        self, *, app_id: int, url: str, created_by: int, timeout_seconds: float | None = None
    ) -> None:
        """Remove a webhook, and drop the messages that it has not acknowledged.

        Args:
            app_id: The app.
            url: The URL of the webhook. Removing one that is not set changes nothing.
            created_by: The identity of the acting person or service.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        values: Values = {"app_id": app_id, "created_by": created_by, "url": url}
        await self._open_caller.unary(REMOVE_WEBHOOK, values, timeout_seconds=timeout_seconds)

    async def dead_letters(
        self, *, app_id: int, timeout_seconds: float | None = None
    ) -> AsyncGenerator[DeadLetter, None]:
        """Return the dead letters of an app, which no attempt delivered: `async for … in …`.

        Args:
            app_id: The app.
            timeout_seconds: The time for each page; None for the client's.
        """
        after = ""
        while True:
            values: Values = {"app_id": app_id, "after_id": after, "page_size": _PAGE_SIZE}
            answer, _ = await self._open_caller.unary(
                DEAD_LETTERS, values, timeout_seconds=timeout_seconds
            )
            for letter in answer.reply.dead_letters:
                yield letter
            after = answer.reply.next_after_id
            if not after:
                return

    async def resend_dead_letters(
        self,
        *,
        app_id: int,
        created_by: int,
        dead_letter_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> int:
        """Send dead letters again, like new messages, and return their number.

        Args:
            app_id: The app.
            created_by: The identity of the acting person or service.
            dead_letter_id: The `id` of the dead letter; None: all dead letters of the app.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            DeadLetterNotFound: The app has no dead letter with this id.
        """
        values: Values = {
            "app_id": app_id,
            "created_by": created_by,
            "dead_letter_id": dead_letter_id or "",
        }
        answer, _ = await self._open_caller.unary(
            RESEND_DEAD_LETTERS, values, timeout_seconds=timeout_seconds
        )
        return answer.reply.resent
