"""Plant each kind of damage in a sound database: verify reports it by its code, repair corrects it.

The writes bypass the validators, as a person in mongosh or a faulty disk does.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import GENESIS, Kind, hash_of
from credit_server.store.documents import TransactionDocument
from credit_server.verify.correction import State
from credit_server.verify.findings import Code, Remedy
from credit_server.verify.run import Target
from pymongo.collection import Collection
from pymongo.database import Database

from tests.server.verify.checking import ORDER, check, contents, correct
from tests.server.verify.histories import LAST

Document = dict[str, Any]  # values of BSON
Plant = Callable[[Database[Document]], None]

DAMAGE: list[tuple[Code, str, Plant]] = []


def damages(code: Code) -> Callable[[Plant], Plant]:
    """Add a function to the list of damage that has a code."""

    def add(plant: Plant) -> Plant:
        DAMAGE.append((code, plant.__name__.strip("_"), plant))
        return plant

    return add


def set_(collection: Collection[Document], where: Document, **values: object) -> None:
    """Set fields of one document that must exist."""
    changed = collection.update_one(where, {"$set": values}, bypass_document_validation=True)
    assert changed.modified_count == 1, where


def one(collection: Collection[Document], **where: object) -> Document:
    """Return the first document, by its sequence, that satisfies some conditions."""
    found = collection.find_one(where, sort=[("user_id", 1), ("sequence", 1)])
    assert found is not None, where
    return found


def of(document: Document) -> Document:
    """Return the condition that selects a document."""
    return {"_id": document["_id"]}


def rechain(db: Database[Document], user_id: int) -> None:
    """Make the hashes of a user's entries fit, as if a faulty server had written the entries."""
    heads: dict[int, bytes] = {}
    for document in db["credit_transactions"].find({"user_id": user_id}).sort("sequence", 1):
        entry = TransactionDocument.model_validate(document).to_transaction()
        previous = heads.get(entry.app_id, GENESIS)
        heads[entry.app_id] = hash_of(entry, previous)
        changed = {"hash": heads[entry.app_id], **({"previous_hash": previous} if previous else {})}
        db["credit_transactions"].update_one(of(document), {"$set": changed})
    for app_id, head in heads.items():
        db["user_credits"].update_one(
            {"user_id": user_id, "balances.app_id": app_id}, {"$set": {"balances.$.head": head}}
        )


async def test_a_sound_database_with_every_kind_of_entry_has_no_finding(
    ledger: Target, documents: Database[Document]
) -> None:
    entries = documents["credit_transactions"]
    assert set(entries.distinct("type")) == {kind.value for kind in Kind}
    found = await check(ledger)
    assert found.findings == []
    assert not found.counts
    assert found.entries == entries.count_documents({})
    assert found.users == 4


# The account.


@damages(Code.BALANCE)
def balance_raised(db: Database[Document]) -> None:
    set_(db["user_credits"], {"user_id": 8}, **{"balances.0.balance": Int64(9_999)})


@damages(Code.BALANCE)
def negative_balance(db: Database[Document]) -> None:
    set_(db["user_credits"], {"user_id": LAST}, **{"balances.0.balance": Int64(-1)})


@damages(Code.BALANCE)
def balance_of_another_app(db: Database[Document]) -> None:
    extra = {"app_id": Int64(77), "balance": Int64(5)}
    db["user_credits"].update_one({"user_id": LAST}, {"$push": {"balances": extra}})


@damages(Code.ACCOUNT_MISSING)
def account_removed(db: Database[Document]) -> None:
    db["user_credits"].delete_one({"user_id": 9})


@damages(Code.ACCOUNT_DUPLICATE)
def second_account(db: Database[Document]) -> None:
    db["user_credits"].drop_index("user_id")
    account = one(db["user_credits"], user_id=9)
    db["user_credits"].insert_one({**account, "_id": ObjectId()})


@damages(Code.HISTORY_MISSING)
def history_removed(db: Database[Document]) -> None:
    db["credit_transactions"].delete_many({"user_id": LAST})


@damages(Code.REVISION)
def revision_set_back(db: Database[Document]) -> None:
    set_(db["user_credits"], {"user_id": 7}, revision=Int64(3))


