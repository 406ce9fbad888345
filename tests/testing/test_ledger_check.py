"""Test that the ledger check names each kind of fault and passes a correct ledger."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from credit_models.ledger import (
    Add,
    AdjustBalance,
    CaptureHold,
    Command,
    GrantCredits,
    PlaceHold,
    Policy,
    Receipt,
    ReverseTransaction,
    Use,
)
from credit_server.commit import Committer
from credit_server.store.mongo import MongoStore
from credit_server.store.port import AppPolicy
from credit_testing.ledger_check import findings, main
from pymongo import MongoClient
from pymongo.database import Database

USER, APP = 1001, 1
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADD, USE, PURCHASE = (ObjectId() for _ in range(3))

Documents = Database[dict[str, Any]]  # values of many types


@pytest.fixture
def documents(mongod_uri: str, database: str) -> Iterator[Documents]:
    """A user who got 100 credits and spent 30; without the server's indexes and validators."""
    common = {"user_id": USER, "app_id": APP, "created_at": NOW, "created_by": 1}
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongod_uri) as client:
        documents: Documents = client[database]
        added = {"_id": ADD, "type": "add", "credits": 100, "balance_after": 100, "sequence": 1}
        used = {"_id": USE, "type": "use", "credits": 30, "balance_after": 70, "sequence": 2}
        documents["credit_transactions"].insert_many(
            [
                {**common, **added, "idempotency_key": "a"},
                {**common, **used, "purchase_id": PURCHASE, "idempotency_key": "u"},
            ]
        )
        bought = {"_id": PURCHASE, "credits": 30, "sequence": 2, "transaction_id": USE}
        documents["purchases"].insert_one({**common, **bought})
        balances = [{"app_id": APP, "balance": 70}]
        documents["user_credits"].insert_one({"user_id": USER, "balances": balances, "revision": 2})
        documents["app_totals"].insert_many(
            [{"app_id": APP, "slot": slot, "total": total} for slot, total in ((0, 100), (1, -30))]
        )
        yield documents


def _set(collection: str, number: int, **values: object) -> Callable[[Documents], None]:
    """Change fields of the first or second document of a collection."""

    def forge(documents: Documents) -> None:
        found = list(documents[collection].find())[number]
        documents[collection].update_one({"_id": found["_id"]}, {"$set": values})

    return forge


def _delete(collection: str) -> Callable[[Documents], None]:
    """Remove the last document of a collection."""

    def forge(documents: Documents) -> None:
        last = list(documents[collection].find())[-1]
        documents[collection].delete_one({"_id": last["_id"]})

    return forge


@pytest.mark.parametrize(
    ("forge", "named"),
    [
        (_set("credit_transactions", 1, balance_after=71), "an entry has another"),
        (_set("credit_transactions", 1, credits=130), "a balance leaves 0"),
        (_set("credit_transactions", 0, credits=2**32), "a balance leaves 0"),
        (_set("credit_transactions", 1, sequence=3), "a history has a gap"),
        (_set("user_credits", 0, revision=3), "a history has a gap"),
        (_delete("credit_transactions"), "a history has a gap"),
        (_set("user_credits", 0, balances=[]), "a history adds up to another balance"),
        (_delete("user_credits"), "a history adds up to another balance"),
        (_set("user_credits", 0, user_id=1), "an account has no history"),
        (_delete("purchases"), "a payment without its purchase"),
        (_set("purchases", 0, credits=31), "a payment without its purchase"),
        (_set("credit_transactions", 0, purchase_id=PURCHASE), "a payment without its purchase"),
        (_delete("credit_transactions"), "a purchase without its payment"),
        (_set("credit_transactions", 1, idempotency_key="a"), "a key has happened twice"),
        (_set("app_totals", 1, total=-29), "an app's total is not"),
        (_delete("app_totals"), "an app's total is not"),
        (_set("app_totals", 0, app_id=2), "an app's total is not"),
    ],
)
def test_a_forgery_is_named(
    documents: Documents, forge: Callable[[Documents], None], named: str
) -> None:
    forge(documents)
    assert named in "\n".join(findings(documents))


