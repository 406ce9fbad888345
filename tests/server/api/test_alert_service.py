"""`AlertService`, as a client sees it on the wire."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import structlog.testing
from credit_models import Alert, AlertDirection, AlertEvent, ListAlertEventsRequest
from credit_models.ledger import ALERTS_MAX
from credit_server.access.audit import Line
from credit_server.api import reads
from credit_server.api.event_watch import EventWatch
from credit_server.commit import EventOrder, EventRetention
from credit_server.commit.event_retention import KEPT
from credit_server.store.alert_events import MemoryAlertEvents
from credit_server.store.memory import MemoryStore
from credit_server.store.port import Conflict, StoreUnavailable
from credit_server.store.webhooks import MemoryWebhooks, Webhook
from credit_testing.calls import Answer
from credit_testing.http2_client import Connection
from credit_testing.stores import FailingStore, LaggingStore
from google.rpc.error_details_pb2 import BadRequest
from grpclib.const import Status

from tests.server.callers import WireCaller, info_of, open_wire, reason_of
from tests.server.clocks import NOON, Clocks
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.requests import ANY_ID, request_of
from tests.server.serving import serving

BELOW_20 = Alert(credits=20, direction=AlertDirection.FALLS_BELOW)
RISES_20 = Alert(credits=20, direction=AlertDirection.RISES_TO)


class CountedAlertEvents(MemoryAlertEvents):
    """Counts the reads of the latest position."""

    newest_reads = 0

    async def newest(self) -> int:
        self.newest_reads += 1
        return await super().newest()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def caller(store: MemoryStore) -> AsyncIterator[WireCaller]:
    async with open_wire(store, clock=Clocks().clock()) as caller:
        yield caller


def broken_fields(answer: Answer) -> list[str]:
    """Return the names of the fields in the details of a rejection."""
    broken = answer.details[1]
    assert isinstance(broken, BadRequest)
    return [violation.field for violation in broken.field_violations]


async def alerts(caller: WireCaller, call: str, **changed: Any) -> list[Alert]:
    found: list[Alert] = (await caller.read(call, **changed)).alerts
    return found


async def events(caller: WireCaller, store: MemoryStore, **changed: Any) -> list[AlertEvent]:
    await EventOrder(store).order()
    fields: dict[str, Any] = {"user_id": None, **changed}
    found: list[AlertEvent] = (await caller.read("ListAlertEvents", **fields)).events
    return found


@pytest.mark.parametrize("user_id", [7, None])
async def test_alerts_are_set_listed_and_removed(caller: WireCaller, user_id: int | None) -> None:
    rises: dict[str, Any] = {"user_id": user_id, "direction": AlertDirection.RISES_TO}
    assert await alerts(caller, "SetAlert", **rises) == [RISES_20]
    for _ in range(2):
        assert await alerts(caller, "SetAlert", user_id=user_id) == [BELOW_20, RISES_20]
    listed = await caller.read("ListAlerts")
    own, shared = listed.user_alerts, listed.app_alerts
    assert (own, shared) == (([BELOW_20, RISES_20], []) if user_id else ([], [BELOW_20, RISES_20]))
    assert (await caller.read("ListAlerts", user_id=None)).app_alerts == shared
    for _ in range(2):
        assert await alerts(caller, "RemoveAlert", **rises) == [BELOW_20]
    assert await alerts(caller, "RemoveAlert", user_id=user_id) == []


async def test_the_alerts_of_a_user_are_those_after_the_change_although_the_store_lags() -> None:
    store = LaggingStore()
    await store.remember(7)
    async with open_wire(store, clock=Clocks().clock()) as caller:
        for _ in range(2):  # it is set, and then unchanged
            store.lag = 3
            assert await alerts(caller, "SetAlert") == [BELOW_20]
            assert store.lag == 0
        await store.remember(7)
        store.lag = 3
        assert await alerts(caller, "RemoveAlert") == []


async def test_a_change_that_the_store_does_not_show_in_time_may_be_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reads, "REVISION_SECONDS_MAX", 0.0)
    store = LaggingStore()
    await store.remember(7)
    async with open_wire(store, clock=Clocks().clock()) as caller:
        store.lag = 1
        answer = await caller.call("SetAlert", request_of("SetAlert"))
        assert (answer.status, reason_of(answer)) == (Status.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert "took effect" in answer.sentence
        assert await alerts(caller, "SetAlert") == [BELOW_20]


async def test_an_alert_of_a_user_is_a_transaction_and_one_that_is_set_already_is_none(
    caller: WireCaller,
) -> None:
    for call in ("SetAlert", "SetAlert", "RemoveAlert", "RemoveAlert"):
        await caller.read(call)
    page = (await caller.read("QueryTransactions")).transactions
    assert [(each.type.name, each.credits, each.effect) for each in page] == [
        ("ALERT", 20, 0),
        ("ALERT", 20, 0),
    ]


@pytest.mark.parametrize("user_id", [7, None])
async def test_the_number_of_alerts_is_limited(caller: WireCaller, user_id: int | None) -> None:
    for credits_ in range(1, ALERTS_MAX + 1):
        await alerts(caller, "SetAlert", user_id=user_id, credits=credits_)
    answer = await caller.call("SetAlert", request_of("SetAlert", user_id=user_id))
    assert (answer.status, reason_of(answer)) == (Status.RESOURCE_EXHAUSTED, "TOO_MANY_ALERTS")
    assert info_of(answer).metadata == {"limit": str(ALERTS_MAX)}
    assert len(await alerts(caller, "SetAlert", user_id=user_id, credits=1)) == ALERTS_MAX


@pytest.mark.parametrize("call", ["SetAlert", "RemoveAlert"])
@pytest.mark.parametrize("user_id", [7, None])
async def test_a_direction_must_be_known(
    caller: WireCaller, call: str, user_id: int | None
) -> None:
    for direction in (AlertDirection.UNSPECIFIED, AlertDirection(77)):
        request = request_of(call, user_id=user_id, direction=direction)
        answer = await caller.call(call, request)
        assert reason_of(answer) == "INVALID_FIELD"
        assert broken_fields(answer) == ["direction"]


async def test_events_are_those_of_the_user_and_of_the_app(
    caller: WireCaller, store: MemoryStore
) -> None:
    await caller.read("SetAlert", user_id=None, direction=AlertDirection.RISES_TO)
    await caller.read("SetAlert")
    added = [await caller.write("AddCredits", user_id=user_id) for user_id in (7, 8)]
    used = await caller.write("UseCredits", credits=31)
    found = await events(caller, store)
    assert [(each.user_id, each.alert, each.balance, each.transaction_id) for each in found] == [
        # The clock stands still, so the smaller `sequence` is first.
        (8, RISES_20, 50, added[1].transaction_id),
        (7, RISES_20, 50, added[0].transaction_id),
        (7, BELOW_20, 19, used.transaction_id),
    ]
    assert [each.position for each in found] == [1, 2, 3]
    assert (found[2].sequence, found[2].app_id) == (used.sequence, 1)
    assert found[2].created_at is not None
    assert await events(caller, store, user_id=8) == [found[0]]
    assert await events(caller, store, after_position=2) == [found[2]]


async def test_events_come_in_pages(caller: WireCaller, store: MemoryStore) -> None:
    await caller.read("SetAlert", user_id=None, direction=AlertDirection.RISES_TO)
    for user_id in range(1, 6):
        await caller.write("AddCredits", user_id=user_id)
    await EventOrder(store).order()
    seen, after = [], 0
    for expected in (2, 2, 1):
        page = await caller.read("ListAlertEvents", user_id=None, page_size=2, after_position=after)
        assert len(page.events) == expected
        seen += [each.user_id for each in page.events]
        after = page.next_after_position
    assert (seen, after) == ([1, 2, 3, 4, 5], 0)


async def test_a_page_has_the_position_from_which_to_continue(
    caller: WireCaller, store: MemoryStore
) -> None:
    await caller.read("SetAlert", user_id=None, direction=AlertDirection.RISES_TO)
    assert (await caller.read("ListAlertEvents", from_now=True)).position == 0
    for user_id in (7, 8, 7, 8):
        await caller.write("AddCredits", user_id=user_id, credits=20)
        await caller.write("UseCredits", user_id=user_id, credits=20)
    await EventOrder(store).order()
    first = await caller.read("ListAlertEvents", page_size=1)
    assert [first.position, first.next_after_position] == [first.events[0].position] * 2
    # The last page goes up to the latest event, although it is of another user.
    last = await caller.read("ListAlertEvents", after_position=first.position)
    assert (len(last.events), last.next_after_position, last.position) == (1, 0, 4)
    none = await caller.read("ListAlertEvents", after_position=4)
    assert (none.events, none.position) == ([], 4)


@pytest.mark.parametrize("wait_seconds", [0, 20])
async def test_a_reader_that_continues_after_a_position_that_no_event_has_is_rejected(
    caller: WireCaller, store: MemoryStore, wait_seconds: int
) -> None:
    """A server that has restored an older backup must not leave out new events."""
    await caller.read("SetAlert", user_id=None, direction=AlertDirection.RISES_TO)
    for newest in (0, 1):
        request = request_of(
            "ListAlertEvents", after_position=newest + 1, wait_seconds=wait_seconds
        )
        answer = await caller.call("ListAlertEvents", request)
        assert (answer.status, reason_of(answer)) == (Status.OUT_OF_RANGE, "ALERT_EVENTS_EXPIRED")
        assert info_of(answer).metadata == {"position": str(newest)}
        page = await caller.read("ListAlertEvents", after_position=newest)
        assert (page.events, page.position) == ([], newest)
        await caller.write("AddCredits", user_id=7 + newest)
        await EventOrder(store).order()


@pytest.mark.parametrize("wait_seconds", [0, 20])
async def test_events_from_now_on_are_those_after_the_request(
    store: MemoryStore, wait_seconds: int
) -> None:
    store.alert_events = counted = CountedAlertEvents(store.webhooks)
    async with open_wire(store) as caller:
        await caller.read("SetAlert", user_id=None, direction=AlertDirection.RISES_TO)
        await caller.write("AddCredits", user_id=8)
        await EventOrder(store).order()
        reading = asyncio.create_task(
            caller.read("ListAlertEvents", user_id=None, from_now=True, wait_seconds=wait_seconds)
        )
        if wait_seconds:
            while not counted.newest_reads:  # noqa: ASYNC110 - the store reports no event
                await asyncio.sleep(0)
            await caller.write("AddCredits", user_id=7)
            await EventOrder(store).order()
        page = await reading
    assert [each.user_id for each in page.events] == ([7] if wait_seconds else [])
    assert page.position == (2 if wait_seconds else 1)


async def test_a_request_has_a_position_or_begins_now(caller: WireCaller) -> None:
    request = request_of("ListAlertEvents", after_position=1, from_now=True)
    answer = await caller.call("ListAlertEvents", request)
    assert reason_of(answer) == "INVALID_FIELD"
    assert broken_fields(answer) == ["after_position"]


async def test_a_reader_that_continues_before_removed_events_is_rejected_and_no_other(
    store: MemoryStore,
) -> None:
    clocks = Clocks()
    retention = EventRetention(store, clocks.clock())
    async with open_wire(store, clock=clocks.clock()) as caller:
        for app_id in (1, 2):
            rises = {"user_id": None, "direction": AlertDirection.RISES_TO, "app_id": app_id}
            await caller.read("SetAlert", **rises)
        for user_id in (7, 8):
            await caller.write("AddCredits", user_id=user_id)
        await EventOrder(store).order()
        quiet = await caller.read("ListAlertEvents", user_id=None, app_id=2)
        clocks.advance(KEPT.total_seconds())
        await retention.remove()
        assert len((await caller.read("ListAlertEvents", user_id=None)).events) == 2
        await caller.write("AddCredits", user_id=9)
        await EventOrder(store).order()
        clocks.advance(1)
        await retention.remove()
        request = request_of("ListAlertEvents", after_position=1)
        answer = await caller.call("ListAlertEvents", request)
        assert (answer.status, reason_of(answer)) == (Status.OUT_OF_RANGE, "ALERT_EVENTS_EXPIRED")
        assert info_of(answer).metadata == {"position": "2"}
        for after in (0, 2):
            page = await caller.read("ListAlertEvents", user_id=None, after_position=after)
            assert [each.user_id for each in page.events] == [9]
        # Nothing of the other app was removed, so its reader has missed nothing.
        for after in (1, quiet.position):
            page = await caller.read("ListAlertEvents", app_id=2, after_position=after)
            assert page.events == []


async def test_a_transfer_crosses_the_limit_of_the_app_that_gets_the_credits(
    caller: WireCaller, store: MemoryStore
) -> None:
    await caller.read("SetAlert", user_id=None, app_id=2, direction=AlertDirection.RISES_TO)
    await caller.write("AddCredits")
    await caller.write("TransferCredits", credits=20, to_app_id=2)
    (event,) = await events(caller, store, app_id=2)
    assert (event.app_id, event.balance, event.alert) == (2, 20, RISES_20)
    assert await events(caller, store) == []


async def test_a_tenant_sees_and_sets_alerts_of_its_own_apps_alone() -> None:
    tokens = FakeAuthenticator(
        {"secret": EVERYTHING, "other": replace(EVERYTHING, apps=frozenset({2}))}
    )
    store = MemoryStore()
    async with open_wire(store, authenticator=tokens) as one:
        other = WireCaller(one.wire, "other")
        await one.read("SetAlert", user_id=None, direction=AlertDirection.RISES_TO)
        await one.read("SetAlert")
        await one.write("AddCredits")
        assert len(await events(one, store)) == 1
        for call in ("SetAlert", "RemoveAlert", "ListAlerts", "ListAlertEvents"):
            for user_id in (7, None):
                answer = await other.call(call, request_of(call, user_id=user_id))
                assert reason_of(answer) == "APP_NOT_ALLOWED"
        request = ListAlertEventsRequest(app_id=2)
        assert (await other.call("ListAlertEvents", request)).status is Status.OK
        assert (await other.read("ListAlerts", app_id=2)).user_alerts == []


async def test_each_change_has_a_line_in_the_audit_log() -> None:
    lines: list[Line] = []
    tokens = FakeAuthenticator({"secret": EVERYTHING})
    async with open_wire(authenticator=tokens, audit_sink=lines.append) as caller:
        for user_id in (7, None):
            for call in ("SetAlert", "SetAlert", "RemoveAlert"):
                await caller.read(call, user_id=user_id)
        await caller.call("SetAlert", request_of("SetAlert", app_id=0))
    assert [line["status"] for line in lines] == ["OK"] * 6 + ["INVALID_ARGUMENT"]
    assert [(line.get("replayed"), line.get("revision")) for line in lines[:6]] == [
        (False, None),
        (True, None),
        (False, None),
        (None, 1),
        (None, 1),
        (None, 2),
    ]
    assert {(line["direction"], line["credits"]) for line in lines} == {("falls_below", 20)}


async def test_events_are_ordered_until_none_is_left_or_another_process_is_faster() -> None:
    class Contended(MemoryAlertEvents):
        calls = 0

        async def order(self, limit: int) -> int:
            self.calls += 1
            if self.calls == 2:
                raise Conflict("another process was faster")
            return limit

    store = MemoryStore()
    store.alert_events = contended = Contended()
    await EventOrder(store).order()
    assert contended.calls == 2
    failing = EventOrder(FailingStore(StoreUnavailable("away")))
    with pytest.raises(StoreUnavailable):
        await failing.order()


async def test_webhooks_are_set_listed_and_removed_and_a_new_secret_is_returned_once(
    caller: WireCaller, store: MemoryStore
) -> None:
    made = await caller.read("SetWebhook")
    assert made.secret.startswith("whsec_")
    (stored,) = await store.webhooks.of_app(1)
    assert (stored.secret, stored.created_by) == (made.secret, 9)
    again = await caller.read("SetWebhook")
    assert (again.secret, again.webhook) == ("", made.webhook)
    own = "whsec_" + "A" * 32
    assert (await caller.read("SetWebhook", secret=own)).secret == own
    (stored,) = await store.webhooks.of_app(1)
    assert stored.secret == own
    assert (await caller.read("ListWebhooks")).webhooks == [made.webhook]
    assert (await caller.read("ListWebhooks", app_id=2)).webhooks == []
    for _ in range(2):
        await caller.read("RemoveWebhook")
    assert (await caller.read("ListWebhooks")).webhooks == []


async def test_of_two_requests_for_a_new_webhook_only_one_returns_a_secret_which_is_stored(
    caller: WireCaller, store: MemoryStore
) -> None:
    class Slow(MemoryWebhooks):
        async def of_app(self, app_id: int) -> Sequence[Webhook]:
            found = await super().of_app(app_id)
            await both.wait()
            return found

    both = asyncio.Barrier(2)
    store.webhooks = Slow()
    async with open_wire(store) as slow:
        answers = await asyncio.gather(*(slow.read("SetWebhook") for _ in range(2)))
    (stored,) = await MemoryWebhooks.of_app(store.webhooks, 1)
    assert sorted(answer.secret for answer in answers) == ["", stored.secret]
    assert answers[0].webhook == answers[1].webhook


async def test_the_search_for_events_continues_after_an_unexpected_error(
    store: MemoryStore,
) -> None:
    class Broken(MemoryAlertEvents):
        failures = 2

        async def newest(self) -> int:
            self.failures -= 1
            if self.failures >= 0:
                raise RuntimeError("not an error of a store")
            return await super().newest()

    store.alert_events = Broken()
    with (
        structlog.testing.capture_logs() as lines,
        EventWatch(store, interval_seconds=0.001).waiting(1) as changed,
    ):
        await changed.wait()
    assert [line["event"] for line in lines] == [
        "new events of alerts cannot be read; the server retries"
    ]


async def test_the_url_of_a_webhook_must_be_public_unless_the_operator_allows_others(
    caller: WireCaller,
) -> None:
    for url in ("http://example.com/", "https://10.0.0.1/"):
        answer = await caller.call("SetWebhook", request_of("SetWebhook", url=url))
        assert reason_of(answer) == "WEBHOOK_URL_NOT_ALLOWED"
        assert answer.status is Status.FAILED_PRECONDITION
        async with open_wire(webhook_allow_private=True) as trusting:
            assert (await trusting.read("SetWebhook", url=url)).webhook.url == url
    broken = request_of("SetWebhook", url="ftp://example.com", secret="whsec_")
    answer = await caller.call("SetWebhook", broken)
    assert reason_of(answer) == "INVALID_FIELD"
    assert broken_fields(answer) == ["url", "secret"]


async def test_dead_letters_are_listed_and_sent_again(
    caller: WireCaller, store: MemoryStore
) -> None:
    await caller.read("SetAlert", user_id=None, direction=AlertDirection.RISES_TO)
    await caller.read("SetWebhook")
    for user_id in (7, 8, 9):
        await caller.write("AddCredits", user_id=user_id)
    await EventOrder(store).order()
    later = NOON + timedelta(days=1)
    while claim := await store.webhooks.claim(NOON, later):
        await store.webhooks.failed(claim.delivery, error="why", due_at=None, now=later)
    first = await caller.read("ListDeadLetters", page_size=2)
    rest = await caller.read("ListDeadLetters", page_size=2, after_id=first.next_after_id)
    letters = [*first.dead_letters, *rest.dead_letters]
    assert (len(first.dead_letters), len(letters), rest.next_after_id) == (2, 3, "")
    assert {each.event.user_id for each in letters} == {7, 8, 9}
    assert {(each.url, each.error, each.attempts, each.failed_at) for each in letters} == {
        ("https://example.com/hook", "why", 1, later)
    }
    for changed in ({}, {"app_id": 2, "dead_letter_id": letters[0].id}):
        answer = await caller.call("ResendDeadLetters", request_of("ResendDeadLetters", **changed))
        assert reason_of(answer) == "DEAD_LETTER_NOT_FOUND"
    id_ = letters[0].id
    assert (await caller.read("ResendDeadLetters", dead_letter_id=id_)).resent == 1
    assert (await caller.read("ResendDeadLetters", dead_letter_id="")).resent == 2
    assert (await caller.read("ResendDeadLetters", dead_letter_id="")).resent == 0
    assert (await caller.read("ListDeadLetters")).dead_letters == []


async def test_a_change_of_a_webhook_has_a_line_in_the_audit_log_without_its_secret() -> None:
    lines: list[Line] = []
    tokens = FakeAuthenticator({"secret": EVERYTHING})
    async with open_wire(authenticator=tokens, audit_sink=lines.append) as caller:
        secret = (await caller.read("SetWebhook")).secret
        await caller.read("RemoveWebhook")
        await caller.call("ResendDeadLetters", request_of("ResendDeadLetters"))
    assert [(line["status"], line.get("url"), line.get("dead_letter_id")) for line in lines] == [
        ("OK", "https://example.com/hook", None),
        ("OK", "https://example.com/hook", None),
        ("NOT_FOUND", None, ANY_ID),
    ]
    assert secret not in str(lines)


async def test_a_call_waits_for_an_event_of_its_app_and_user(
    caller: WireCaller, store: MemoryStore
) -> None:
    rises: dict[str, Any] = {"user_id": None, "direction": AlertDirection.RISES_TO}
    for app_id in (1, 2):
        await caller.read("SetAlert", **rises, app_id=app_id)
    waiting = [
        asyncio.create_task(caller.read("ListAlertEvents", user_id=user_id, wait_seconds=20))
        for user_id in (7, None)
    ]
    await caller.write("AddCredits", app_id=2)
    await EventOrder(store).order()
    await caller.write("AddCredits", user_id=8)
    await EventOrder(store).order()
    (event,) = (await waiting[1]).events
    assert (event.app_id, event.user_id, event.position) == (1, 8, 2)
    assert not waiting[0].done()
    await caller.write("AddCredits")
    await EventOrder(store).order()
    (event,) = (await waiting[0]).events
    assert (event.user_id, event.position) == (7, 3)
    assert (await caller.read("ListAlertEvents", wait_seconds=20)).events == [event]


async def test_a_call_that_waits_is_answered_when_its_time_is_up_or_the_server_stops(
    store: MemoryStore,
) -> None:
    async with serving(store) as served, Connection.connect(served.port) as wire:
        caller = WireCaller(wire)
        assert (await caller.read("ListAlertEvents", wait_seconds=1)).events == []
        request = request_of("ListAlertEvents", wait_seconds=20)
        soon = await caller.call("ListAlertEvents", request, ("grpc-timeout", "1100m"))
        assert soon.status is Status.OK
        waiting = asyncio.create_task(caller.call("ListAlertEvents", request))
        await served.wait_running(1)
        await served.server.stop(grace_seconds=20)
        assert (await waiting).status is Status.OK
