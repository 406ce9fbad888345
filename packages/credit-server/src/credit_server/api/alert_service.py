"""The calls of `AlertService`: alerts and their events here, webhooks in `webhook_calls`."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from credit_models import (
    AlertServiceBase,
    ListAlertEventsRequest,
    ListAlertEventsResponse,
    ListAlertsRequest,
    ListAlertsResponse,
    RemoveAlertRequest,
    RemoveAlertResponse,
    SetAlertRequest,
    SetAlertResponse,
)
from credit_models.ledger import Account, Alert, AlertUnchanged, Receipt, SetAlert
from credit_models.translation.alerts import (
    AlertChange,
    alert_of,
    alerts_to_messages,
    event_to_message,
)
from credit_models.translation.refusals import alert_events_expired, alert_position_unknown
from grpclib import const

from credit_server.access import authorize
from credit_server.access.audit import AuditLog, WriteResult
from credit_server.admission.list_slots import ListSlots
from credit_server.api import errors
from credit_server.api.commands import as_raised, validate
from credit_server.api.event_watch import EventWatch
from credit_server.api.policies import PolicyChanges
from credit_server.api.reads import Reads
from credit_server.api.webhook_calls import WebhookCalls
from credit_server.commit import Committer
from credit_server.commit import WriteResult as Committed
from credit_server.grpc.call import Call
from credit_server.store.alert_events import EventPage, EventsRemoved, PositionUnknown
from credit_server.store.port import Store

# The sizes of pages that the contract defines.
_PAGE_SIZE = 100
_PAGE_SIZE_MAX = 1000

# A waiting call is answered this many seconds before its deadline.
_ANSWER_SECONDS = 1.0


class AlertService(AlertServiceBase):
    """Serves the contract on a committer for alerts of users, and a store for the rest."""

    def __init__(
        self,
        committer: Committer,
        store: Store,
        audit: AuditLog,
        list_slots: ListSlots | None = None,
        *,
        webhook_allow_private: bool = False,
    ) -> None:
        """Prepare to serve.

        Args:
            committer: Settles the writes of users' alerts.
            store: Keeps the alerts, and their events.
            audit: Writes a line for each write and each denial.
            list_slots: Bounds the pages of lists; None: with the defaults of the settings.
            webhook_allow_private: Whether a webhook may have a private address, or use HTTP.
        """
        self._committer = committer
        self._store = store
        self._audit = audit
        self._policies = PolicyChanges(store, committer.clock, audit)
        self._reads = Reads(store, committer.clock, audit)
        self._list_slots = list_slots or ListSlots()
        self._watch = EventWatch(store)
        self._webhooks = WebhookCalls(
            store, self._reads, committer.clock, audit, allow_private=webhook_allow_private
        )

    def __mapping__(self) -> dict[str, const.Handler]:
        """Map the contract's paths to handlers that take the call, not only its message.

        If a call of the contract has no handler here, it is a KeyError when the server is made.
        """
        # Any: each handler takes a call of its own types, which grpclib's Handler does not have.
        handlers: dict[str, Callable[[Call[Any, Any]], Coroutine[Any, Any, None]]] = {
            "SetAlert": self._set_alert,
            "RemoveAlert": self._remove_alert,
            "ListAlerts": self._list_alerts,
            "ListAlertEvents": self._list_alert_events,
            **self._webhooks.handlers,
        }
        return {
            path: handler._replace(func=handlers[path.rpartition("/")[2]])
            for path, handler in super().__mapping__().items()
        }

    async def _set_alert(self, call: Call[SetAlertRequest, SetAlertResponse]) -> None:
        alerts = await self._change(call, await call.recv_request())
        await call.send_answer(SetAlertResponse(alerts=alerts_to_messages(alerts)))

    async def _remove_alert(self, call: Call[RemoveAlertRequest, RemoveAlertResponse]) -> None:
        alerts = await self._change(call, await call.recv_request())
        await call.send_answer(RemoveAlertResponse(alerts=alerts_to_messages(alerts)))

    # Any, here and below: the answers of the calls have two types.
    async def _change(self, call: Call[Any, Any], request: AlertChange) -> Sequence[Alert]:
        """Make the write, and return all alerts of the user or the app."""
        if request.user_id is None:
            return (await self._policies.change_alert(call, request)).policy.alerts
        changed = await self._change_of_user(call, request, request.user_id)
        revision = (
            changed.revision
            if isinstance(changed, AlertUnchanged)
            else changed.transaction.sequence
        )
        # Right after a change of primary, a read may return the account from before the write.
        account = await self._reads.at_revision(request.user_id, revision)
        if account.revision < revision:
            raise errors.not_readable_yet()
        return _alerts_in(account, request.app_id)

    async def _change_of_user(
        self, call: Call[Any, Any], request: AlertChange, user_id: int
    ) -> Receipt | AlertUnchanged:
        """Set or remove a user's alert, and return the result of the write."""
        identity = authorize.identity_of(call)
        with self._audit.write(call, identity, request) as audited:
            authorize.check_write(identity, request)
            validate(request)
            alert = alert_of(request)
            command = SetAlert(
                user_id=user_id,
                app_id=request.app_id,
                created_by=request.created_by,
                key="",
                transaction_id=self._store.new_id(),
                credits=alert.credits,
                direction=alert.direction,
                remove=isinstance(request, RemoveAlertRequest),
            )
            result = await self._committer.submit(
                command,
                call.batch_context,
                request_id=call.request.request_id,
                seconds_left=None if call.deadline is None else call.deadline.time_remaining(),
                after=lambda ending: audited.outlived(_as_audited(ending)),
            )
            if not isinstance(result, Receipt | AlertUnchanged):
                raise errors.refused(result)
            audited.receipt = result
            return result

    async def _list_alerts(self, call: Call[ListAlertsRequest, ListAlertsResponse]) -> None:
        request = await self._reads.request(call)
        own: Sequence[Alert] = ()
        if request.user_id is not None:
            own = _alerts_in(await self._reads.reached(call, request), request.app_id)
        stored = await self._store.policy(request.app_id)
        await call.send_answer(
            ListAlertsResponse(
                user_alerts=alerts_to_messages(own),
                app_alerts=alerts_to_messages(stored.policy.alerts),
            )
        )

    async def _list_alert_events(
        self, call: Call[ListAlertEventsRequest, ListAlertEventsResponse]
    ) -> None:
        request = await self._reads.request(call)
        size, stored = (
            min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MAX),
            self._store.alert_events,
        )
        after = await stored.newest() if request.from_now else request.after_position

        async def read() -> EventPage:
            async with self._list_slots.slot(call.caller_name):
                return await stored.page(
                    request.app_id, request.user_id, after_position=after, limit=size + 1
                )

        try:
            found = await (self._waited(call, request, read) if request.wait_seconds else read())
        except EventsRemoved as error:
            raise errors.status_of(*alert_events_expired(error.position)) from None
        except PositionUnknown as error:
            raise errors.status_of(*alert_position_unknown(error.last)) from None
        page, more = found.events[:size], len(found.events) > size
        last = page[-1].position if more else 0
        await call.send_answer(
            ListAlertEventsResponse(
                events=[event_to_message(event, position) for position, event in page],
                next_after_position=last,
                position=last or found.position,
            )
        )

    async def _waited(
        self,
        call: Call[ListAlertEventsRequest, ListAlertEventsResponse],
        request: ListAlertEventsRequest,
        read: Callable[[], Awaitable[EventPage]],
    ) -> EventPage:
        """Read events. Repeat when there may be new ones, until there are some or time is up."""
        seconds = float(request.wait_seconds)
        if call.deadline is not None:
            seconds = min(seconds, call.deadline.time_remaining() - _ANSWER_SECONDS)
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        drained = False
        with self._watch.waiting(request.app_id) as changed:

            def drain() -> None:
                nonlocal drained
                drained = True
                changed.set()

            with call.on_drain(drain):
                while True:
                    found = await read()
                    left = ends_at - loop.time()
                    if found.events or left <= 0 or drained:
                        return found
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), left)
                    changed.clear()


def _alerts_in(account: Account, app_id: int) -> Sequence[Alert]:
    app = account.apps.get(app_id)
    return () if app is None else app.alerts


def _as_audited(ending: Committed) -> WriteResult:
    return ending if isinstance(ending, AlertUnchanged) else as_raised(ending)
