"""Entries that are dated after MongoDB's time are found, whoever has written them."""

import time
from collections.abc import Callable

import pytest
from bson.objectid import ObjectId
from credit_server.commit import Clock, Committer
from credit_server.doctor.dates import check_dates
from credit_server.doctor.finding import Verdict
from credit_server.ledger import Add
from credit_server.store.future import FutureEntries, FutureEntry, future_entries
from credit_server.store.inspection import connected
from credit_server.store.mongo import MongoStore
from credit_testing.server import migrated

from tests.server.clocks import LIMIT_SECONDS

HOUR = 3600.0


def _future(*ahead: float, whole: bool = True) -> FutureEntries:
    return FutureEntries(
        entries=tuple(
            FutureEntry(user_id=7, sequence=number, ahead_seconds=seconds)
            for number, seconds in enumerate(ahead, start=1)
        ),
        whole=whole,
    )


def test_a_history_of_the_past_is_ok() -> None:
    finding = check_dates(FutureEntries())
    assert (finding.verdict, finding.remedy) == (Verdict.OK, "")
    assert "not searched" not in finding.found
    assert "not searched" in check_dates(FutureEntries(whole=False)).found


def test_entries_of_the_future_are_named_with_what_to_do() -> None:
    finding = check_dates(_future(10.0, 3600.0))
    assert finding.verdict is Verdict.WARNING
    assert finding.found.startswith("user 7, sequence 2: dated 3600.0 s after MongoDB's time; user")
    assert "NTP" in finding.remedy


def test_of_many_entries_of_the_future_the_farthest_are_named() -> None:
    finding = check_dates(_future(*range(1, 11), whole=False))
    assert finding.found.count("user 7") == 3
    assert "dated 10.0 s" in finding.found
    assert "; and 7 more; older entries were not searched" in finding.found


async def _found(
    uri: str, database: str, clock: Clock, new_id: Callable[[MongoStore], str]
) -> FutureEntries:
    await migrated(uri, database)
    store = MongoStore(uri, database=database)
    async with Committer(store) as sound, Committer(store, clock=clock) as wrong:
        for committer in (sound, wrong, sound):
            command = Add(
                user_id=7,
                app_id=1,
                credits=5,
                created_by=1,
                key="",
                transaction_id=new_id(store),
            )
            await committer.submit(command)
    store.close()
    async with connected(uri, timeout_seconds=30) as client:
        return await future_entries(
            client, database=database, tolerance_seconds=LIMIT_SECONDS, search_seconds=30
        )


async def test_an_entry_of_a_server_whose_clock_is_ahead_is_found(
    mongod_uri: str, database: str
) -> None:
    ahead = Clock(wall=lambda: time.time() + HOUR)  # compared with no store
    found = await _found(mongod_uri, database, ahead, MongoStore.new_id)
    assert [(entry.user_id, entry.sequence) for entry in found.entries] == [(7, 2)]
    assert HOUR - 60 < found.entries[0].ahead_seconds <= HOUR
    assert found.whole


async def test_entries_of_sound_servers_are_not_dated_in_the_future(
    mongod_uri: str, database: str
) -> None:
    found = await _found(mongod_uri, database, Clock(), MongoStore.new_id)
    assert found == FutureEntries()


@pytest.mark.parametrize("made_ahead", [True, False], ids=["id made ahead", "id of now"])
async def test_a_search_that_takes_too_long_still_finds_by_the_ids(
    mongod_uri: str, database: str, *, made_ahead: bool
) -> None:
    def new_id(store: MongoStore) -> str:
        if not made_ahead:
            return store.new_id()
        now = int(time.time() + HOUR)
        return f"{now:08x}{str(ObjectId())[8:]}"

    ahead = Clock(wall=lambda: time.time() + HOUR)
    await migrated(mongod_uri, database)
    async with connected(mongod_uri, timeout_seconds=30) as client:
        failpoint = {"configureFailPoint": "maxTimeAlwaysTimeOut"}
        await _found(mongod_uri, database, ahead, new_id)
        await client.admin.command({**failpoint, "mode": "alwaysOn"})
        try:
            found = await future_entries(
                client, database=database, tolerance_seconds=LIMIT_SECONDS, search_seconds=30
            )
        finally:
            await client.admin.command({**failpoint, "mode": "off"})
    assert not found.whole
    assert [entry.sequence for entry in found.entries] == ([2] if made_ahead else [])
