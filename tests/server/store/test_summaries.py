"""Test sums of transactions, on both stores."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_models.ledger import NO_DETAILS, Details, Kind, Transaction
from credit_server.store import history, memory_queries, summaries
from credit_server.store.history import GroupBy, HistoryQuery, SummaryRow
from credit_server.store.port import Changes, Store

START = datetime(2026, 1, 31, tzinfo=UTC)
MONTHS = (START - timedelta(days=30), START + timedelta(days=30))

# The history of user 7: the hour, the app, the kind, the credits, the report, the signed effect.
WRITTEN: list[tuple[int, int, Kind, int, str, int | None]] = [
    (1, 1, Kind.ADD, 100, "", None),
    (2, 1, Kind.USE, 30, "r-1", None),
    (3, 2, Kind.GRANT, 50, "", None),
    (4, 1, Kind.REFUND, 10, "", None),
    (20, 1, Kind.USE, 5, "r-2", None),
    (30, 2, Kind.EXPIRE, 20, "", None),
    (31, 1, Kind.ADJUST, 8, "", -8),
    (32, 1, Kind.SCHEDULE, 70, "", None),
]


def entry(number: int) -> Transaction:
    hour, app_id, kind, credits_, report_id, delta = WRITTEN[number]
    return Transaction(
        id=f"{number + 1:024x}",
        user_id=7,
        app_id=app_id,
        kind=kind,
        credits=credits_,
        balance_after=1,
        sequence=number + 1,
        created_at=START + timedelta(hours=hour),
        created_by=1,
        key="",
        purchase_id=f"{number:024x}" if report_id else "",
        report_id=report_id,
        report_name="Report" if report_id else "",
        details=NO_DETAILS if delta is None else Details(delta=delta),
    )


@pytest.fixture
async def store(store: Store) -> Store:
    entries = [entry(number) for number in range(len(WRITTEN))]
    changes = Changes(accounts=[], transactions=entries, purchases=[], totals={}, counter_shard=0)
    async with store.writer().begin() as transaction:
        await transaction.write(changes)
        await transaction.commit()
    return store


# Any: the attributes of a query have many types.
def query(**changed: Any) -> HistoryQuery:
    values: dict[str, Any] = {
        "user_id": 7,
        "created_from": MONTHS[0],
        "created_until": MONTHS[1],
        "limit": 10,
    }
    return HistoryQuery(**values | changed)


def row(group: str | int, *numbers: int) -> SummaryRow:
    return SummaryRow(group, *numbers)


# The number of entries; credits in and out; spent, expired and refunded credits.
GROUPS: dict[GroupBy, list[SummaryRow]] = {
    GroupBy.NOTHING: [row("", 8, 160, 63, 35, 20, 10)],
    GroupBy.DAY: [
        row("2026-01-31", 5, 160, 35, 35, 0, 10),
        row("2026-02-01", 3, 0, 28, 0, 20, 0),
    ],
    GroupBy.MONTH: [row("2026-01", 5, 160, 35, 35, 0, 10), row("2026-02", 3, 0, 28, 0, 20, 0)],
    GroupBy.KIND: [
        row("add", 1, 100, 0, 0, 0, 0),
        row("adjust", 1, 0, 8, 0, 0, 0),
        row("expire", 1, 0, 20, 0, 20, 0),
        row("grant", 1, 50, 0, 0, 0, 0),
        row("refund", 1, 10, 0, 0, 0, 10),
        row("schedule", 1, 0, 0, 0, 0, 0),
        row("use", 2, 0, 35, 35, 0, 0),
    ],
    GroupBy.REPORT: [
        row("", 6, 160, 28, 0, 20, 10),
        row("r-1", 1, 0, 30, 30, 0, 0),
        row("r-2", 1, 0, 5, 5, 0, 0),
    ],
    GroupBy.APP: [row(1, 6, 110, 43, 35, 0, 10), row(2, 2, 50, 20, 0, 20, 0)],
}


async def test_the_entries_of_a_user_are_added_up_by_groups(store: Store) -> None:
    for group_by, expected in GROUPS.items():
        found = await store.summarize(query(), group_by)
        assert (found.rows, found.complete_until) == (expected, None), group_by


async def test_only_the_span_and_the_apps_count(store: Store) -> None:
    span = {"created_from": START + timedelta(hours=2), "created_until": START + timedelta(hours=4)}
    found = await store.summarize(query(**span), GroupBy.APP)
    assert found.rows == [row(1, 1, 0, 30, 30, 0, 0), row(2, 1, 50, 0, 0, 0, 0)]
    some = await store.summarize(query(apps=frozenset({2, 3})), GroupBy.NOTHING)
    assert some.rows == [row("", 2, 50, 20, 0, 20, 0)]
    assert (await store.summarize(query(user_id=8), GroupBy.DAY)).rows == []


async def test_all_users_of_an_app_are_added_up(store: Store) -> None:
    app = query(user_id=None, apps=frozenset({1}), settling_seconds=90.0)
    found = await store.summarize(app, GroupBy.NOTHING)
    assert found.rows == [row("", 6, 110, 43, 35, 0, 10)]
    assert found.complete_until is not None


async def test_what_is_not_settled_is_left_out(store: Store) -> None:
    # So long that the settled time is before the first entry.
    app = query(user_id=None, apps=frozenset({1}), settling_seconds=20 * 365 * 86_400.0)
    assert (await store.summarize(app, GroupBy.NOTHING)).rows == []


async def test_groups_and_entries_have_a_limit_that_shows_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len((await store.summarize(query(limit=2), GroupBy.KIND)).rows) == 3
    for module in (history, memory_queries, summaries):
        monkeypatch.setattr(module, "SUMMARIZED_MAX", 3)
    (summed,) = (await store.summarize(query(), GroupBy.NOTHING)).rows
    assert summed.entries == 4
