"""Test documents that no release writes, through a server's socket.

Each call that needs such a document is refused with DATA_UNREADABLE, and at once: the same request
would fail again. All other users and apps are served, also in the same batch.
"""

from collections.abc import AsyncIterator, Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import bson
import pytest
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from credit_models import (
    BatchWriteRequest,
    BatchWriteResponse,
    ErrorReason,
    Operation,
    SummaryGroup,
)
from credit_models.ledger import GrantCredits, Receipt
from credit_server.api.contract import WRITES
from credit_server.api.watch_hub import WatchHub
from credit_server.commit import Committer, Sweeper, SweepLimits
from credit_server.store.mongo import MongoStore
from credit_testing.calls import Answer
from credit_testing.server import migrated
from grpclib.const import Status
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from structlog.testing import capture_logs

from tests.server.callers import WireCaller, open_wire, reason_of
from tests.server.commit.test_kinds import Moving, write
from tests.server.commit.test_sweeper import Swept
from tests.server.operations import BATCH_WRITE
from tests.server.requests import PATHS, request_of
from tests.server.watching import begin

Document = dict[str, Any]  # values of BSON
Log = list[MutableMapping[str, Any]]  # structlog's own type

AT = datetime(2026, 1, 2, tzinfo=UTC)
SOUND = 8
GRANT = {
    "id": ObjectId(),
    "sequence": Int64(1),
    "credits": Int64(5),
    "left": "5",
    "priority": Int64(500),
    "created_by": Int64(1),
}

# What an account has instead of sound fields, by its user; None: the field is missing.
ACCOUNTS: dict[int, Document] = {
    101: {"balances": [{"app_id": Int64(1), "balance": "10"}]},
    102: {"colour": "red"},
    103: {"balances": None},
    104: {"balances": [{"app_id": Int64(1), "balance": Int64(-(2**40))}]},
    105: {"revision": 2.5},
    106: {"apps": [{"app_id": Int64(1), "grants": [GRANT]}]},
    107: {"created_at": "yesterday"},
}
NOT_UTF8 = "stored as bytes that are not UTF-8"

# What an entry has instead of sound fields.
ENTRIES: list[Document] = [
    {"credits": 2.5},
    {"credits": Int64(-5)},
    {"balance_after": Int64(2**40)},
    {"balance_after": Int64(-(2**40))},
    {"created_by": Int64(2**32)},
    {"created_at": "yesterday"},
    {"created_at": DatetimeMS(10**15)},
    {"type": "gift"},
    {"idempotency_key": Int64(7)},
    {"idempotency_key": b"\xff"},
    {"idempotency_key": NOT_UTF8},
    {"hash": "abc"},
    {"purchase_id": "abc"},
    {"fingerprint": {"report_id": Int64(1), "report_name": "R"}},
    {"note": Int64(7)},
    {"type": "adjust", "delta": 2.5},
    {"type": "grant", "effective_at": "2026"},
    {"metadata": [{"name": "n", "value": Int64(1)}]},
    {"allocations": [{"credits": Int64(-1)}]},
]
PURCHASES: list[Document] = [
    {"credits": Int64(-5)},
    {"report_id": Int64(7)},
    {"refunded_credits": Int64(2**40)},
    {"created_at": DatetimeMS(10**15)},
    {"transaction_id": "abc"},
]
BAD_ENTRY, BAD_PURCHASE = 121, 122
BAD_POLICY, BAD_TOTAL = 5, 6

ON_ACCOUNTS = [
    "GetUserCredits",
    "GetAppBalance",
    "AddCredits",
    "UseCredits",
    "PlaceHold",
    "BatchWrite/AddCredits",
    "Write/UseCredits",
    "ListGrants",
    "GetForecast",
    "GetSpendingCap",
]


def plant(db: Database[Document]) -> None:
    """Store documents that no release writes."""
    for user_id, changed in ACCOUNTS.items():
        account = {**_account(user_id), **changed}
        sound = {name: value for name, value in account.items() if value is not None}
        db["user_credits"].insert_one(sound, bypass_document_validation=True)
    far = [{"$set": {"updated_at": {"$toDate": Int64(10**15)}}}]
    db["user_credits"].insert_one(_account(108))
    db["user_credits"].update_one({"user_id": 108}, far, bypass_document_validation=True)
    for user_id in (BAD_ENTRY, BAD_PURCHASE):
        db["user_credits"].insert_one(_account(user_id))
    entry = {**_entry(BAD_ENTRY), "credits": 2.5}
    db["credit_transactions"].insert_one(entry, bypass_document_validation=True)
    purchase = {
        "user_id": Int64(BAD_PURCHASE),
        "app_id": Int64(1),
        "sequence": Int64(1),
        "created_at": AT,
    }
    db["purchases"].insert_one(purchase, bypass_document_validation=True)
    policy = {"app_id": Int64(BAD_POLICY), "allow_negative": "no"}
    db["app_policies"].insert_one(policy, bypass_document_validation=True)
    total = {"app_id": Int64(BAD_TOTAL), "slot": Int64(1), "total": "7"}
    db["app_totals"].insert_one(total, bypass_document_validation=True)


