"""Test what every store does for the events of alerts and webhooks, with one suite."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import bson
import pytest
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from credit_models.ledger import Account, Alert, AlertEvent, AppAccount, Direction, Policy
from credit_server.store.alert_documents import AlertEventDocument, event_bson
from credit_server.store.alert_events import EventsRemoved, PositionUnknown
from credit_server.store.driver import Driver
from credit_server.store.memory import MemoryStore
from credit_server.store.mongo import MongoStore
from credit_server.store.port import (
    AppPolicy,
    Changes,
    Conflict,
    Store,
    StoreUnavailable,
    Unreadable,
)
from credit_server.store.webhook_documents import DeliveryDocument, WebhookDocument
from credit_server.store.webhooks import Webhook, new_delivery
from credit_server.store.writing import account_bson
from pymongo.errors import BulkWriteError
from structlog.testing import capture_logs

from tests.server.store.fail_point import failing
from tests.server.store.profiler import profiled_reads

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
ALERT = Alert(credits=20, direction=Direction.FALLS_BELOW)
OTHER = Alert(credits=2**32 - 1, direction=Direction.RISES_TO)


@pytest.fixture(params=["memory", Driver.MOTOR])
async def store(
    request: pytest.FixtureRequest, mongod_uri: str, migrated_database: str
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    async with mongo(mongod_uri, migrated_database, request.param) as opened:
        yield opened


async def add_gap(store: MongoStore, last: int, next_: int) -> None:
    """Add a gap to the positions, as an import does."""
    gap = {"last": Int64(last), "next": Int64(next_)}
    await store._database["schema_version"].update_one(
        {"_id": "credit"}, {"$push": {"event_gaps": gap}}
    )


@asynccontextmanager
async def mongo(
    uri: str, database: str, driver: Driver = Driver.MOTOR
) -> AsyncIterator[MongoStore]:
    opened = MongoStore(uri, database=database, driver=driver)
    yield opened
    await opened.close()


with_each_driver = pytest.mark.parametrize(
    "store", ["memory", Driver.MOTOR, Driver.PYMONGO], indirect=True
)


def event(number: int, *, user_id: int = 7, app_id: int = 1) -> AlertEvent:
    return AlertEvent(
        id=f"{number:024x}",
        user_id=user_id,
        app_id=app_id,
        alert=OTHER if number % 2 else ALERT,
        balance=number % 3,
        transaction_id=f"{number + 1000:024x}",
        sequence=number + 1,
        created_at=NOW + timedelta(milliseconds=number),
    )


async def write(store: Store, *events: AlertEvent) -> None:
    async with store.writer().begin() as transaction:
        await transaction.write(
            Changes(
                accounts=[],
                transactions=[],
                purchases=[],
                totals={},
                counter_shard=0,
                events=events,
            )
        )
        await transaction.commit()


async def order_all(store: Store, limit: int = 100) -> None:
    while await store.alert_events.order(limit) == limit:
        pass


async def positions(store: Store, app_id: int = 1) -> Sequence[tuple[int, AlertEvent]]:
    found = (await store.alert_events.page(app_id, limit=1000)).events
    return [(position, event) for position, event in found]


@with_each_driver
async def test_events_get_positions_in_the_order_of_their_entries(store: Store) -> None:
    assert await store.alert_events.order(10) == 0
    assert await store.alert_events.newest() == 0
    await write(store, event(3), event(1))
    await write(store, event(2))
    assert await positions(store) == []
    assert await store.alert_events.order(2) == 2
    assert await positions(store) == [(1, event(1)), (2, event(2))]
    await order_all(store)
    await write(store, event(0))
    await order_all(store)
    assert await positions(store) == [
        (1, event(1)),
        (2, event(2)),
        (3, event(3)),
        (4, event(0)),
    ]


async def test_positions_that_no_majority_confirms_are_set_later(
    mongod_uri: str, migrated_database: str
) -> None:
    error = {"code": 11602, "codeName": "InterruptedDueToReplStateChange", "errmsg": "interrupted"}
    async with mongo(mongod_uri, migrated_database) as store:
        await write(store, event(1))
        async with failing(mongod_uri, "update", times=100, writeConcernError=error):
            with pytest.raises(StoreUnavailable):
                await store.alert_events.order(10)
        await order_all(store)
        assert await positions(store) == [(1, event(1))]


@with_each_driver
async def test_a_page_has_the_events_of_an_app_or_of_a_user_of_it(store: Store) -> None:
    there = [event(number, user_id=7 + number % 2, app_id=1 + number // 4) for number in range(6)]
    await write(store, *there)
    await order_all(store)

    # Any: the arguments of a page.
    async def page(*args: Any, **options: Any) -> list[int]:
        found = await store.alert_events.page(*args, **options)
        assert found.position == 6
        return [each.position for each in found.events]

    assert await page(1, limit=9) == [1, 2, 3, 4]
    assert await page(1, limit=3) == [1, 2, 3]
    assert await page(1, after_position=2, limit=9) == [3, 4]
    assert await page(1, 8, limit=9) == [2, 4]
    assert await page(2, 8, limit=9) == [6]
    assert await page(3, limit=9) == []
    assert await page(1, after_position=6, limit=9) == []
    assert await store.alert_events.newest() == 6
    assert list(await store.alert_events.since(3, 2)) == [(4, 1), (5, 2)]
    assert await store.alert_events.since(6, 2) == []


@with_each_driver
async def test_old_events_are_removed_and_a_read_that_lacks_some_is_rejected(store: Store) -> None:
    events = store.alert_events
    await write(store, *(event(number, app_id=1 + number % 2) for number in range(6)), event(9))
    await order_all(store)
    assert await events.remove_before(event(0).created_at, 9) == 0
    assert [await events.remove_before(event(4).created_at, 3) for _ in range(3)] == [3, 1, 0]
    kept = [(5, event(4, app_id=1))]
    assert await positions(store) == [*kept, (7, event(9))]
    assert list(await events.since(0, 9)) == [(5, 1), (6, 2), (7, 1)]
    for app_id, removed in ((1, 3), (2, 4)):
        with pytest.raises(EventsRemoved) as rejected:
            await events.page(app_id, after_position=removed - 1, limit=9)
        assert rejected.value.position == removed
        with pytest.raises(EventsRemoved):
            await events.page(app_id, 8, after_position=1, limit=9)
        assert (await events.page(app_id, after_position=removed, limit=1)).events
    assert await events.page(3, after_position=1, limit=9) == ([], 7)


@with_each_driver
async def test_a_read_after_a_position_that_no_event_has_is_rejected(store: Store) -> None:
    page = store.alert_events.page
    for newest in (0, 1, 2):
        with pytest.raises(PositionUnknown) as rejected:
            await page(3, after_position=newest + 1, limit=9)
        assert rejected.value.last == newest
        assert await page(3, after_position=newest, limit=9) == ([], newest)
        await write(store, event(newest))
        await order_all(store)


@pytest.mark.parametrize("driver", Driver)
async def test_a_read_after_a_position_in_the_gap_of_an_import_is_rejected(
    mongod_uri: str, migrated_database: str, driver: Driver
) -> None:
    async with mongo(mongod_uri, migrated_database, driver) as store:
        await write(store, event(1), event(2, app_id=2))
        await order_all(store)
        await add_gap(store, 2, 100)
        await write(store, event(3), event(4))
        await order_all(store)
        assert await positions(store) == [(1, event(1)), (100, event(3)), (101, event(4))]
        page = store.alert_events.page
        for app_id in (1, 2, 3):
            for position, last in ((3, 2), (99, 2), (102, 101)):
                with pytest.raises(PositionUnknown) as rejected:
                    await page(app_id, after_position=position, limit=9)
                assert rejected.value.last == last
        assert [len((await page(1, after_position=n, limit=9)).events) for n in (2, 100)] == [2, 1]
        # The events on both sides of the gap are removed.
        later = NOW + timedelta(days=99)
        assert await store.alert_events.remove_before(later, 9) == 3
        for app_id in (2, 3):
            for position in (3, 99):
                with pytest.raises(PositionUnknown) as rejected:
                    await page(app_id, after_position=position, limit=9)
                assert rejected.value.last == 2
            for position in (2, 100, 101):
                assert await page(app_id, after_position=position, limit=9) == ([], 101)
        with pytest.raises(EventsRemoved):
            await page(1, after_position=99, limit=9)


@pytest.mark.parametrize("driver", Driver)
async def test_a_read_after_a_position_before_the_first_event_of_a_restore_is_rejected(
    mongod_uri: str, migrated_database: str, driver: Driver
) -> None:
    async with mongo(mongod_uri, migrated_database, driver) as store:
        await add_gap(store, 0, 100)
        page = store.alert_events.page
        for expected in ([], [100], [100, 101]):
            assert [each.position for each in (await page(1, limit=9)).events] == expected
            for app_id in (1, 2):
                for position in (1, 99):
                    with pytest.raises(PositionUnknown) as rejected:
                        await page(app_id, after_position=position, limit=9)
                    assert rejected.value.last == 0
            await write(store, event(len(expected)))
            await order_all(store)


@pytest.mark.parametrize(
    ("gaps", "position", "last"),
    [
        ([(3, 100), (110, 200)], 3, None),
        ([(3, 100), (110, 200)], 4, 3),
        ([(3, 100), (110, 200)], 99, 3),
        ([(3, 100), (110, 200)], 100, None),
        ([(3, 100), (110, 200)], 110, None),
        ([(3, 100), (110, 200)], 111, 110),
        ([(3, 100), (110, 200)], 199, 110),
        ([(3, 100), (110, 200)], 200, None),
        # The second import is of a backup from before the first one.
        ([(3, 100), (2, 200)], 2, None),
        ([(3, 100), (2, 200)], 3, 2),
        ([(3, 100), (2, 200)], 50, 2),
        ([(3, 100), (2, 200)], 100, 2),
    ],
)
async def test_the_gap_of_each_import_is_kept(
    mongod_uri: str,
    migrated_database: str,
    gaps: list[tuple[int, int]],
    position: int,
    last: int | None,
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        for gap in gaps:
            await add_gap(store, *gap)
        await write(store, event(1), event(2))
        await order_all(store)
        assert await positions(store) == [(200, event(1)), (201, event(2))]
        page = store.alert_events.page(2, after_position=position, limit=9)
        if last is None:
            assert await page == ([], 201)
        else:
            with pytest.raises(PositionUnknown) as rejected:
                await page
            assert rejected.value.last == last


@pytest.mark.parametrize("least", [1, 2, 3])
async def test_positions_continue_after_a_gap(
    mongod_uri: str, migrated_database: str, least: int
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        await add_gap(store, 0, least)
        await write(store, event(1), event(2), event(3))
        await order_all(store, limit=1)
        assert [position for position, _ in await positions(store)] == [*range(least, least + 3)]


@pytest.mark.parametrize("driver", Driver)
async def test_a_read_that_does_not_find_the_position_of_an_earlier_read_is_retried(
    mongod_uri: str, migrated_database: str, driver: Driver
) -> None:
    class Stale(Failing):
        """Misses the latest event, as a new primary can for a moment."""

        async def find_one(self, query: Any, *args: Any, **options: Any) -> Any:
            return await self._collection.find_one({"position": 1}, *args)

    async with mongo(mongod_uri, migrated_database, driver) as store:
        await write(store, event(1), event(2))
        await order_all(store)
        events = store.alert_events._events
        stale: Any = Stale(events)
        store.alert_events._events = stale
        with pytest.raises(StoreUnavailable):
            await store.alert_events.page(1, after_position=2, limit=9)
        with pytest.raises(PositionUnknown) as rejected:
            await store.alert_events.page(1, after_position=3, limit=9)
        assert rejected.value.last == 2
        store.alert_events._events = events
        assert await store.alert_events.page(1, after_position=2, limit=9) == ([], 2)


@pytest.mark.parametrize("driver", Driver)
async def test_a_page_sees_what_its_earlier_reads_have_seen(
    mongod_uri: str, migrated_database: str, driver: Driver
) -> None:
    async with mongo(mongod_uri, migrated_database, driver) as store:
        await write(store, event(1), event(2))
        await order_all(store)
        with profiled_reads(mongod_uri, migrated_database) as reads:
            found = await store.alert_events.page(1, after_position=1, limit=9)
    assert [each.position for each in found.events] == [2]
    collections = ["alert_events", "alert_events", "removed_events", "schema_version"]
    assert [read["find"] for read in reads] == collections
    assert all("afterClusterTime" in read["readConcern"] for read in reads[1:])


@with_each_driver
async def test_positions_continue_after_all_events_are_too_old(store: Store) -> None:
    later = NOW + timedelta(days=99)
    await write(store, event(1), event(2, app_id=2))
    await order_all(store)
    assert await store.alert_events.remove_before(later, 9) == 1
    assert await store.alert_events.remove_before(later, 9) == 0
    assert await store.alert_events.newest() == 2
    await write(store, event(3))
    await order_all(store)
    assert await positions(store) == [(3, event(3))]


async def test_an_event_without_a_position_is_not_removed(store: Store) -> None:
    await write(store, event(2))
    await order_all(store)
    await write(store, event(1))
    assert await store.alert_events.remove_before(NOW + timedelta(days=99), 9) == 0
    await order_all(store)
    assert await positions(store) == [(1, event(2)), (2, event(1))]


async def test_events_are_removed_only_after_their_position_is_stored(
    mongod_uri: str, migrated_database: str
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        await write(store, event(1), event(2))
        await order_all(store)
        failing: Any = Failing(store.alert_events._removed, bulk_write=StoreUnavailable("away"))
        store.alert_events._removed = failing
        with pytest.raises(StoreUnavailable):
            await store.alert_events.remove_before(NOW + timedelta(days=99), 9)
        assert [position for position, _ in await positions(store)] == [1, 2]


async def test_an_event_is_written_with_its_transaction_or_not_at_all(store: Store) -> None:
    first = Account(
        user_id=7,
        balances={1: 5},
        revision=1,
        created_at=NOW,
        updated_at=NOW,
        created_by=1,
        updated_by=1,
    )
    for number, conflicts in ((1, False), (2, True)):
        changes = Changes(
            accounts=[(Account.empty(7), first)],
            transactions=[],
            purchases=[],
            totals={},
            counter_shard=0,
            events=[event(number)],
        )
        try:
            async with store.writer().begin() as transaction:
                await transaction.write(changes)
                await transaction.commit()
        except Conflict:
            assert conflicts
    await order_all(store)
    assert await positions(store) == [(1, event(1))]


async def test_alerts_are_kept_with_the_account_and_the_policy(store: Store) -> None:
    app = AppAccount.of(alerts=(ALERT, OTHER))
    before = Account.empty(7)
    for revision, alerts in enumerate(((ALERT, OTHER), (OTHER,), ()), 1):
        app = AppAccount.of(alerts=alerts)
        account = Account(
            user_id=7,
            balances={1: 5},
            apps={1: app} if alerts else {},
            revision=revision,
            created_at=NOW,
            updated_at=NOW,
            created_by=1,
            updated_by=1,
        )
        async with store.writer().begin() as transaction:
            await transaction.write(
                Changes(
                    accounts=[(before, account)],
                    transactions=[],
                    purchases=[],
                    totals={},
                    counter_shard=0,
                )
            )
            await transaction.commit()
        stored = await store.account(7)
        assert stored is not None
        assert replace(stored, id="") == account
        before = stored
        policy = AppPolicy(
            app_id=1,
            policy=Policy(alerts=alerts),
            revision=revision,
            updated_at=NOW,
            updated_by=1,
        )
        await store.set_policy(policy)
        assert await store.policy(1) == policy
    assert "apps" not in account_bson(before)


async def test_concurrent_processes_leave_no_gap_between_positions(
    mongod_uri: str, migrated_database: str
) -> None:
    async with (
        mongo(mongod_uri, migrated_database) as one,
        mongo(mongod_uri, migrated_database) as other,
    ):
        waiting = [event(number) for number in range(60)]

        async def write_all() -> None:
            for start in range(0, 60, 5):
                await write(one, *waiting[start : start + 5])

        async def order_until_done(store: Store) -> None:
            while len(await positions(store)) < len(waiting):
                try:
                    await store.alert_events.order(7)
                except Conflict:
                    continue

        await asyncio.gather(write_all(), order_until_done(one), order_until_done(other))
        found = await positions(one)
        assert [position for position, _ in found] == list(range(1, 61))
        assert {each.id for _, each in found} == {each.id for each in waiting}


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_written_is_what_the_model_defines(number: int) -> None:
    written = event_bson(event(number))
    document = AlertEventDocument.model_validate(written)
    assert document.to_bson() == written
    assert document.to_event() == event(number)


def webhook(number: int = 1, *, app_id: int = 1) -> Webhook:
    return Webhook(
        id=f"{number + 5000:024x}",
        app_id=app_id,
        url=f"https://example.com/{number}",
        secret=f"whsec_{number}",
        created_at=NOW,
        created_by=3,
    )


@with_each_driver
async def test_a_webhook_is_set_once_for_a_url_and_its_secret_can_change(store: Store) -> None:
    webhooks = store.webhooks
    assert await webhooks.set(webhook()) == webhook()
    again = replace(webhook(), id=f"{9:024x}", secret="whsec_new", created_by=4)
    assert await webhooks.set(again) == replace(webhook(), secret="whsec_new")
    await webhooks.set(webhook(2, app_id=2))
    await webhooks.set(webhook(3))
    found = await webhooks.of_app(1)
    assert list(found) == [replace(webhook(), secret="whsec_new"), webhook(3)]
    await webhooks.remove(1, webhook().url)
    await webhooks.remove(1, webhook(2).url)
    assert list(await webhooks.of_app(1)) == [webhook(3)]
    assert list(await webhooks.of_app(2)) == [webhook(2, app_id=2)]


@with_each_driver
async def test_a_delivery_is_claimed_once_and_again_when_the_claim_has_ended(
    store: Store,
) -> None:
    webhooks, later = store.webhooks, NOW + timedelta(minutes=1)
    await webhooks.set(webhook())
    await webhooks.set(webhook(2, app_id=2))
    await write(store, event(1), event(2, app_id=3))
    assert await webhooks.claim(later, later) is None
    await order_all(store)
    assert await webhooks.backlog() == (event(1).created_at, 0)
    claim = await webhooks.claim(NOW + timedelta(seconds=1), later)
    assert claim is not None
    assert (claim.webhook, claim.delivery.event) == (webhook(), event(1))
    assert (claim.delivery.attempts, claim.delivery.due_at) == (1, later)
    assert await webhooks.claim(NOW + timedelta(seconds=2), later) is None
    again = await webhooks.claim(later, later + timedelta(minutes=1))
    assert again is not None
    assert (again.delivery.id, again.delivery.attempts) == (claim.delivery.id, 2)
    await webhooks.delivered(again.delivery)
    assert await webhooks.backlog() == (None, 0)


@with_each_driver
async def test_a_claim_leaves_out_webhooks(store: Store) -> None:
    webhooks, later = store.webhooks, NOW + timedelta(minutes=1)
    await webhooks.set(webhook())
    await webhooks.set(webhook(2, app_id=2))
    await write(store, event(1), event(2, app_id=2))
    await order_all(store)
    claim = await webhooks.claim(
        later, later + timedelta(minutes=1), except_webhooks=[webhook().id]
    )
    assert claim is not None
    assert claim.webhook == webhook(2, app_id=2)
    both = [webhook().id, webhook(2).id]
    assert await webhooks.claim(later, later, except_webhooks=both) is None
    assert await webhooks.claim(later, later, except_apps=[1, 2]) is None
    again = await webhooks.claim(later, later, except_apps=[2])
    assert again is not None
    assert again.webhook == webhook()


@with_each_driver
async def test_a_claim_is_that_of_the_next_app(store: Store) -> None:
    webhooks, later = store.webhooks, NOW + timedelta(minutes=1)
    for app_id in (1, 2):
        await webhooks.set(webhook(app_id, app_id=app_id))
    await write(store, *(event(number, app_id=1 + number // 4) for number in range(5)))
    await order_all(store)
    claimed, last = [], 0
    for _ in range(4):
        claim = await webhooks.claim(later, later + timedelta(minutes=1), after_app=last)
        last = 0 if claim is None else claim.delivery.app_id
        claimed.append(None if claim is None else claim.delivery.event.id)
    assert claimed == [event(0).id, event(4).id, None, event(1).id]


@with_each_driver
async def test_a_dead_letter_is_listed_and_can_be_sent_again(store: Store) -> None:
    webhooks, later = store.webhooks, NOW + timedelta(minutes=1)
    await webhooks.set(webhook())
    await write(store, *(event(number) for number in range(3)))
    await order_all(store)
    for _ in range(3):
        claim = await webhooks.claim(later, later + timedelta(minutes=1))
        assert claim is not None
        await webhooks.failed(claim.delivery, error="e" * 9, due_at=None, now=later)
    assert await webhooks.backlog() == (None, 3)
    assert await webhooks.claim(later + timedelta(days=9), later) is None
    dead = await webhooks.dead_letters(1, limit=2)
    rest = await webhooks.dead_letters(1, after_id=dead[-1][0].id, limit=2)
    letters = [*dead, *rest]
    assert [each.id for each, _ in letters] == sorted(each.id for each, _ in letters)
    assert {each.event.id for each, _ in letters} == {event(number).id for number in range(3)}
    assert {(each.error, each.failed_at, to) for each, to in letters} == {
        ("e" * 9, later, webhook())
    }
    first = letters[0][0].id
    assert await webhooks.resend(2, first, later) == 0
    assert await webhooks.resend(1, "none", later) == 0
    assert await webhooks.resend(1, first, later) == 1
    assert await webhooks.resend(1, first, later) == 0
    again = await webhooks.claim(later, later + timedelta(minutes=1))
    assert again is not None
    assert (again.delivery.id, again.delivery.attempts) == (first, 1)
    await webhooks.failed(again.delivery, error="", due_at=later, now=later)
    assert await webhooks.remove_dead(later, 9) == 0
    assert await webhooks.resend(1, "", later) == 2
    await webhooks.remove(1, webhook().url)
    assert await webhooks.backlog() == (None, 0)


@with_each_driver
async def test_old_dead_letters_are_removed(store: Store) -> None:
    webhooks, later = store.webhooks, NOW + timedelta(minutes=1)
    await webhooks.set(webhook())
    await write(store, *(event(number) for number in range(5)))
    await order_all(store)
    for minutes in (0, 0, 0, 1):
        claim = await webhooks.claim(later, later + timedelta(hours=1))
        assert claim is not None
        failed_at = later + timedelta(minutes=minutes)
        await webhooks.failed(claim.delivery, error="e", due_at=None, now=failed_at)
    before = later + timedelta(seconds=1)
    assert [await webhooks.remove_dead(before, 2) for _ in range(3)] == [2, 1, 0]
    assert await webhooks.backlog() == (event(4).created_at, 1)


@with_each_driver
async def test_concurrent_requests_that_keep_the_secret_store_one_secret(store: Store) -> None:
    different = [replace(webhook(), id=f"{n:024x}", secret=f"whsec_{n}") for n in range(1, 9)]
    stored = await asyncio.gather(
        *(store.webhooks.set(each, keep_secret=True) for each in different)
    )
    assert {each.secret for each in stored} == {stored[0].secret}
    assert list(await store.webhooks.of_app(1)) == stored[:1]


# Any: the fault is that of a collection of either driver.
class Failing:
    """A collection, some of whose operations fail."""

    def __init__(self, collection: Any, **failing: Exception) -> None:
        self._collection = collection
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        if name not in self._failing:
            return getattr(self._collection, name)

        async def fail(*_: object, **__: object) -> None:
            raise self._failing[name]

        return fail


async def test_a_removal_that_fails_can_be_repeated(
    mongod_uri: str, migrated_database: str
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        webhooks = store.webhooks
        await webhooks.set(webhook())
        await write(store, event(1))
        await order_all(store)
        whole: Any = webhooks._deliveries
        failing: Any = Failing(whole, delete_many=StoreUnavailable("away"))
        webhooks._deliveries = failing
        with pytest.raises(StoreUnavailable):
            await webhooks.remove(1, webhook().url)
        webhooks._deliveries = whole
        await webhooks.remove(1, webhook().url)
        assert await webhooks.backlog() == (None, 0)
        assert await webhooks.of_app(1) == []


async def test_a_page_of_dead_letters_is_full_although_others_have_no_webhook(
    mongod_uri: str, migrated_database: str
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        webhooks, later = store.webhooks, NOW + timedelta(minutes=1)
        await webhooks.set(webhook())
        await webhooks.set(webhook(3))
        await write(store, *(event(number) for number in range(6)))
        await order_all(store)
        while claim := await webhooks.claim(later, later + timedelta(minutes=1)):
            await webhooks.failed(claim.delivery, error="e", due_at=None, now=later)
        await store._database["webhooks"].delete_one({"url": webhook(3).url})
        found: list[str] = []
        while page := await webhooks.dead_letters(1, after_id="".join(found[-1:]), limit=2):
            found += [letter.id for letter, _ in page]
            assert len(page) == 2
        assert len(set(found)) == len(found) == 6


async def test_events_that_another_process_has_just_ordered_are_no_error(
    mongod_uri: str, migrated_database: str
) -> None:
    class Stale(Failing):
        async def find_one(self, query: Any, *_: Any, **options: Any) -> Any:
            unordered = "unordered" in query
            return {"_id": 1} if unordered else await self._collection.find_one(query, **options)

    async with mongo(mongod_uri, migrated_database) as store:
        stale: Any = Stale(store.alert_events._events)
        store.alert_events._events = stale
        assert await store.alert_events.order(10) == 0


async def test_an_unconfirmed_write_is_no_success(mongod_uri: str, migrated_database: str) -> None:
    unconfirmed = BulkWriteError(
        {"writeErrors": [], "writeConcernErrors": [{"code": 64, "errmsg": "waiting timed out"}]}
    )
    async with mongo(mongod_uri, migrated_database) as store:
        await store.webhooks.set(webhook())
        await write(store, event(1))
        for owner, name, operation in (
            (store.webhooks, "_deliveries", "insert_many"),
            (store.alert_events, "_events", "bulk_write"),
        ):
            whole = getattr(owner, name)
            setattr(owner, name, Failing(whole, **{operation: unconfirmed}))
            with pytest.raises(StoreUnavailable):
                await store.alert_events.order(10)
            setattr(owner, name, whole)
        await order_all(store)
        assert [position for position, _ in await positions(store)] == [1]


NOT_UTF8 = "stored as bytes that are not UTF-8"
FAR = DatetimeMS(10**15)
MALFORMED: list[dict[str, Any]] = [
    {"colour": "red"},
    {"_id": "no object id"},
    {"app_id": "1"},
    {"user_id": Int64(2**40)},
    {"alert": None},
    {"sequence": "first"},
    {"created_at": "yesterday"},
    {"created_at": FAR},
    {"text": NOT_UTF8},
]


def plant(store: MongoStore, collection: str, *documents: dict[str, Any]) -> None:
    """Store documents that no release writes."""
    database = store._clients.writing[store._database.name]
    encoded = [bson.encode(each).replace(NOT_UTF8.encode(), b"\xff" * 34) for each in documents]
    database[collection].insert_many(map(RawBSONDocument, encoded), bypass_document_validation=True)


async def test_events_of_another_form_do_not_stop_the_order(
    mongod_uri: str, migrated_database: str
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        await store.webhooks.set(webhook())
        bad = [event_bson(event(number)) | each for number, each in enumerate(MALFORMED, 20)]
        plant(store, "alert_events", *bad)
        await write(store, event(1), event(90))
        with capture_logs() as logged:
            for _ in range(3):
                await order_all(store, 2)
        assert await positions(store) == [(1, event(1)), (2, event(90))]
        errors = [line for line in logged if line["log_level"] == "error"]
        assert len(errors) == len(MALFORMED), errors
        later = NOW + timedelta(minutes=1)
        for number in (1, 90):
            claim = await store.webhooks.claim(later, later + timedelta(minutes=1))
            assert claim is not None
            assert claim.delivery.event == event(number)


async def test_an_event_that_was_corrected_is_ordered_an_hour_later(
    mongod_uri: str, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        plant(store, "alert_events", event_bson(event(1)) | {"colour": "red"})
        await order_all(store)
        await store._database["alert_events"].update_one({}, {"$unset": {"colour": ""}})
        await order_all(store)
        assert await positions(store) == []
        hour_later = monotonic() + 3600
        monkeypatch.setattr("credit_server.store.set_aside.monotonic", lambda: hour_later)
        await order_all(store)
        assert await positions(store) == [(1, event(1))]


async def test_an_event_that_only_the_validator_rejects_does_not_stop_the_order(
    mongod_uri: str, migrated_database: str
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        await write(store, *(event(number) for number in range(4)))
        validator = {"_id": {"$ne": ObjectId(event(1).id)}}
        await store._database.command("collMod", "alert_events", validator=validator)
        await order_all(store)
        await order_all(store)
        assert await positions(store) == [(1, event(0)), (2, event(2)), (3, event(3))]


async def test_a_position_of_another_form_does_not_stop_the_order(
    mongod_uri: str, migrated_database: str
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        await write(store, event(1))
        await order_all(store)
        for number, position in enumerate(("last", float("nan"), 1e300, True, {"n": 1})):
            bad = event_bson(event(50 + number)) | {"position": position}
            del bad["unordered"]
            plant(store, "alert_events", bad)
        await write(store, event(2))
        await order_all(store)
        assert await store.alert_events.newest() == 2


async def test_events_without_a_valid_time_are_removed_with_those_before_them(
    mongod_uri: str, migrated_database: str
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        await write(store, *(event(number) for number in range(1, 10)))
        await order_all(store)
        bad: list[dict[str, Any]] = [
            {"created_at": FAR},
            {"created_at": "yesterday"},
            {"created_at": None, "app_id": "1"},
            {"app_id": {"id": 1}},
            {"app_id": True},
        ]
        for position, changed in enumerate(bad, 1):
            await store._database["alert_events"].update_one(
                {"position": position}, {"$set": changed}, bypass_document_validation=True
            )
        assert list(await store.alert_events.since(3, 9)) == [(each, 1) for each in (6, 7, 8, 9)]
        before = event(7).created_at
        assert [await store.alert_events.remove_before(before, 2) for _ in range(4)] == [2, 2, 2, 0]
        assert await positions(store) == [(each, event(each)) for each in (7, 8, 9)]
        with pytest.raises(EventsRemoved) as rejected:
            await store.alert_events.page(1, after_position=5, limit=9)
        assert rejected.value.position == 6


@pytest.mark.parametrize(
    "bad",
    [
        {"position": "9"},
        {"position": Int64(-1)},
        {"position": None},
        {"position": Int64(1), "colour": "red"},
        {"_id": 1.0, "position": Int64(1)},
    ],
)
async def test_a_record_of_removed_events_of_another_form_does_not_stop_the_removal(
    mongod_uri: str, migrated_database: str, bad: dict[str, Any]
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        await write(store, event(1), event(2, app_id=2), event(3, app_id=2), event(4))
        await order_all(store)
        plant(store, "removed_events", {"_id": Int64(1), **bad})
        remove, page = store.alert_events.remove_before, store.alert_events.page
        assert [await remove(event(4).created_at, 9) for _ in range(2)] == [3, 0]
        assert await positions(store) == [(4, event(4))]
        with pytest.raises(EventsRemoved):
            await page(2, after_position=1, limit=9)
        if "_id" in bad:
            with pytest.raises(Unreadable):
                await page(1, after_position=4, limit=9)
        else:
            assert (await page(1, after_position=1, limit=9)).events
            await remove(NOW + timedelta(days=99), 9)


async def test_a_delivery_or_webhook_of_another_form_does_not_stop_other_apps(
    mongod_uri: str, migrated_database: str
) -> None:
    async with mongo(mongod_uri, migrated_database) as store:
        webhooks, later = store.webhooks, NOW + timedelta(minutes=1)
        for app_id in (1, 2):
            await webhooks.set(webhook(app_id, app_id=app_id))
        bad = WebhookDocument.from_webhook(webhook(3)).to_bson() | {"secret": Int64(7)}
        plant(store, "webhooks", bad)
        sound = DeliveryDocument.from_delivery(new_delivery(event(5), webhook())).to_bson()
        changes: list[dict[str, Any]] = [
            {"colour": "red"},
            {"attempts": "none"},
            {"attempts": None},
            {"created_at": FAR},
            {"webhook_id": bad["_id"]},
            {"event": {}},
            {"error": Int64(7)},
        ]
        planted = [sound | {"_id": ObjectId()} | each for each in changes]
        plant(store, "webhook_deliveries", *planted)
        await write(store, event(1, app_id=2), event(2, app_id=1))
        await order_all(store)
        with capture_logs() as logged:
            claims = [await webhooks.claim(later, later + timedelta(minutes=1)) for _ in range(3)]
        claimed = [None if each is None else each.delivery.event for each in claims]
        assert claimed == [event(2, app_id=1), event(1, app_id=2), None]
        assert len([line for line in logged if line["log_level"] == "error"]) == len(changes)
        await webhooks.backlog()


def test_a_delivery_is_the_same_for_the_same_event_and_webhook() -> None:
    delivery = new_delivery(event(1), webhook())
    assert delivery == new_delivery(event(1), webhook())
    assert delivery.id != new_delivery(event(1), webhook(2)).id
    assert DeliveryDocument.from_delivery(delivery).to_delivery() == delivery
    assert webhook().secret not in repr(WebhookDocument.from_webhook(webhook()))
