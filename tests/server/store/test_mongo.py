"""Test how the MongoDB store classifies failures, caused in a real mongod by failCommand.

See https://github.com/mongodb/mongo/wiki/The-%22failCommand%22-fail-point.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import Account, Add, Policy, Receipt, Transaction
from credit_server.commit import CommitLimits, Committer
from credit_server.store.documents import TransactionDocument
from credit_server.store.driver import Driver
from credit_server.store.history import TransactionRow
from credit_server.store.mongo import MongoStore
from credit_server.store.port import (
    AppPolicy,
    Changes,
    CommitUnknown,
    Conflict,
    Interrupted,
    StoreMisconfigured,
    StoreUnavailable,
    Unreadable,
    Writer,
)
from pymongo import MongoClient

from tests.server.cancelled_connects import sockets_are_collected
from tests.server.commit.scripted_store import add
from tests.server.store.fail_point import failing
from tests.server.store.profiler import profiled_reads

NOTHING = Changes(accounts=[], transactions=[], purchases=[], totals={1: 5}, counter_shard=0)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def driver() -> Driver:
    """Choose the driver; `with_each_driver` overrides it."""
    return Driver.MOTOR


with_each_driver = pytest.mark.parametrize("driver", Driver)


@pytest.fixture
async def store(
    mongod_uri: str, migrated_database: str, driver: Driver
) -> AsyncIterator[MongoStore]:
    mongo = MongoStore(mongod_uri, database=migrated_database, timeout_seconds=2, driver=driver)
    yield mongo
    await mongo.close()


async def test_ids_are_object_ids_of_this_time_and_differ_between_stores(
    store: MongoStore, mongod_uri: str, migrated_database: str
) -> None:
    before = int(time.time())
    other = MongoStore(mongod_uri, database=migrated_database)
    ids = [each.new_id() for each in (store, other) for _ in range(100)]
    await other.close()
    assert len(set(ids)) == 200
    assert all(before <= ObjectId(id_).generation_time.timestamp() <= time.time() for id_ in ids)


async def listed(store: MongoStore, apps: frozenset[int] | None = None) -> list[TransactionRow]:
    return [row async for page in store.list_transactions(1, apps) for row in page]


async def commit(writer: Writer) -> None:
    async with writer.begin() as transaction:
        await transaction.write(NOTHING)
        await transaction.commit()


async def test_a_write_conflict_is_a_conflict(store: MongoStore, mongod_uri: str) -> None:
    async with failing(mongod_uri, "update", times=1, errorCode=112):
        with pytest.raises(Conflict):
            await commit(store.writer())
    assert await store.app_total(1) == 0


@pytest.mark.parametrize("error", [None, 112])
async def test_the_check_of_a_commit_follows_the_writes_and_prevents_it(
    store: MongoStore, mongod_uri: str, error: int | None
) -> None:
    checked = []

    def check() -> None:
        checked.append(True)
        raise Interrupted("too late")

    writer = store.writer()
    async with writer.begin() as transaction:
        await transaction.write(NOTHING)
        if error is None:
            with pytest.raises(Interrupted, match="too late"):
                await transaction.commit(check)
        else:
            async with failing(mongod_uri, "update", times=1, errorCode=error):
                with pytest.raises(Conflict):
                    await transaction.commit(check)
    assert checked == ([True] if error is None else [])
    await commit(writer)
    assert await store.app_total(1) == 5


async def test_a_connection_that_breaks_before_the_commit_is_an_interruption(
    store: MongoStore, mongod_uri: str
) -> None:
    async with failing(mongod_uri, "update", times=1, closeConnection=True):
        with pytest.raises(Interrupted):
            await commit(store.writer())
    assert await store.app_total(1) == 0


async def test_a_commit_whose_answer_is_lost_once_is_retried(
    store: MongoStore, mongod_uri: str
) -> None:
    async with failing(mongod_uri, "commitTransaction", times=1, closeConnection=True):
        await commit(store.writer())
    assert await store.app_total(1) == 5


async def test_a_commit_whose_answer_is_always_lost_is_unknown(
    store: MongoStore, mongod_uri: str
) -> None:
    async with failing(mongod_uri, "commitTransaction", times=100, closeConnection=True):
        with pytest.raises(CommitUnknown):
            await commit(store.writer())


async def test_a_commit_that_times_out_on_the_majority_is_unknown(
    store: MongoStore, mongod_uri: str
) -> None:
    error = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication"}
    async with failing(mongod_uri, "commitTransaction", times=100, writeConcernError=error):
        with pytest.raises(CommitUnknown):
            await commit(store.writer())


async def test_a_commit_that_fails_for_another_reason_is_unknown_too(
    store: MongoStore, mongod_uri: str
) -> None:
    async with failing(mongod_uri, "commitTransaction", times=100, errorCode=8000):
        with pytest.raises(CommitUnknown):
            await commit(store.writer())


async def test_a_transaction_that_mongod_aborted_is_an_interruption(
    store: MongoStore, mongod_uri: str
) -> None:
    async with failing(
        mongod_uri,
        "commitTransaction",
        times=1,
        errorCode=251,  # NoSuchTransaction
        errorLabels=["TransientTransactionError"],
    ):
        with pytest.raises(Interrupted):
            await commit(store.writer())


async def test_a_transaction_left_open_does_not_block_its_users(
    store: MongoStore, mongod_uri: str
) -> None:
    """mongod keeps a transaction whose connection broke; the writer's next transaction ends it."""
    writer = store.writer()
    async with failing(mongod_uri, "commitTransaction", times=2, closeConnection=True):
        with pytest.raises(CommitUnknown):
            await commit(writer)
        await commit(writer)  # within `failing`, which kills open transactions at its end
    assert await store.app_total(1) == 5