@damages(Code.ACCOUNT_DATES)
def account_dated_back(db: Database[Document]) -> None:
    set_(db["user_credits"], {"user_id": 7}, updated_at=datetime(2020, 1, 1, tzinfo=UTC))


@damages(Code.GRANT_LEFT)
def grant_raised(db: Database[Document]) -> None:
    set_(db["user_credits"], {"user_id": LAST}, **{"apps.0.grants.0.left": Int64(3)})


@damages(Code.GRANT_LEFT)
def scheduled_grant_removed(db: Database[Document]) -> None:
    db["user_credits"].update_one({"user_id": LAST}, {"$unset": {"apps.0.scheduled": ""}})


@damages(Code.GRANT_TERMS)
def grant_prolonged(db: Database[Document]) -> None:
    set_(
        db["user_credits"],
        {"user_id": LAST},
        **{"apps.0.grants.0.ends_at": datetime(2030, 1, 1, tzinfo=UTC)},
    )


@damages(Code.HOLD)
def hold_lowered(db: Database[Document]) -> None:
    set_(db["user_credits"], {"user_id": LAST}, **{"apps.0.holds.0.credits": Int64(1)})


@damages(Code.HOLD_TERMS)
def hold_prolonged(db: Database[Document]) -> None:
    set_(
        db["user_credits"],
        {"user_id": LAST},
        **{"apps.0.holds.0.ends_at": datetime(2030, 1, 1, tzinfo=UTC)},
    )


@damages(Code.CAP)
def cap_raised(db: Database[Document]) -> None:
    set_(db["user_credits"], {"user_id": LAST}, **{"apps.0.caps.day": Int64(90_000)})


@damages(Code.CAP_COUNTER)
def counter_lowered(db: Database[Document]) -> None:
    set_(db["user_credits"], {"user_id": LAST}, **{"apps.0.spent.1.credits": Int64(0)})


@damages(Code.CAP_COUNTER)
def counters_removed(db: Database[Document]) -> None:
    db["user_credits"].update_one({"user_id": LAST}, {"$unset": {"apps.0.spent": ""}})


@damages(Code.ALERT)
def alert_changed(db: Database[Document]) -> None:
    set_(db["user_credits"], {"user_id": LAST}, **{"apps.0.alerts.0.credits": Int64(1)})


@damages(Code.DUE_TIME)
def due_time_removed(db: Database[Document]) -> None:
    db["user_credits"].update_one({"user_id": LAST}, {"$unset": {"due_at": ""}})


# Entries.


@damages(Code.SEQUENCE_GAP)
def entry_removed(db: Database[Document]) -> None:
    db["credit_transactions"].delete_one({"user_id": 7, "sequence": 4})


@damages(Code.SEQUENCE_GAP)
def last_entry_removed(db: Database[Document]) -> None:
    last = db["credit_transactions"].find_one({"user_id": LAST}, sort=[("sequence", -1)])
    assert last is not None
    db["credit_transactions"].delete_one(of(last))


@damages(Code.SEQUENCE_DUPLICATE)
def entry_twice(db: Database[Document]) -> None:
    db["credit_transactions"].drop_index("user_id_sequence")
    entry = one(db["credit_transactions"], user_id=7, type="add")
    entry.pop("idempotency_key", None)
    db["credit_transactions"].insert_one({**entry, "_id": ObjectId()})


@damages(Code.KEY_DUPLICATE)
def key_twice(db: Database[Document]) -> None:
    entries = db["credit_transactions"]
    entries.drop_index("user_id_app_id_idempotency_key")
    keyed = one(entries, user_id=7, app_id=1, type="add", idempotency_key={"$exists": True})
    other = one(entries, user_id=7, app_id=1, type="add", _id={"$ne": keyed["_id"]})
    set_(entries, of(other), idempotency_key=keyed["idempotency_key"])


@damages(Code.RUNNING_BALANCE)
def balance_after_changed(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=LAST, type="use")
    set_(db["credit_transactions"], of(entry), balance_after=Int64(1))
    rechain(db, LAST)


