"""The webhooks of the fake. It sends nothing, and shows what a server would send."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from credit_models import (
    AlertEvent,
    ListWebhooksResponse,
    RemoveWebhookRequest,
    RemoveWebhookResponse,
    ResendDeadLettersRequest,
    ResendDeadLettersResponse,
    SetWebhookRequest,
    SetWebhookResponse,
    Webhook,
)
from credit_models.translation.refusals import (
    dead_letter_not_found,
    too_many_webhooks,
    webhook_url_not_allowed,
)

from credit_client.testing.ledger import FakeLedger, Refused

# The most webhooks of an app: that of the contract.
_WEBHOOKS_MAX = 4

# What the fake returns as a new secret.
_SECRET = "whsec_" + "A" * 32


@dataclass(kw_only=True, slots=True)
class _Set:
    webhook: Webhook
    start: int


class FakeWebhooks:
    """The webhooks of all apps."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self._set: dict[tuple[int, str], _Set] = {}

    def messages(self) -> Sequence[tuple[str, AlertEvent]]:
        """Return the URL and the event of each message, oldest first."""
        return [
            (url, replace(event, position=0))
            for event in self._ledger.events()
            for (app_id, url), each in sorted(self._set.items())
            if app_id == event.app_id and event.position > each.start
        ]

    def set(self, request: SetWebhookRequest) -> SetWebhookResponse:
        """Set a webhook.

        Raises:
            Refused: A server rejects the URL, or the app has too many webhooks.
        """
        if not request.url.startswith("https:"):
            raise Refused(*webhook_url_not_allowed("must begin with https://"))
        place = (request.app_id, request.url)
        known = self._set.get(place)
        if known is not None:
            return SetWebhookResponse(webhook=known.webhook, secret=request.secret)
        if sum(app_id == request.app_id for app_id, _ in self._set) >= _WEBHOOKS_MAX:
            raise Refused(*too_many_webhooks(_WEBHOOKS_MAX))
        webhook = Webhook(
            url=request.url,
            created_at=self._ledger.clock.now(),
            created_by=request.created_by,
        )
        self._set[place] = _Set(webhook=webhook, start=len(self._ledger.events()))
        return SetWebhookResponse(webhook=webhook, secret=request.secret or _SECRET)

    def of_app(self, *, app_id: int) -> ListWebhooksResponse:
        """Return the webhooks of an app."""
        found = [each.webhook for (app, _), each in sorted(self._set.items()) if app == app_id]
        return ListWebhooksResponse(webhooks=found)

    def remove(self, request: RemoveWebhookRequest) -> RemoveWebhookResponse:
        """Remove a webhook with its messages."""
        self._set.pop((request.app_id, request.url), None)
        return RemoveWebhookResponse()

    def resend(self, request: ResendDeadLettersRequest) -> ResendDeadLettersResponse:
        """Send nothing again: the fake has no dead letters.

        Raises:
            Refused: The request names a dead letter.
        """
        if not request.dead_letter_id:
            return ResendDeadLettersResponse()
        raise Refused(*dead_letter_not_found(request.dead_letter_id))
