"""The calls of `AlertService` about webhooks and dead letters."""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from credit_models import (
    DeadLetter,
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    ListWebhooksRequest,
    ListWebhooksResponse,
    RemoveWebhookRequest,
    RemoveWebhookResponse,
    ResendDeadLettersRequest,
    ResendDeadLettersResponse,
    SetWebhookRequest,
    SetWebhookResponse,
)
from credit_models import Webhook as WebhookMessage
from credit_models.translation.alerts import event_to_message
from credit_models.translation.refusals import (
    dead_letter_not_found,
    too_many_webhooks,
    webhook_url_not_allowed,
)

from credit_server.access import authorize
from credit_server.access.audit import AuditLog, Done
from credit_server.api import errors
from credit_server.api.commands import validate
from credit_server.api.reads import Reads
from credit_server.commit import Clock
from credit_server.grpc.call import Call
from credit_server.store.port import Store
from credit_server.store.webhooks import Delivery, Webhook
from credit_server.webhooks.network import url_fault
from credit_server.webhooks.signature import new_secret

# The number of webhooks of an app. Concurrent requests can exceed it.
_WEBHOOKS_MAX = 4

# The sizes of pages that the contract defines.
_PAGE_SIZE = 100
_PAGE_SIZE_MAX = 1000

_Change = SetWebhookRequest | RemoveWebhookRequest | ResendDeadLettersRequest


class WebhookCalls:
    """Serves the calls about webhooks."""

    def __init__(
        self, store: Store, reads: Reads, clock: Clock, audit: AuditLog, *, allow_private: bool
    ) -> None:
        """Prepare to serve.

        Args:
            store: Keeps webhooks and dead letters.
            reads: Checks the calls that change nothing.
            clock: The time of a change. It is that of this machine, as in the dispatcher: no
                balance depends on it.
            audit: Writes a line for each change.
            allow_private: Whether private addresses, and HTTP without TLS, are allowed.
        """
        self._webhooks = store.webhooks
        self._new_id = store.new_id
        self._reads = reads
        self._clock = clock
        self._audit = audit
        self._allow_private = allow_private

    # Any: each handler takes a call of its own types.
    @property
    def handlers(self) -> Mapping[str, Callable[[Call[Any, Any]], Coroutine[Any, Any, None]]]:
        """The handlers of the calls, by name."""
        return MappingProxyType(
            {
                "SetWebhook": self.set_webhook,
                "ListWebhooks": self.list_webhooks,
                "RemoveWebhook": self.remove_webhook,
                "ListDeadLetters": self.list_dead_letters,
                "ResendDeadLetters": self.resend_dead_letters,
            }
        )

    async def set_webhook(self, call: Call[SetWebhookRequest, SetWebhookResponse]) -> None:
        """Set a webhook, or the secret of one."""
        request = await call.recv_request()

        async def set_() -> SetWebhookResponse:
            if not self._allow_private and (fault := url_fault(request.url)):
                raise errors.status_of(*webhook_url_not_allowed(fault))
            found = await self._webhooks.of_app(request.app_id)
            stored = next((each for each in found if each.url == request.url), None)
            if stored is None and len(found) >= _WEBHOOKS_MAX:
                raise errors.status_of(*too_many_webhooks(_WEBHOOKS_MAX))
            secret = request.secret or new_secret()
            if stored is None or request.secret:
                stored = await self._webhooks.set(
                    Webhook(
                        id=self._new_id(),
                        app_id=request.app_id,
                        url=request.url,
                        secret=secret,
                        created_at=self._clock.time(),
                        created_by=request.created_by,
                    ),
                    keep_secret=not request.secret,
                )
            # A concurrent request may have set the webhook: its caller receives the secret.
            own = secret if stored.secret == secret else ""
            return SetWebhookResponse(webhook=_webhook_to_message(stored), secret=own)

        await call.send_answer(await self._audited(call, request, set_))

    async def list_webhooks(self, call: Call[ListWebhooksRequest, ListWebhooksResponse]) -> None:
        """Answer with the webhooks of an app."""
        request = await self._reads.request(call)
        found = await self._webhooks.of_app(request.app_id)
        await call.send_answer(
            ListWebhooksResponse(webhooks=[_webhook_to_message(each) for each in found])
        )

    async def remove_webhook(self, call: Call[RemoveWebhookRequest, RemoveWebhookResponse]) -> None:
        """Remove a webhook with its deliveries."""
        request = await call.recv_request()

        async def remove() -> RemoveWebhookResponse:
            await self._webhooks.remove(request.app_id, request.url)
            return RemoveWebhookResponse()

        await call.send_answer(await self._audited(call, request, remove))

    async def list_dead_letters(
        self, call: Call[ListDeadLettersRequest, ListDeadLettersResponse]
    ) -> None:
        """Answer with a page of the dead letters of an app."""
        request = await self._reads.request(call)
        size = min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MAX)
        found = await self._webhooks.dead_letters(
            request.app_id, after_id=request.after_id, limit=size + 1
        )
        letters = [_dead_letter_to_message(*each) for each in found[:size]]
        more = letters[-1].id if len(found) > size else ""
        await call.send_answer(ListDeadLettersResponse(dead_letters=letters, next_after_id=more))

    async def resend_dead_letters(
        self, call: Call[ResendDeadLettersRequest, ResendDeadLettersResponse]
    ) -> None:
        """Make dead letters due again."""
        request = await call.recv_request()

        async def resend() -> ResendDeadLettersResponse:
            id_, now = request.dead_letter_id, self._clock.time()
            resent = await self._webhooks.resend(request.app_id, id_, now)
            if id_ and not resent:
                raise errors.status_of(*dead_letter_not_found(id_))
            return ResendDeadLettersResponse(resent=resent)

        await call.send_answer(await self._audited(call, request, resend))

    # Any: each call has an answer of its own.
    async def _audited(
        self, call: Call[Any, Any], request: _Change, change: Callable[[], Coroutine[Any, Any, Any]]
    ) -> Any:
        """Make a change, and write the line of the audit log."""
        identity = authorize.identity_of(call)
        with self._audit.write(call, identity, request) as audited:
            authorize.check_write(identity, request)
            validate(request)
            return await audited.complete(change(), lambda _: Done())


def _webhook_to_message(webhook: Webhook) -> WebhookMessage:
    return WebhookMessage(
        url=webhook.url, created_at=webhook.created_at, created_by=webhook.created_by
    )


def _dead_letter_to_message(delivery: Delivery, webhook: Webhook) -> DeadLetter:
    return DeadLetter(
        id=delivery.id,
        url=webhook.url,
        event=event_to_message(delivery.event, 0),
        attempts=delivery.attempts,
        error=delivery.error,
        failed_at=delivery.failed_at,
    )