@pytest.mark.parametrize("committed", [True, False])
async def test_the_committer_settles_an_unknown_commit_exactly_once(
    store: MongoStore, mongod_uri: str, committed: bool
) -> None:
    data: dict[str, Any] = (
        {"writeConcernError": {"code": 64, "errmsg": "waiting for replication"}}
        if committed
        else {"closeConnection": True}
    )
    limits = CommitLimits(shards=1, backoff_max_seconds=0.01)
    command = Add(
        user_id=1, app_id=1, credits=5, created_by=1, key="", transaction_id=store.new_id()
    )
    # As often as one attempt commits: the driver retries each commit once.
    async with (
        failing(mongod_uri, "commitTransaction", times=2, **data),
        Committer(store, limits) as committer,
    ):
        receipt = await committer.submit(command)
    assert isinstance(receipt, Receipt)
    assert not receipt.replayed
    entries = [entry async for page in store.list_transactions(1) for entry in page]
    assert [entry.id for entry in entries] == [command.transaction_id]
    assert await store.app_total(1) == 5


async def test_two_servers_on_one_user_lose_nothing(
    mongod_uri: str, migrated_database: str
) -> None:
    stores = [MongoStore(mongod_uri, database=migrated_database) for _ in range(2)]
    limits = CommitLimits(shards=1, batch_max=5)
    async with Committer(stores[0], limits) as here, Committer(stores[1], limits) as there:

        async def add(committer: Committer, number: int) -> None:
            receipt = await committer.submit(
                Add(
                    user_id=1,
                    app_id=1,
                    credits=1,
                    created_by=1,
                    key=f"key-{number // 2}",  # both servers get each key
                    transaction_id=stores[0].new_id(),
                )
            )
            assert isinstance(receipt, Receipt)

        await asyncio.gather(*(add((here, there)[number % 2], number) for number in range(80)))
    entries = [entry async for page in stores[0].list_transactions(1) for entry in page]
    assert [entry.sequence for entry in entries] == list(range(1, 41))
    assert {entry.key for entry in entries} == {f"key-{number}" for number in range(40)}
    assert await stores[1].app_total(1) == 40
    for store in stores:
        await store.close()


@with_each_driver
async def test_a_bad_account_fails_its_own_reads_and_no_others(
    store: MongoStore, mongod_uri: str, migrated_database: str
) -> None:
    number = {user: Int64(user) for user in (1, 2, 3)}
    with MongoClient[dict[str, Any]](mongod_uri) as client:
        accounts = client[migrated_database].get_collection("user_credits")
        client[migrated_database].command("collMod", "user_credits", validationLevel="off")
        accounts.insert_many(
            {
                "user_id": number[user],
                "balances": [],
                "created_at": NOW,
                "updated_at": NOW,
                "created_by": number[1],
                "updated_by": number[1],
                "revision": "not a number" if user == 2 else number[1],
            }
            for user in number
        )
    found = await asyncio.gather(*(store.account(user) for user in number), return_exceptions=True)
    assert [type(one) for one in found] == [Account, Unreadable, Account]