def insert(collection: Collection[Document], document: Document) -> None:
    """Store a document that no release writes."""
    encoded = bson.encode({"_id": ObjectId(), **document})
    bad = encoded.replace(NOT_UTF8.encode(), b"\xff" * len(NOT_UTF8))
    collection.insert_one(RawBSONDocument(bad), bypass_document_validation=True)


def _account(user_id: int) -> Document:
    return {
        "user_id": Int64(user_id),
        "balances": [{"app_id": Int64(1), "balance": Int64(10)}],
        "created_at": AT,
        "updated_at": AT,
        "created_by": Int64(1),
        "updated_by": Int64(1),
        "revision": Int64(1),
    }


def _entry(user_id: int) -> Document:
    return {
        "user_id": Int64(user_id),
        "app_id": Int64(1),
        "credits": Int64(10),
        "created_at": AT,
        "created_by": Int64(1),
        "type": "add",
        "balance_after": Int64(10),
        "sequence": Int64(1),
    }


def _purchase(user_id: int) -> Document:
    return {
        "user_id": Int64(user_id),
        "app_id": Int64(1),
        "report_id": "r",
        "report_name": "R",
        "credits": Int64(10),
        "created_at": AT,
        "created_by": Int64(1),
        "transaction_id": ObjectId(),
        "sequence": Int64(1),
    }


@pytest.fixture(scope="module")
async def store(mongod_uri: str) -> AsyncIterator[MongoStore]:
    """Return a database with bad documents, and a sound user."""
    name = "bad_data"
    with MongoClient[Document](mongod_uri) as client:
        client.drop_database(name)
        await migrated(mongod_uri, name)
        plant(client[name])
        store = MongoStore(mongod_uri, database=name)
        yield store
        await store.close()
        client.drop_database(name)


@pytest.fixture(scope="module")
async def caller(store: MongoStore) -> AsyncIterator[WireCaller]:
    async with open_wire(store, hub=WatchHub(store)) as caller:
        await caller.write("AddCredits", user_id=SOUND, credits=100)
        yield caller


@pytest.fixture
def documents(mongod_uri: str, store: MongoStore) -> Iterator[Database[Document]]:
    with MongoClient[Document](mongod_uri) as client:
        yield client["bad_data"]


@pytest.fixture
def logged() -> Iterator[Log]:
    with capture_logs() as entries:
        yield entries


def is_refused(answer: Answer, *, write: bool = False) -> None:
    """Check that a call was refused with a reason and without any value of a document."""
    assert (answer.status, reason_of(answer)) == (Status.DATA_LOSS, "DATA_UNREADABLE")
    effect = "; no change was made" if write else ""
    assert answer.sentence == (
        f"data that the request needs cannot be read{effect}: the operator must correct the data"
    )


def is_reported_once(logged: Log) -> None:
    """Check that the operator has one line, and no traceback."""
    errors = [line for line in logged if line["log_level"] == "error"]
    assert len(errors) == 1, errors
    assert "cannot be read" in errors[0]["event"]
    assert not any("exc_info" in line for line in logged)


@pytest.mark.parametrize("call", ON_ACCOUNTS)
@pytest.mark.parametrize("user_id", [*ACCOUNTS, 108])
async def test_a_call_for_an_account_of_another_form_is_refused(
    caller: WireCaller, logged: Log, call: str, user_id: int
) -> None:
    answer = await caller.call(call, request_of(call.rpartition("/")[2], user_id=user_id))
    is_refused(answer, write=PATHS[call.partition("/")[0]] in WRITES)
    is_reported_once(logged)


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_batch_serves_all_users_whose_accounts_can_be_read(
    caller: WireCaller, logged: Log, atomic: bool
) -> None:
    users = [101, SOUND, 103, SOUND, 106]
    operations = [
        Operation(add_credits=request_of("AddCredits", user_id=user_id)) for user_id in users
    ]
    answer = await caller.wire.call(
        BATCH_WRITE, BatchWriteRequest(operations=operations, atomic=atomic)
    )
    if atomic:
        outcomes = answer.message(BatchWriteResponse).outcomes
        assert all(each.receipt is None for each in outcomes)
    else:
        outcomes = answer.message(BatchWriteResponse).outcomes
        reasons = [None if each.failure is None else each.failure.reason for each in outcomes]
        bad = ErrorReason.DATA_UNREADABLE
        assert reasons == [bad, None, bad, None, bad]
    assert not any("exc_info" in line for line in logged)


