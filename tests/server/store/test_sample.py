"""Test that a sample is bounded: data over a limit are left out, and the sample states it."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from credit_models.ledger import Add
from credit_server.commit import Committer
from credit_server.store.driver import Client
from credit_server.store.mongo import MongoStore
from credit_server.store.report import connected
from credit_server.store.sample import SampleLimits, sample_ledger

LIMITS = SampleLimits(
    accounts_max=10,
    history_max=10,
    counted_max=10,
    apps_max=10,
    summed_max=10,
    sums_seconds=10.0,
)


@pytest.fixture
async def client(mongod_uri: str, migrated_database: str) -> AsyncIterator[Client]:
    """Provide a ledger of two users with three transactions each, in apps 1 to 3."""
    store = MongoStore(mongod_uri, database=migrated_database)
    async with Committer(store) as committer:
        for user_id in (7, 8):
            for app_id in (1, 2, 3):
                await committer.submit(
                    Add(
                        user_id=user_id,
                        app_id=app_id,
                        credits=5,
                        created_by=1,
                        key="",
                        transaction_id=store.new_id(),
                    )
                )
    await store.close()
    async with connected(mongod_uri, timeout_seconds=30) as client:
        yield client


async def test_a_small_ledger_is_read_completely(client: Client, migrated_database: str) -> None:
    sample = await sample_ledger(client, database=migrated_database, limits=LIMITS)
    assert {account.user_id for account in sample.accounts} == {7, 8}
    assert [(one.first_sequence, one.transactions) for one in sample.accounts] == [(1, 3)] * 2
    assert {(app.app_id, app.total, app.held) for app in sample.apps} == {
        (1, 10, 10),
        (2, 10, 10),
        (3, 10, 10),
    }
    assert not sample.apps_unread


async def test_a_long_history_is_counted_and_its_end_is_read(
    client: Client, migrated_database: str
) -> None:
    limits = replace(LIMITS, history_max=2, accounts_max=1, apps_max=1)
    sample = await sample_ledger(client, database=migrated_database, limits=limits)
    (account,) = sample.accounts
    assert [entry.sequence for entry in account.latest] == [3, 2]
    assert (account.first_sequence, account.transactions) == (1, 3)
    assert [app.app_id for app in sample.apps] == [3]


async def test_a_history_that_is_too_long_is_not_counted(
    client: Client, migrated_database: str
) -> None:
    limits = replace(LIMITS, history_max=2, counted_max=2)
    sample = await sample_ledger(client, database=migrated_database, limits=limits)
    assert [(one.first_sequence, one.transactions) for one in sample.accounts] == [(1, None)] * 2


async def test_apps_are_not_summed_over_too_many_accounts(
    client: Client, migrated_database: str
) -> None:
    limits = replace(LIMITS, summed_max=1)
    sample = await sample_ledger(client, database=migrated_database, limits=limits)
    assert not sample.apps
    assert sample.apps_unread == "there are more than 1 accounts"


async def test_sums_that_take_too_long_are_left_out(client: Client, migrated_database: str) -> None:
    failpoint = {"configureFailPoint": "maxTimeAlwaysTimeOut"}
    await client.admin.command({**failpoint, "mode": "alwaysOn"})
    try:
        sample = await sample_ledger(client, database=migrated_database, limits=LIMITS)
    finally:
        await client.admin.command({**failpoint, "mode": "off"})
    assert len(sample.accounts) == 2
    assert sample.apps_unread == "they take more than 10 s"