def test_a_sound_ledger_passes(documents: Documents) -> None:
    assert findings(documents) == []


@pytest.fixture
async def kinds(mongod_uri: str, migrated_database: str) -> AsyncIterator[Documents]:
    """A ledger of the server with a grant, a hold with a capture, a refund and a debt."""
    store = MongoStore(mongod_uri, database=migrated_database)
    await store.set_policy(
        AppPolicy(
            app_id=2, policy=Policy(allow_negative=True), revision=1, updated_at=NOW, updated_by=1
        )
    )

    def common(app: int = APP) -> dict[str, Any]:
        made = {"transaction_id": store.new_id(), "key": ""}
        return {"user_id": USER, "app_id": app, "created_by": 1, **made}

    def bought() -> dict[str, Any]:
        return {"report_id": "r", "report_name": "n", "purchase_id": store.new_id()}

    async with Committer(store) as committer:

        async def done(command: Command) -> str:
            result = await committer.submit(command)
            assert isinstance(result, Receipt), result
            return result.transaction.id

        await done(Add(**common(), credits=10))
        await done(GrantCredits(**common(), credits=20, priority=1))
        used = await done(Use(**common(), **bought(), credits=5))
        hold = await done(PlaceHold(**common(), credits=6))
        await done(CaptureHold(**common(), **bought(), hold_id=hold, credits=2, final=False))
        await done(ReverseTransaction(**common(), reversed_id=used, credits=3))
        later = NOW + timedelta(days=365_000)
        await done(GrantCredits(**common(), credits=7, effective_at=later))
        await done(AdjustBalance(**common(2), delta=-4, note="n"))
        await done(GrantCredits(**common(2), credits=3))
    await store.close()
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongod_uri) as client:
        for name in ("user_credits", "credit_transactions", "purchases"):
            client[migrated_database].command("collMod", name, validationLevel="off")
        yield client[migrated_database]


async def test_a_sound_ledger_of_all_kinds_passes(kinds: Documents) -> None:
    assert findings(kinds) == []


@pytest.mark.parametrize(
    ("forge", "named"),
    [
        (_set("user_credits", 0, **{"apps.0.grants.0.left": 13}), "a grant has other credits"),
        (_set("user_credits", 0, **{"apps.0.grants": []}), "a grant has other credits"),
        (_set("user_credits", 0, **{"apps.0.grants.0.left": 10**6}), "more was granted"),
        (_set("user_credits", 0, **{"apps.0.holds.0.credits": 5}), "a hold has other credits"),
        (_set("user_credits", 0, **{"apps.0.holds": []}), "a hold has other credits"),
        (_set("credit_transactions", 4, credits=3), "a hold has other credits"),
        (_set("credit_transactions", 3, type="use"), "a payment without its purchase"),
        (_set("credit_transactions", 6, credits=4), "a purchase shows other refunds"),
        (_set("purchases", 0, refunded_credits=2), "a purchase shows other refunds"),
        (_set("credit_transactions", 8, delta=4), "an entry has another"),
        (_set("credit_transactions", 8, type="expire"), "without an adjustment"),
        (_set("credit_transactions", 4, hash=b"forged"), "the hashes of a history are not a chain"),
        (_set("credit_transactions", 4, hash=None), "the hashes of a history are not a chain"),
        (_set("credit_transactions", 4, previous_hash=None), "are not a chain"),
        (_set("user_credits", 0, **{"balances.0.head": b"forged"}), "another hash"),
    ],
)
async def test_a_forgery_of_a_grant_a_hold_a_refund_or_a_hash_is_named(
    kinds: Documents, forge: Callable[[Documents], None], named: str
) -> None:
    forge(kinds)
    assert named in "\n".join(findings(kinds))


def test_the_exit_code_of_the_command_is_the_verdict(documents: Documents, mongod_uri: str) -> None:
    assert main(mongod_uri, documents.name) == 0
    _delete("app_totals")(documents)
    assert main(mongod_uri, documents.name) == 1