@damages(Code.RUNNING_BALANCE)
def credits_changed(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=8, type="add")
    set_(db["credit_transactions"], of(entry), credits=Int64(4000))
    rechain(db, 8)


@damages(Code.CHAIN)
def key_changed(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=8, type="add")
    set_(db["credit_transactions"], of(entry), idempotency_key="another")


@damages(Code.CHAIN)
def hash_removed(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=8, previous_hash={"$exists": True})
    db["credit_transactions"].update_one(of(entry), {"$unset": {"hash": "", "previous_hash": ""}})


@damages(Code.CHAIN)
def chain_begun_again(db: Database[Document]) -> None:
    document = one(db["credit_transactions"], user_id=8, previous_hash={"$exists": True})
    entry = TransactionDocument.model_validate(document).to_transaction()
    changed = {"$set": {"hash": hash_of(entry, GENESIS)}, "$unset": {"previous_hash": ""}}
    db["credit_transactions"].update_one(of(document), changed)


@damages(Code.CHAIN_HEAD)
def head_of_another_history(db: Database[Document]) -> None:
    set_(db["user_credits"], {"user_id": 8}, **{"balances.0.head": b"\1" * 33})


@damages(Code.CHAIN_HEAD)
def head_removed(db: Database[Document]) -> None:
    db["user_credits"].update_one({"user_id": 8}, {"$unset": {"balances.0.head": ""}})


@damages(Code.OVERDRAWN)
def use_without_credits(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=LAST, type="use")
    set_(db["credit_transactions"], of(entry), balance_after=Int64(-30))


@damages(Code.EFFECT)
def effect_changed(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=8, type="add")
    set_(db["credit_transactions"], of(entry), delta=Int64(1))


@damages(Code.ALLOCATION)
def allocation_changed(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=LAST, type="hold")
    set_(db["credit_transactions"], of(entry), **{"allocations.0.credits": Int64(1)})


@damages(Code.BURN_ORDER)
def burned_in_another_order(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=LAST, type="use")
    db["credit_transactions"].update_one(of(entry), {"$unset": {"allocations": ""}})


@damages(Code.GRANT_OVERDRAWN)
def expired_more_than_there_was(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], type="expire")
    more = Int64(entry["credits"] + 1000)
    changed = {"credits": more, "allocations.0.credits": more}
    set_(db["credit_transactions"], of(entry), **changed)


@damages(Code.HOLD_AFTER)
def held_after_changed(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=LAST, type="hold")
    set_(db["credit_transactions"], of(entry), held_after=Int64(7))


@damages(Code.LINK)
def link_to_nothing(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], type="refund")
    set_(db["credit_transactions"], of(entry), related_id=ObjectId())


@damages(Code.LINK)
def release_of_no_hold(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], type="extend")
    used = one(db["credit_transactions"], type="add", user_id=entry["user_id"])
    set_(db["credit_transactions"], of(entry), related_id=used["_id"])


@damages(Code.REVERSAL_TOTAL)
def reversal_changed(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], type="revoke")
    set_(db["credit_transactions"], of(entry), related_total=Int64(999))


@damages(Code.FINAL_STATE)
def result_changed(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], final_revision={"$exists": True})
    set_(db["credit_transactions"], of(entry), final_balance=Int64(123_456))


@damages(Code.TRANSFER)
def transfer_to_nobody(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], type="transfer_out")
    set_(db["credit_transactions"], of(entry), related_id=ObjectId())


# Purchases.


@damages(Code.PURCHASE_MISSING)
def purchase_removed(db: Database[Document]) -> None:
    db["purchases"].delete_one({"user_id": LAST})


@damages(Code.PURCHASE_UNPAID)
def purchase_added(db: Database[Document]) -> None:
    bought = one(db["purchases"], user_id=LAST)
    db["purchases"].insert_one({**bought, "_id": ObjectId(), "sequence": Int64(1)})


@damages(Code.PURCHASE_DIFFERS)
def price_changed(db: Database[Document]) -> None:
    set_(db["purchases"], {"user_id": LAST}, credits=Int64(1))