@pytest.mark.parametrize(
    ("call", "user_id"),
    [
        ("ListUserTransactions", BAD_ENTRY),
        ("QueryTransactions", BAD_ENTRY),
        ("ListUserPurchases", BAD_PURCHASE),
        ("QueryPurchases", BAD_PURCHASE),
    ],
)
async def test_a_list_with_an_entry_of_another_form_is_refused(
    caller: WireCaller, logged: Log, call: str, user_id: int
) -> None:
    is_refused(await caller.call(call, request_of(call, user_id=user_id)))
    is_reported_once(logged)
    assert reason_of(await caller.call(call, request_of(call, user_id=SOUND))) == ""


async def test_an_app_with_a_bad_policy_is_refused_and_other_apps_are_served_in_the_batch(
    caller: WireCaller, logged: Log
) -> None:
    apps = [BAD_POLICY, 1, BAD_POLICY, BAD_POLICY, BAD_POLICY, 1]
    operations = [
        Operation(add_credits=request_of("AddCredits", user_id=200 + number, app_id=app_id))
        for number, app_id in enumerate(apps)
    ]
    answer = await caller.wire.call(BATCH_WRITE, BatchWriteRequest(operations=operations))
    outcomes = answer.message(BatchWriteResponse).outcomes
    refused = [each.failure is not None for each in outcomes]
    assert refused == [app_id == BAD_POLICY for app_id in apps]
    assert all(
        each.failure.reason is ErrorReason.DATA_UNREADABLE for each in outcomes if each.failure
    )
    is_refused(await caller.call("GetAppPolicy", request_of("GetAppPolicy", app_id=BAD_POLICY)))


async def test_a_bad_total_does_not_hide_those_of_other_apps(caller: WireCaller) -> None:
    request = request_of("GetAppBalance", app_id=BAD_TOTAL, user_id=None)
    is_refused(await caller.call("GetAppBalance", request))
    sound = request_of("GetAppBalance", app_id=1, user_id=None)
    assert reason_of(await caller.call("GetAppBalance", sound)) == ""


async def test_a_list_with_any_kind_of_bad_entry_is_refused(
    caller: WireCaller, documents: Database[Document]
) -> None:
    entries = documents["credit_transactions"], "ListUserTransactions", "QueryTransactions", ENTRIES
    purchases = documents["purchases"], "ListUserPurchases", "QueryPurchases", PURCHASES
    documents["user_credits"].insert_one(_account(305))
    for collection, listing, query, kinds in (entries, purchases):
        sound = _entry(305) if collection.name == "credit_transactions" else _purchase(305)
        for changed in kinds:
            insert(collection, {**sound, **changed})
            with capture_logs() as logged:
                for call in (listing, query):
                    is_refused(await caller.call(call, request_of(call, user_id=305)))
            errors = [line for line in logged if line["log_level"] == "error"]
            assert len(errors) == 2, (changed, errors)
            assert not any("exc_info" in line for line in logged)
            collection.delete_many({"user_id": 305})


@pytest.mark.parametrize(
    ("changed", "query"),
    [
        ({"balance_after": Int64(2**40)}, {"sequence": 1}),
        ({"balance_after": "10"}, {"sequence": 1}),
        ({"created_at": "yesterday"}, {"at": AT + timedelta(days=1)}),
        ({"effective_at": "2026", "created_at": AT + timedelta(days=2)}, {"at": AT}),
        ({"sequence": "1"}, {"created_from": AT}),
    ],
)
async def test_an_earlier_balance_that_needs_a_bad_entry_is_refused(
    caller: WireCaller,
    documents: Database[Document],
    logged: Log,
    changed: Document,
    query: Document,
) -> None:
    documents["user_credits"].replace_one({"user_id": 306}, _account(306), upsert=True)
    insert(documents["credit_transactions"], {**_entry(306), **changed})
    call = "QueryTransactions" if "created_from" in query else "GetBalanceAt"
    fields = {"user_id": 306, "sequence": None, **query}
    if call == "QueryTransactions":
        del fields["sequence"]
    is_refused(await caller.call(call, request_of(call, **fields)))
    is_reported_once(logged)
    documents["credit_transactions"].delete_many({"user_id": 306})


