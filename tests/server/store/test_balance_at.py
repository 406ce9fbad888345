"""Test the balance of a user in an app at some point of the history, on both stores."""

from datetime import UTC, datetime, timedelta

import pytest
from credit_models.ledger import NO_DETAILS, Details, Kind, Transaction
from credit_server.store.history import BalanceAt
from credit_server.store.port import Changes, Store

START = datetime(2026, 1, 2, tzinfo=UTC)

# The user's history: the app, the kind, the second of creation, and that of the effect.
WRITTEN = [
    (1, Kind.ADD, 10, None),
    (2, Kind.ADD, 20, None),
    (1, Kind.ADD, 30, None),
    # Two grants and a hold end, and are written later, together.
    (1, Kind.EXPIRE, 60, 40),
    (1, Kind.RELEASE, 60, 45),
    (1, Kind.EXPIRE, 60, 60),
    (2, Kind.ADD, 70, None),
    # A grant that starts later has no effect yet.
    (1, Kind.SCHEDULE, 80, 500),
]


def second(number: float) -> datetime:
    return START + timedelta(seconds=number)


def entry(sequence: int, app_id: int, kind: Kind, created: int, took: int | None) -> Transaction:
    return Transaction(
        id=f"{sequence:024x}",
        user_id=7,
        app_id=app_id,
        kind=kind,
        credits=1,
        balance_after=100 + sequence,
        sequence=sequence,
        created_at=second(created),
        created_by=1,
        key="",
        details=NO_DETAILS if took is None else Details(effective_at=second(took)),
    )


HISTORY = [entry(1 + index, *values) for index, values in enumerate(WRITTEN)]
END = 1 + len(HISTORY)


@pytest.fixture
async def store(store: Store) -> Store:
    changes = Changes(accounts=[], transactions=HISTORY, purchases=[], totals={}, counter_shard=0)
    async with store.writer().begin() as transaction:
        await transaction.write(changes)
        await transaction.commit()
    return store


async def test_the_balance_at_a_time_counts_what_took_effect_until_then(store: Store) -> None:
    expected = {
        5: 0,
        10: 1,
        29.999: 1,
        30: 3,
        39.9999: 3,
        40: 4,
        45: 5,
        59.999: 5,
        60: 6,
        79: 6,
        80: 8,
        600: 8,
    }
    for at, sequence in expected.items():
        found = await store.balance_at(7, 1, end=END, at=second(at))
        balance = 100 + sequence if sequence else 0
        assert found == BalanceAt(sequence, balance, is_latest=sequence == 8), at


async def test_the_balance_at_a_sequence_is_that_of_the_last_entry_in_the_app(
    store: Store,
) -> None:
    for end, sequence in {1: 0, 2: 1, 3: 1, 4: 3, 8: 6, END: 8}.items():
        found = await store.balance_at(7, 1, end=end)
        assert found == BalanceAt(sequence, 100 + sequence if sequence else 0, is_latest=True)


async def test_an_app_without_entries_has_no_balance(store: Store) -> None:
    assert await store.balance_at(7, 3, end=END, at=second(600)) == BalanceAt(0, 0, True)
    assert await store.balance_at(8, 1, end=1, at=second(600)) == BalanceAt(0, 0, True)


async def test_many_entries_may_take_effect_before_they_are_written(store: Store) -> None:
    late = [entry(END + index, 1, Kind.EXPIRE, 900, 200 + index) for index in range(150)]
    changes = Changes(accounts=[], transactions=late, purchases=[], totals={}, counter_shard=0)
    async with store.writer().begin() as transaction:
        await transaction.write(changes)
        await transaction.commit()
    found = await store.balance_at(7, 1, end=END + 150, at=second(300))
    assert found == BalanceAt(END + 100, 100 + END + 100, is_latest=False)