@damages(Code.PURCHASE_DIFFERS)
def purchase_of_another_transaction(db: Database[Document]) -> None:
    set_(db["purchases"], {"user_id": LAST}, transaction_id=ObjectId())


@damages(Code.FINGERPRINT)
def report_renamed(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=LAST, type="use")
    set_(db["credit_transactions"], of(entry), **{"fingerprint.report_id": "another"})


@damages(Code.REFUNDED)
def refund_forgotten(db: Database[Document]) -> None:
    bought = one(db["purchases"], refunded_credits={"$exists": True})
    db["purchases"].update_one(of(bought), {"$unset": {"refunded_credits": ""}})


@damages(Code.REFUNDED)
def refund_invented(db: Database[Document]) -> None:
    set_(db["purchases"], {"user_id": LAST}, refunded_credits=Int64(2))


# Apps, and documents of any kind.


@damages(Code.APP_TOTAL)
def total_changed(db: Database[Document]) -> None:
    db["app_totals"].update_one({"app_id": 2, "slot": 3}, {"$inc": {"total": Int64(1)}})


@damages(Code.APP_TOTAL)
def total_removed(db: Database[Document]) -> None:
    db["app_totals"].delete_many({"app_id": 1})


@damages(Code.ALERT_EVENT)
def event_of_another_balance(db: Database[Document]) -> None:
    event = one(db["alert_events"])
    set_(db["alert_events"], of(event), balance=Int64(12_345))


@damages(Code.DIRECTORY_DUPLICATE)
def external_id_twice(db: Database[Document]) -> None:
    db["directory"].drop_index("app_id_external_id")
    set_(db["directory"], {"_id": 8}, external_id="u-7")


@damages(Code.DIRECTORY_COUNTER)
def counter_behind(db: Database[Document]) -> None:
    set_(db["counters"], {"_id": "user_ids"}, last=Int64(8))


@damages(Code.SCHEMA)
def index_dropped(db: Database[Document]) -> None:
    db["credit_transactions"].drop_index("user_id_related_id_sequence")


@damages(Code.SCHEMA)
def user_index_dropped(db: Database[Document]) -> None:
    db["purchases"].drop_index("user_id_sequence")


@damages(Code.UNREADABLE)
def account_of_a_wrong_type(db: Database[Document]) -> None:
    set_(db["user_credits"], {"user_id": 8}, **{"balances.0.balance": "10"})


@damages(Code.UNREADABLE)
def account_without_balances(db: Database[Document]) -> None:
    db["user_credits"].update_one(
        {"user_id": 8}, {"$unset": {"balances": ""}}, bypass_document_validation=True
    )


@damages(Code.UNREADABLE)
def entry_of_a_wrong_type(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=7, type="add")
    set_(db["credit_transactions"], of(entry), credits=2.5)


@damages(Code.UNREADABLE)
def entry_of_an_unknown_kind(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=7, type="add")
    set_(db["credit_transactions"], of(entry), type="gift")


@damages(Code.UNREADABLE)
def entry_with_an_unknown_field(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=7, type="use")
    set_(db["credit_transactions"], of(entry), discount=Int64(1))


@damages(Code.UNREADABLE)
def entry_of_no_user(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=7, type="add")
    set_(db["credit_transactions"], of(entry), user_id="7")


@damages(Code.UNREADABLE)
def entry_of_a_year_without_a_name(db: Database[Document]) -> None:
    entry = one(db["credit_transactions"], user_id=7, type="add")
    far = {"$set": {"created_at": {"$toDate": Int64(10**15)}}}
    db["credit_transactions"].update_one(of(entry), [far], bypass_document_validation=True)


@damages(Code.UNREADABLE)
def purchase_without_a_price(db: Database[Document]) -> None:
    db["purchases"].update_one(
        {"user_id": LAST}, {"$unset": {"credits": ""}}, bypass_document_validation=True
    )


@damages(Code.UNREADABLE)
def policy_of_a_wrong_type(db: Database[Document]) -> None:
    set_(db["app_policies"], {"app_id": 1}, allow_negative="yes")