# Sums do not read these fields: the entry has a valid effect, and belongs to a group.
NOT_SUMMED = (
    "balance_after",
    "created_by",
    "idempotency_key",
    "hash",
    "purchase_id",
    "note",
    "effective_at",
    "metadata",
    "allocations",
)
UNSUMMED: list[Document] = [
    *(changed for changed in ENTRIES if not {*changed} & {*NOT_SUMMED}),
    {"credits": "10"},
    {"type": None},
    {"fingerprint": {"report_id": NOT_UTF8, "report_name": "R"}},
]


@pytest.mark.parametrize("user_id", [307, None])
async def test_sums_that_need_a_bad_entry_are_refused(
    caller: WireCaller, documents: Database[Document], user_id: int | None
) -> None:
    span = {"created_from": AT, "created_until": AT + timedelta(days=1)}
    entries, sound = documents["credit_transactions"], {**_entry(307), "app_id": Int64(3)}
    documents["user_credits"].replace_one({"user_id": 307}, _account(307), upsert=True)
    for changed in UNSUMMED:
        insert(entries, {**sound, **changed})
        insert(entries, {**sound, "sequence": Int64(2), "created_at": AT + timedelta(hours=1)})
        refused = []
        for group_by in SummaryGroup:
            request = request_of("Summarize", user_id=user_id, app_id=3, group_by=group_by, **span)
            answer = await caller.call("Summarize", request)
            assert answer.status in (Status.OK, Status.DATA_LOSS), (changed, answer)
            if answer.status is Status.DATA_LOSS:
                is_refused(answer)
                refused.append(group_by)
        if "created_at" in changed:
            # Entries are found by their time, so an entry with another time can be in no span.
            assert refused in ([], [*SummaryGroup]), changed
        elif NOT_UTF8 in str(changed):
            assert refused == [SummaryGroup.REPORT]
        else:
            assert refused == [*SummaryGroup], changed
        entries.delete_many({"user_id": 307})


async def test_a_bad_entry_ends_the_watches_of_its_user_and_its_app_alone(
    caller: WireCaller, documents: Database[Document]
) -> None:
    entries = documents["credit_transactions"]
    going_on = await begin(caller, user_id=SOUND)
    other_app = await begin(caller, app_id=3)
    for changed in ENTRIES:
        ending = [await begin(caller, user_id=301), await begin(caller, app_id=2)]
        entry = {**_entry(301), "app_id": Int64(2), **changed}
        insert(entries, entry)
        for each in ending:
            is_refused(await each.ended())
        entries.delete_many({"user_id": 301})
    nobodys = {**_entry(301), "user_id": "301"}
    insert(entries, nobodys)
    for watched, fields in ((going_on, {"user_id": SOUND}), (other_app, {"app_id": 3})):
        before = len(watched.sequences)
        await caller.write("AddCredits", **{"user_id": SOUND, **fields})
        await watched.has_transactions(before + 1)


async def test_without_an_index_reads_fail_until_it_is_there_again(
    caller: WireCaller, documents: Database[Document], logged: Log
) -> None:
    entries = documents["credit_transactions"]
    request = request_of("ListUserTransactions", user_id=SOUND)
    entries.drop_index("user_id_sequence")
    try:
        answer = await caller.call("ListUserTransactions", request)
        assert (answer.status, reason_of(answer)) == (Status.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert "run credit-server migrate" in answer.sentence
        assert not any("exc_info" in line for line in logged)
        assert reason_of(await caller.call("AddCredits", request_of("AddCredits"))) == ""
    finally:
        entries.create_index(
            [("user_id", 1), ("sequence", 1)], name="user_id_sequence", unique=True
        )
    assert reason_of(await caller.call("ListUserTransactions", request)) == ""


async def test_the_sweeper_settles_sound_accounts_beside_bad_ones(
    store: MongoStore, documents: Database[Document]
) -> None:
    time = Moving()
    due = {"due_at": AT, "apps": [{"app_id": Int64(1), "due_at": AT}]}
    for user_id in (None, "401", 402):
        account = {**_account(0), **due, "user_id": user_id, "revision": "none"}
        documents["user_credits"].insert_one(account, bypass_document_validation=True)
    async with Committer(store, clock=time.clock) as committer:
        given = GrantCredits(
            **write(store, user=403), credits=5, expires_after=timedelta(minutes=1)
        )
        assert isinstance(await committer.submit(given), Receipt)
        time.now += timedelta(minutes=2)
        observer = Swept()
        limits = SweepLimits(per_second=1e9, chunk=2)
        await Sweeper(store, committer, time.clock, observer, limits, random=Random(1)).sweep()
    assert observer.settled == 1
    settled = await store.account(403)
    assert settled is not None
    assert settled.balances == {1: 0}