@with_each_driver
async def test_a_read_whose_connection_breaks_once_is_retried(
    store: MongoStore, mongod_uri: str
) -> None:
    async with failing(mongod_uri, "find", times=1, closeConnection=True):
        assert await store.account(1) is None
    async with failing(mongod_uri, "find", times=1, closeConnection=True):
        assert await store.app_total(1) == 0
    async with failing(mongod_uri, "find", times=1, closeConnection=True):
        assert await listed(store, frozenset({1})) == []


@with_each_driver
@pytest.mark.parametrize(
    "fault",
    [
        {"closeConnection": True},
        {"errorCode": 18},  # AuthenticationFailed
        {"errorCode": 175},  # QueryPlanKilled
        {"errorCode": 246, "errorLabels": []},  # SnapshotUnavailable
    ],
    ids=str,
)
async def test_a_read_that_fails_is_unavailable(
    store: MongoStore, mongod_uri: str, fault: dict[str, Any]
) -> None:
    async with failing(mongod_uri, "find", times=100, **fault):
        for read in (
            store.account(1),
            store.app_total(1),
            listed(store),
            listed(store, frozenset({1})),
        ):
            with pytest.raises(StoreUnavailable):
                await read
    assert await store.account(1) is None, "the store is used again"


async def test_a_write_that_no_majority_confirms_is_unavailable(
    store: MongoStore, mongod_uri: str
) -> None:
    """A primary that steps down returns this error outside of a transaction."""
    error = {"code": 11602, "codeName": "InterruptedDueToReplStateChange", "errmsg": "interrupted"}
    async with failing(mongod_uri, "findAndModify", times=100, writeConcernError=error):
        with pytest.raises(StoreUnavailable):
            await store.lease("sweeper", "me", 1)
    assert await store.lease("sweeper", "me", 1), "the store is used again"


@with_each_driver
async def test_a_read_is_unavailable_when_the_store_hangs(
    mongod_uri: str, migrated_database: str, driver: Driver
) -> None:
    store = MongoStore(mongod_uri, database=migrated_database, timeout_seconds=0.2, driver=driver)
    assert await store.account(1) is None
    async with failing(mongod_uri, "find", times=100, blockConnection=True, blockTimeMS=2000):
        hanging = (store.account(1), store.account(2), store.app_total(1), listed(store))
        found = await asyncio.gather(*hanging, return_exceptions=True)
    assert {type(one) for one in found} == {StoreUnavailable}
    await store.close()


@sockets_are_collected
@with_each_driver
async def test_the_topology_is_checked_with_the_reason_for_each_host(
    store: MongoStore, driver: Driver
) -> None:
    await store.check_topology()
    await store.verify_schema()
    # Port 9 belongs to the discard service: nothing listens there.
    absent = MongoStore(
        "mongodb://127.0.0.1:9/?replicaSet=none",
        database="credit",
        timeout_seconds=0.2,
        driver=driver,
    )
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9: \[Errno 111\] Connection refused"):
        await absent.check_topology()
    await absent.close()


@sockets_are_collected
@with_each_driver
async def test_an_unreachable_store_is_unavailable(driver: Driver) -> None:
    # Port 9 belongs to the discard service: nothing listens there.
    store = MongoStore(
        "mongodb://127.0.0.1:9/?replicaSet=none",
        database="credit",
        timeout_seconds=0.2,
        driver=driver,
    )
    with pytest.raises(StoreUnavailable):
        await store.ping()
    with pytest.raises(StoreUnavailable):
        await store.account(1)
    with pytest.raises(StoreUnavailable):
        await commit(store.writer())
    await store.close()


@with_each_driver
@pytest.mark.parametrize("uri", ["nonsense", "mongodb://", "mongodb://host:port"])
def test_an_invalid_connection_string_is_reported(uri: str, driver: Driver) -> None:
    with pytest.raises(StoreMisconfigured, match="CREDIT_MONGODB_URI is not valid"):
        MongoStore(uri, database="credit", driver=driver)


