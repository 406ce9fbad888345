"""Queries of transactions, with the fake and with a real server alike."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_client import (
    IdempotencyKeyNotFound,
    InvalidField,
    PageTokenInvalid,
    SummaryGroup,
    TransactionNotFound,
    TransactionQuery,
    TransactionType,
)
from credit_client.testing import FakeCreditService, fake_credits
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from pymongo import AsyncMongoClient

from tests.client.worlds import World, fake_world, server_world

DATABASE = "test_history"
REPORT: dict[str, Any] = {"report_id": "r-1", "report_name": "Answer"}


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """Run a server on an empty database, for the tests of this module."""
    options = await migrated(mongod_uri, DATABASE)
    folder = tmp_path_factory.mktemp("server")
    async with running_server(folder, "--log-level", "warning", *PATIENT, *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(DATABASE)


@pytest.fixture(params=["fake", "server"])
async def world(
    request: pytest.FixtureRequest, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    if request.param == "fake":
        async with fake_world("call", monkeypatch) as opened:
            yield opened
        return
    async with server_world(f"127.0.0.1:{server.port}") as opened:
        yield opened


# Any, here and below: the arguments of a call have no common type.
def _who(world: World) -> dict[str, Any]:
    return {"user_id": world.user, "app_id": world.app, "created_by": 1}


async def _sequences(query: TransactionQuery) -> list[int]:
    return [each.sequence async for each in query]


async def _history(world: World, number: int = 5) -> None:
    """Add credits, and use them so often less one."""
    await world.credits.add(**_who(world), credits=100)
    for credits_ in range(1, number):
        await world.credits.use(**_who(world), **REPORT, credits=credits_)


async def test_all_pages_are_read_newest_first(world: World) -> None:
    await _history(world)
    query = world.credits.query_transactions(user_id=world.user, page_size=2)
    assert await _sequences(query) == [5, 4, 3, 2, 1]
    # Each loop begins at the first page.
    assert [len(page.transactions) async for page in query.pages()] == [2, 2, 1]


async def test_a_row_is_that_of_a_list(world: World) -> None:
    await _history(world)
    query = world.credits.query_transactions(user_id=world.user, oldest_first=True)
    listed = [each async for each in world.credits.transactions(user_id=world.user)]
    assert [each async for each in query] == listed


async def test_a_page_is_read_by_its_token(world: World) -> None:
    await _history(world)
    query = world.credits.query_transactions(user_id=world.user, page_size=3)
    first = await query.page()
    await world.credits.add(**_who(world), credits=1)
    second = await query.page(first.next_page_token)
    assert [each.sequence for each in second.transactions] == [2, 1]
    assert second.next_page_token == ""
    other = world.credits.query_transactions(user_id=world.user, oldest_first=True)
    with pytest.raises(PageTokenInvalid):
        await other.page(first.next_page_token)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"types": [TransactionType.ADD]}, [1]),
        ({"types": (TransactionType.ADD, TransactionType.USE), "credits_max": 2}, [3, 2]),
        ({"credits_min": 3}, [5, 4, 1]),
        ({"after_sequence": 1, "before_sequence": 4}, [3, 2]),
        ({"report_id": "r-1", "oldest_first": True}, [2, 3, 4, 5]),
        ({"report_id": "r-2"}, []),
        ({"created_by": 2}, []),
        ({"metadata": {"order": "42"}}, []),
        ({"created_from": datetime(2000, 1, 1, tzinfo=UTC), "credits_max": 1}, [2]),
        ({"created_until": datetime(2000, 1, 1, tzinfo=UTC)}, []),
        ({"grant_id": "0" * 24}, []),
        ({"related_id": "0" * 24}, []),
    ],
    ids=str,
)
async def test_conditions_are_applied(
    world: World, conditions: dict[str, Any], expected: list[int]
) -> None:
    await _history(world)
    found = world.credits.query_transactions(user_id=world.user, app_id=world.app, **conditions)
    assert await _sequences(found) == expected


async def test_what_happened_to_a_hold_is_found(world: World) -> None:
    await _history(world, 1)
    hold = await world.credits.place_hold(**_who(world), credits=10)
    await world.credits.release_hold(**_who(world), hold_id=hold.transaction_id)
    query = world.credits.query_transactions(user_id=world.user, related_id=hold.transaction_id)
    assert [each.type async for each in query] == [TransactionType.RELEASE]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [5, 4, 3, 2]),
        ({"oldest_first": True, "page_size": 3}, [2, 3, 4, 5]),
        ({"credits_min": 2, "credits_max": 3}, [4, 3]),
        ({"report_id": "r-1", "before_sequence": 4}, [3, 2]),
        ({"report_id": "r-2"}, []),
        ({"refunded": True}, [5]),
        ({"refunded": False, "created_by": 1, "after_sequence": 2}, [4, 3]),
        ({"created_until": datetime(2000, 1, 1, tzinfo=UTC)}, []),
    ],
    ids=str,
)
async def test_purchases_are_found(
    world: World, conditions: dict[str, Any], expected: list[int]
) -> None:
    await _history(world)
    latest = await world.credits.query_transactions(user_id=world.user, page_size=1).page()
    await world.credits.refund(latest.transactions[0], created_by=1, credits=1)
    query = world.credits.query_purchases(user_id=world.user, app_id=world.app, **conditions)
    assert [each.sequence async for each in query] == expected
    refunded = {each.sequence: each.refunded_credits async for each in query}
    assert refunded.get(5, 1) == 1


async def test_a_page_of_purchases_is_read_by_its_token(world: World) -> None:
    await _history(world)
    query = world.credits.query_purchases(user_id=world.user, page_size=3)
    first = await query.page()
    second = await query.page(first.next_page_token)
    assert [len(first.purchases), len(second.purchases), second.next_page_token] == [3, 1, ""]
    with pytest.raises(PageTokenInvalid):
        await world.credits.query_purchases(app_id=world.app).page(first.next_page_token)


async def test_a_page_of_an_app_is_complete_until_a_time(world: World) -> None:
    """The fake has no transactions that can appear later, so its pages have the latest ones too."""
    await _history(world, 2)
    page = await world.credits.query_transactions(app_id=world.app).page()
    bought = await world.credits.query_purchases(app_id=world.app).page()
    assert page.complete_until is not None
    assert timedelta(0) <= world.now() + timedelta(seconds=1) - page.complete_until
    assert all(
        each.created_at is not None and each.created_at < page.complete_until
        for each in page.transactions
    )
    assert (page.next_page_token, bought.complete_until is None) == ("", False)


@pytest.mark.parametrize("changed", [{"app_id": None}, {"after_sequence": 1}], ids=str)
async def test_a_query_of_all_users_needs_an_app_alone(
    world: World, changed: dict[str, Any]
) -> None:
    arguments = {"app_id": world.app} | changed
    for query in (world.credits.query_transactions, world.credits.query_purchases):
        with pytest.raises(InvalidField) as caught:
            await query(**arguments).page()
        assert [each.field for each in caught.value.violations] == [*changed]


async def test_the_fake_orders_the_transactions_of_all_users_by_time() -> None:
    service = FakeCreditService()
    async with fake_credits(service) as credits_:
        for user_id, app_id in ((7, 1), (8, 1), (7, 2), (7, 1)):
            await credits_.add(user_id=user_id, app_id=app_id, credits=5, created_by=1)
            service.clock.advance(timedelta(seconds=1))
            await credits_.use(user_id=user_id, app_id=app_id, **REPORT, credits=1, created_by=1)
            service.clock.advance(timedelta(seconds=1))
        query = credits_.query_transactions(app_id=1, page_size=2, oldest_first=True)
        found = [(each.user_id, each.sequence) async for each in query]
        assert found == [(7, 1), (7, 2), (8, 1), (8, 2), (7, 5), (7, 6)]
        bought = [each.user_id async for each in credits_.query_purchases(app_id=1, page_size=1)]
        assert bought == [7, 8, 7]


@pytest.mark.parametrize("oldest_first", [False, True])
async def test_later_pages_of_the_fake_have_a_limit_only_with_the_oldest_first(
    oldest_first: bool,
) -> None:
    async with fake_credits() as credits_:
        for _ in range(3):
            await credits_.add(user_id=7, app_id=1, credits=5, created_by=1)
        query = credits_.query_transactions(app_id=1, page_size=1, oldest_first=oldest_first)
        limits = [page.complete_until async for page in query.pages()]
        assert [each is None for each in limits] == [False, not oldest_first, not oldest_first]


@pytest.mark.parametrize(
    ("conditions", "field"),
    [({"app_id": 0}, "app_id"), ({"types": [TransactionType.UNSPECIFIED]}, "types")],
)
async def test_a_broken_condition_is_named(
    world: World, conditions: dict[str, Any], field: str
) -> None:
    query = world.credits.query_transactions(user_id=world.user, **conditions)
    with pytest.raises(InvalidField) as caught:
        await query.page()
    assert [each.field for each in caught.value.violations] == [field]


@pytest.mark.parametrize("types", ["use", ["use"], [1], None])
async def test_a_wrong_type_of_types_is_a_type_error(world: World, types: Any) -> None:
    with pytest.raises(TypeError, match="types"):
        await world.credits.query_transactions(user_id=world.user, types=types).page()


async def test_an_earlier_balance_is_returned(world: World) -> None:
    before = world.now() - timedelta(seconds=2)
    await _history(world)
    of: dict[str, Any] = {"user_id": world.user, "app_id": world.app}
    by_sequence = [await world.credits.balance_at(**of, sequence=number) for number in range(6)]
    assert [(each.balance, each.sequence) for each in by_sequence] == [
        *((0, 0), (100, 1), (99, 2)),
        *((97, 3), (94, 4), (90, 5)),
    ]
    earlier = await world.credits.balance_at(**of, at=before)
    assert (earlier.balance, earlier.sequence, earlier.as_of) == (0, 0, before)
    later = await world.credits.balance_at(**of, at=world.now() + timedelta(days=1))
    assert (later.balance, later.sequence) == (90, 5)
    assert later.as_of is not None
    assert later.as_of < world.now() + timedelta(minutes=1)


@pytest.mark.parametrize("names", [{}, {"at": datetime(2026, 1, 1, tzinfo=UTC), "sequence": 1}])
async def test_an_earlier_balance_needs_a_time_or_a_sequence(
    world: World, names: dict[str, Any]
) -> None:
    with pytest.raises(InvalidField) as caught:
        await world.credits.balance_at(user_id=world.user, app_id=world.app, **names)
    assert [each.field for each in caught.value.violations] == ["at"]


async def test_the_end_of_a_grant_counts_from_its_instant_in_the_fake() -> None:
    service = FakeCreditService()
    async with fake_credits(service) as credits_:
        of: dict[str, Any] = {"user_id": 7, "app_id": 1}
        ends_at = service.clock.now() + timedelta(seconds=30)
        await credits_.grant(**of, credits=20, created_by=1, expires_at=ends_at)
        service.clock.advance(timedelta(minutes=1))
        before = await credits_.balance_at(**of, at=ends_at - timedelta(milliseconds=1))
        after = await credits_.balance_at(**of, at=ends_at)
        assert (before.balance, after.balance) == (20, 0)


@pytest.mark.parametrize(
    ("group_by", "names"),
    [
        (SummaryGroup.UNSPECIFIED, [""]),
        (SummaryGroup.TYPE, [TransactionType.ADD, TransactionType.USE]),
        (SummaryGroup.REPORT, ["", "r-1"]),
    ],
)
async def test_transactions_are_added_up(
    world: World, group_by: SummaryGroup, names: list[object]
) -> None:
    await _history(world)
    found = await world.credits.summarize(
        user_id=world.user,
        app_id=world.app,
        created_from=world.now() - timedelta(days=1),
        created_until=world.now() + timedelta(days=1),
        group_by=group_by,
    )
    if group_by is SummaryGroup.TYPE:
        assert [each.type for each in found.summaries] == names
    else:
        assert [each.report_id for each in found.summaries] == names
    sums = [
        (each.transactions, each.credits_in, each.credits_out, each.spent)
        for each in found.summaries
    ]
    assert sums == ([(5, 100, 10, 10)] if len(names) == 1 else [(1, 100, 0, 0), (4, 0, 10, 10)])


@pytest.mark.parametrize("group_by", [SummaryGroup.DAY, SummaryGroup.MONTH, SummaryGroup.APP])
async def test_groups_of_time_and_app_are_named(world: World, group_by: SummaryGroup) -> None:
    before = world.now()
    await _history(world)
    span: dict[str, Any] = {
        "created_from": before - timedelta(days=1),
        "created_until": before + timedelta(days=1),
    }
    found = await world.credits.summarize(user_id=world.user, group_by=group_by, **span)
    assert sum(each.transactions for each in found.summaries) == 5
    for each in found.summaries:
        if group_by is SummaryGroup.APP:
            assert each.app_id == world.app
        else:
            assert each.starts_at is not None
            assert each.starts_at <= world.now() < each.starts_at + timedelta(days=33)
            assert each.starts_at.hour == 0
    of_app = await world.credits.summarize(app_id=world.app, **span)
    assert of_app.complete_until is not None


async def test_a_summary_needs_an_app_or_a_user(world: World) -> None:
    with pytest.raises(InvalidField) as caught:
        await world.credits.summarize(
            created_from=world.now(), created_until=world.now() + timedelta(days=1)
        )
    assert [each.field for each in caught.value.violations] == ["app_id"]


async def test_a_write_is_found_by_its_id_and_its_key(world: World) -> None:
    receipt = await world.credits.add(**_who(world), credits=5, idempotency_key="order-1")
    by_id = await world.credits.transaction(transaction_id=receipt.transaction_id)
    by_key = await world.credits.transaction(
        user_id=world.user, app_id=world.app, idempotency_key="order-1"
    )
    assert by_id == by_key
    assert (by_id.id, by_id.credits) == (receipt.transaction_id, 5)
    assert by_id.created_at is not None
    assert abs(by_id.created_at - datetime.now(UTC)) < timedelta(days=1)


async def test_what_is_not_there_is_not_found(world: World) -> None:
    with pytest.raises(TransactionNotFound) as unknown:
        await world.credits.transaction(transaction_id="0" * 24)
    assert unknown.value.transaction_id == "0" * 24
    with pytest.raises(IdempotencyKeyNotFound) as unused:
        await world.credits.transaction(
            user_id=world.user, app_id=world.app, idempotency_key="order-2"
        )
    assert unused.value.key == "order-2"


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        ({}, ["transaction_id"]),
        ({"user_id": 7}, ["app_id", "idempotency_key"]),
        ({"transaction_id": "t", "app_id": 1}, ["app_id"]),
    ],
)
async def test_it_takes_either_an_id_or_a_whole_key(
    world: World, names: dict[str, Any], fields: list[str]
) -> None:
    with pytest.raises(InvalidField) as caught:
        await world.credits.transaction(**names)
    assert [each.field for each in caught.value.violations] == fields
