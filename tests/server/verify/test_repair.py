"""Test what repair writes and refuses. `test_damage` tests it for each kind of finding."""

from dataclasses import replace
from typing import Any

from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import Add
from credit_server.commit import Committer
from credit_server.store.mongo import MongoStore
from credit_server.verify.correction import State
from credit_server.verify.findings import Code
from credit_server.verify.run import Target
from credit_testing.ledger_check import findings as independent_findings
from pymongo.database import Database

from tests.server.verify.checking import ORDER, check, contents, correct
from tests.server.verify.histories import LAST

Document = dict[str, Any]  # values of BSON


async def test_a_rebuilt_account_shows_who_has_corrected_it_and_why(
    ledger: Target, documents: Database[Document]
) -> None:
    account = documents["user_credits"].find_one({"user_id": LAST})
    assert account is not None
    where = {"user_id": LAST}
    documents["user_credits"].update_one(where, {"$set": {"balances.0.balance": Int64(5)}})
    (done,) = [each for each in await correct(ledger, await check(ledger)) if each.user_id]
    assert done.findings == ("balance",)
    rebuilt = documents["user_credits"].find_one(where)
    assert rebuilt is not None
    assert rebuilt["revision"] == account["revision"] + 1
    (id_,) = done.transaction_ids
    entry = documents["credit_transactions"].find_one({"_id": ObjectId(id_)})
    assert entry is not None
    expected = [
        {**each, "head": entry["hash"] if each["app_id"] == entry["app_id"] else each["head"]}
        for each in account["balances"]
    ]
    assert rebuilt["balances"] == expected
    assert (entry["type"], entry["delta"], entry["note"], entry["created_by"]) == (
        "adjust",
        0,
        "disk fault",
        99,
    )
    assert (await check(ledger)).findings == []
    assert independent_findings(documents) == []


async def test_the_balance_of_the_account_is_kept_on_request(
    ledger: Target, documents: Database[Document]
) -> None:
    where = {"user_id": LAST}
    account = documents["user_credits"].find_one(where)
    assert account is not None
    wrong = Int64(account["balances"][0]["balance"] + 40)
    documents["user_credits"].update_one(where, {"$set": {"balances.0.balance": wrong}})
    corrections = await correct(ledger, await check(ledger), replace(ORDER, keeps_account=True))
    rebuilt = documents["user_credits"].find_one(where)
    assert rebuilt is not None
    ids = [ObjectId(id_) for id_ in corrections[0].transaction_ids]
    entry = documents["credit_transactions"].find_one({"_id": {"$in": ids}, "type": "adjust"})
    assert entry is not None
    assert (entry["credits"], entry["delta"]) == (40, 40)
    assert rebuilt["balances"][0]["balance"] >= wrong  # what was due by time was written too
    assert (await check(ledger)).findings == []


async def test_a_correction_that_would_make_a_balance_negative_is_refused(
    ledger: Target, documents: Database[Document]
) -> None:
    where = {"user_id": LAST}
    documents["user_credits"].update_one(
        where, {"$set": {"balances.0.balance": Int64(-7000)}}, bypass_document_validation=True
    )
    before = contents(documents)
    (refused,) = [
        each
        for each in await correct(ledger, await check(ledger), replace(ORDER, keeps_account=True))
        if each.user_id
    ]
    assert refused.state is State.REFUSED
    assert "rejects an ADJUST" in refused.actions[0]
    assert contents(documents)["user_credits"] == before["user_credits"]
    assert contents(documents)["credit_transactions"] == before["credit_transactions"]


async def test_a_server_that_has_cached_the_wrong_account_does_not_write_it_back(
    ledger: Target, documents: Database[Document]
) -> None:
    store = MongoStore(ledger.uri, database=ledger.database)

    def add(credits_: int) -> Add:
        return Add(
            user_id=LAST, app_id=2, created_by=1, key="", transaction_id=store.new_id(),
            credits=credits_,
        )  # fmt: skip

    where = {"user_id": LAST}
    documents["user_credits"].update_one(where, {"$inc": {"balances.0.balance": Int64(300)}})
    async with Committer(store) as committer:
        await committer.submit(add(1))  # the server now has cached the account with 300 too many
        found = await check(ledger)
        assert found.counts[Code.BALANCE] == 1
        await correct(ledger, found)
        await committer.submit(add(2))
    await store.close()
    assert (await check(ledger)).findings == [], "the balance of the history is kept"