@with_each_driver
def test_an_invalid_database_name_is_reported(mongod_uri: str, driver: Driver) -> None:
    with pytest.raises(StoreMisconfigured, match="CREDIT_MONGODB_DATABASE is not valid"):
        MongoStore(mongod_uri, database="no spaces", driver=driver)


@with_each_driver
async def test_a_database_without_a_schema_is_reported(
    mongod_uri: str, database: str, driver: Driver
) -> None:
    store = MongoStore(mongod_uri, database=database, driver=driver)
    with pytest.raises(StoreMisconfigured, match="credit-server migrate"):
        await store.verify_schema()
    await store.close()


@with_each_driver
async def test_each_step_over_heads_reads_a_bounded_number_of_accounts_of_any_app(
    store: MongoStore, mongod_uri: str, migrated_database: str
) -> None:
    async with Committer(store, CommitLimits(shards=1)) as committer:
        for user_id in range(1, 26):
            await committer.submit(
                Add(
                    user_id=user_id,
                    app_id=2 if user_id in (3, 24) else 1,
                    credits=5,
                    created_by=1,
                    key="",
                    transaction_id=store.new_id(),
                )
            )
    with profiled_reads(mongod_uri, migrated_database) as reads:
        pages = [page async for page in store.heads(2, page_size=10)]
    assert [[head.user_id for head in page] for page in pages] == [[3], [], [24]]
    # The first read sees all that was acknowledged, and the others see at least the same.
    assert [read["readConcern"].get("level") for read in reads[:1]] == ["linearizable"]
    assert len(reads) == 4
    assert all("afterClusterTime" in read["readConcern"] for read in reads[1:])
    assert max(read["docsExamined"] for read in reads) <= 10


@with_each_driver
async def test_the_latest_policy_is_a_linearizable_read(
    store: MongoStore, mongod_uri: str, migrated_database: str
) -> None:
    changed = AppPolicy(
        app_id=1,
        policy=Policy(allow_negative=True),
        revision=1,
        updated_at=datetime(2026, 3, 1, tzinfo=UTC),
        updated_by=1,
    )
    await store.set_policy(changed)
    with profiled_reads(mongod_uri, migrated_database) as reads:
        assert await store.latest_policy(1) == changed
        assert await store.latest_policy(2) == AppPolicy(app_id=2)
    assert [read["readConcern"]["level"] for read in reads] == 2 * ["linearizable"]


@with_each_driver
@pytest.mark.parametrize("apps", [None, frozenset({1})], ids=["all apps", "some"])
async def test_a_list_with_a_slow_reader_does_not_hold_its_page(
    store: MongoStore, apps: frozenset[int] | None
) -> None:
    key = f"slow {store.new_id()}"
    async with Committer(store, CommitLimits(shards=1)) as committer:
        command = Add(
            user_id=1, app_id=1, credits=5, created_by=1, key=key, transaction_id=store.new_id()
        )
        await committer.submit(command)
    pages, before = store.list_transactions(1, apps), held(key)
    (entry,) = await anext(pages)
    assert entry.id == command.transaction_id
    del entry
    assert held(key) <= before  # the writer may free its own meanwhile
    assert [page async for page in pages] == []


def held(key: str) -> int:
    """Count the objects of a transaction that this process holds, in any form."""
    # Not isinstance: some of the objects are weak proxies of freed ones.
    return sum(
        (type(each) in (Transaction, TransactionRow) and each.key == key)
        or (type(each) is TransactionDocument and each.idempotency_key == key)
        or (type(each) is dict and each.get("idempotency_key") == key)
        for each in gc.get_objects()
    )


@with_each_driver
async def test_the_latest_revision_is_a_linearizable_read(
    store: MongoStore, mongod_uri: str, migrated_database: str
) -> None:
    async with Committer(store) as committer:
        await committer.submit(add(store, user=7))
    with profiled_reads(mongod_uri, migrated_database) as reads:
        assert await store.latest_revision(7) == 1
        assert await store.latest_revision(8) == 0
    assert [read["readConcern"]["level"] for read in reads] == 2 * ["linearizable"]