@damages(Code.UNREADABLE)
def grant_without_an_id(db: Database[Document]) -> None:
    db["user_credits"].update_one(
        {"user_id": LAST}, {"$unset": {"apps.0.grants.0.id": ""}}, bypass_document_validation=True
    )


# What necessarily comes with some damage, besides the finding that is its own.
FOLLOWS = {
    # A total is compared with the stored balances.
    Code.BALANCE: {Code.APP_TOTAL},
    Code.ACCOUNT_MISSING: {Code.APP_TOTAL},
    Code.ACCOUNT_DUPLICATE: {Code.APP_TOTAL, Code.SCHEMA},
    # Without the entries there is nothing that their purchases and transfers refer to.
    Code.HISTORY_MISSING: {Code.PURCHASE_UNPAID, Code.ALERT_EVENT, Code.TRANSFER},
    Code.SEQUENCE_GAP: {Code.PURCHASE_UNPAID, Code.ALERT_EVENT, Code.TRANSFER},
    Code.SEQUENCE_DUPLICATE: {Code.SCHEMA},
    Code.KEY_DUPLICATE: {Code.SCHEMA},
    Code.DIRECTORY_DUPLICATE: {Code.SCHEMA},
    # Another number in an entry is another sum, and another balance of the entries after it.
    Code.RUNNING_BALANCE: {Code.BALANCE, Code.FINAL_STATE, Code.REVERSAL_TOTAL},
    Code.OVERDRAWN: {Code.RUNNING_BALANCE},
    Code.EFFECT: {Code.RUNNING_BALANCE, Code.BALANCE, Code.FINAL_STATE, Code.BURN_ORDER},
    Code.ALLOCATION: {Code.BURN_ORDER, Code.GRANT_LEFT, Code.HOLD_TERMS},
    Code.BURN_ORDER: {Code.GRANT_LEFT, Code.HOLD_TERMS},
    Code.GRANT_OVERDRAWN: {
        Code.RUNNING_BALANCE, Code.BALANCE, Code.FINAL_STATE, Code.GRANT_LEFT, Code.BURN_ORDER,
        Code.OVERDRAWN, Code.DUE_TIME,
    },
    Code.LINK: {Code.REFUNDED, Code.REVERSAL_TOTAL, Code.HOLD_TERMS, Code.CAP_COUNTER},
    Code.REVERSAL_TOTAL: set(),
    # A second purchase of a sequence that has none.
    Code.PURCHASE_UNPAID: set(),
    Code.UNREADABLE: {
        Code.APP_TOTAL, Code.SEQUENCE_GAP, Code.PURCHASE_UNPAID, Code.PURCHASE_MISSING,
        Code.ALERT_EVENT,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "plant"),
    [pytest.param(code, plant, id=f"{code.value}-{name}") for code, name, plant in DAMAGE],
)
async def test_each_damage_is_found_by_its_own_code_and_corrected_if_it_can_be(
    ledger: Target, documents: Database[Document], code: Code, plant: Plant
) -> None:
    plant(documents)
    found = await check(ledger)
    assert found.counts[code] >= 1, found.findings
    # Damage to an entry also breaks the chain of hashes.
    expected = {code, Code.CHAIN, *FOLLOWS.get(code, ())}
    assert set(found.counts) <= expected, found.findings
    before = contents(documents)
    planned = await correct(ledger, found, replace(ORDER, apply=False))
    assert contents(documents) == before, "without apply nothing is written"
    done = await correct(ledger, found)
    # A total can be right again after the accounts are.
    assert [(each.user_id, each.findings) for each in done if each.user_id] == [
        (each.user_id, each.findings) for each in planned if each.user_id
    ]
    if not any(each.state is State.DONE for each in done):
        assert contents(documents) == before
        return
    entries = {each["_id"]: each for each in contents(documents)["credit_transactions"]}
    for entry in before["credit_transactions"]:
        assert entries[entry["_id"]] == entry, "history is only added to"
    if code.remedy is Remedy.REBUILD:
        assert all(each.state is State.DONE for each in done), done
        after = await check(ledger)
        assert code not in after.counts, after.findings


def test_each_code_has_damage_that_it_finds() -> None:
    assert {code for code, _, _ in DAMAGE} == set(Code)
