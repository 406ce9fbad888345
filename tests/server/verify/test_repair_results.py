"""Test that a repair leaves a sound database, or refuses and reports what it leaves."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from bson.int64 import Int64
from credit_models.ledger import UINT32_MAX
from credit_server.verify import span_check
from credit_server.verify.correction import Correction, State
from credit_server.verify.findings import Code
from credit_server.verify.run import Target
from pymongo.database import Database

from tests.server.verify.checking import ORDER, check, contents, correct
from tests.server.verify.histories import LAST
from tests.server.verify.test_damage import (
    event_of_another_balance,
    key_twice,
    price_changed,
    rechain,
    transfer_to_nobody,
)

Document = dict[str, Any]  # values of BSON

KEEP_ACCOUNT = replace(ORDER, keeps_account=True)


def raise_balance(db: Database[Document], user_id: int, app_id: int, credits_: int) -> None:
    """Change the stored balance of a user by some credits."""
    changed = db["user_credits"].update_one(
        {"user_id": user_id, "balances.app_id": app_id},
        {"$inc": {"balances.$.balance": Int64(credits_)}},
        bypass_document_validation=True,
    )
    assert changed.modified_count == 1


def raise_total(db: Database[Document], app_id: int, credits_: int) -> None:
    """Change the stored total of an app by some credits."""
    db["app_totals"].update_one(
        {"app_id": Int64(app_id), "slot": Int64(3)},
        {"$inc": {"total": Int64(credits_)}},
        upsert=True,
    )


def balance(db: Database[Document], user_id: int, app_id: int) -> int:
    """Return the stored balance of a user."""
    account = db["user_credits"].find_one({"user_id": user_id})
    assert account is not None
    return int(next(e["balance"] for e in account["balances"] if e["app_id"] == app_id))


def states(corrections: list[Correction]) -> dict[tuple[int, int], list[tuple[str, State]]]:
    """Return the findings of corrections, each with its state, by user and app."""
    found: dict[tuple[int, int], list[tuple[str, State]]] = {}
    for each in corrections:
        place = found.setdefault((each.user_id, each.app_id), [])
        place += [(name, each.state) for name in each.findings]
    return found


# Totals.


@pytest.mark.parametrize("order", [ORDER, KEEP_ACCOUNT], ids=["history", "account"])
@pytest.mark.parametrize("with_total", [True, False], ids=["total follows", "total is right"])
async def test_a_total_is_the_sum_of_the_balances_after_an_account_is_corrected(
    ledger: Target, documents: Database[Document], order: Any, with_total: bool
) -> None:
    raise_balance(documents, LAST, 2, 50)
    if with_total:
        raise_total(documents, 2, 50)
    found = await check(ledger)
    assert (Code.APP_TOTAL in found.counts) is not with_total
    planned = await correct(ledger, found, replace(order, apply=False))
    assert states(planned)[0, 2] == [("app-total", State.PLANNED)]
    assert all(each.state is State.DONE for each in await correct(ledger, found, order))
    assert (await check(ledger)).findings == []


async def test_a_total_is_refused_if_a_balance_in_the_app_cannot_be_corrected(
    ledger: Target, documents: Database[Document]
) -> None:
    documents["credit_transactions"].delete_one({"user_id": 7, "sequence": 4})
    raise_balance(documents, 7, 2, 30)
    before = contents(documents)["app_totals"]
    corrections = await correct(ledger, await check(ledger))
    assert states(corrections)[0, 2] == [("app-total", State.REFUSED)]
    assert contents(documents)["app_totals"] == before


async def test_totals_follow_an_unreadable_account_that_is_rebuilt(
    ledger: Target, documents: Database[Document]
) -> None:
    extra = {"app_id": Int64(77), "balance": Int64(5)}
    documents["user_credits"].update_one(
        {"user_id": LAST},
        {"$push": {"balances": extra}, "$set": {"surprise": True}},
        bypass_document_validation=True,
    )
    raise_total(documents, 77, 5)
    found = await check(ledger)
    assert set(found.counts) == {Code.UNREADABLE}
    assert all(each.state is State.DONE for each in await correct(ledger, found))
    assert (await check(ledger)).findings == []


# Balances without entries in the app.


async def test_a_kept_balance_without_entries_in_its_app_gets_an_entry(
    ledger: Target, documents: Database[Document]
) -> None:
    extra = {"app_id": Int64(77), "balance": Int64(5)}
    documents["user_credits"].update_one({"user_id": LAST}, {"$push": {"balances": extra}})
    await correct(ledger, await check(ledger), KEEP_ACCOUNT)
    assert balance(documents, LAST, 77) == 5
    entry = documents["credit_transactions"].find_one({"user_id": LAST, "app_id": 77})
    assert entry is not None
    assert (entry["type"], entry["delta"], entry["balance_after"]) == ("adjust", 5, 5)
    assert (await check(ledger)).findings == []


# What is left.


async def test_more_findings_than_a_report_shows_are_corrected(
    ledger: Target, documents: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_check, "SHOWN_MAX", 1)
    for user_id in (7, 8, 9, LAST):
        raise_balance(documents, user_id, 2, 11)
    found = await check(ledger)
    assert len([each for each in found.findings if each.code is Code.BALANCE]) == 1
    done = await correct(ledger, found)
    assert [each.user_id for each in done if each.user_id] == [7, 8, 9, LAST]
    assert (await check(ledger)).findings == []


@pytest.mark.parametrize(
    ("code", "plant"),
    [
        (Code.TRANSFER, transfer_to_nobody),
        (Code.ALERT_EVENT, event_of_another_balance),
        (Code.KEY_DUPLICATE, key_twice),
        (Code.PURCHASE_DIFFERS, price_changed),
    ],
)
@pytest.mark.parametrize("with_balance", [False, True], ids=["alone", "with a balance"])
async def test_a_finding_that_repair_cannot_correct_is_refused_also_beside_one_that_it_corrects(
    ledger: Target,
    documents: Database[Document],
    code: Code,
    plant: Callable[[Database[Document]], None],
    with_balance: bool,
) -> None:
    plant(documents)
    for user_id in (7, 8, 9):
        rechain(documents, user_id)
    users = {user_id for user_id, _ in (await check(ledger)).places[code]}
    if with_balance:
        for user_id in users:
            raise_balance(documents, user_id, 2, 11)
    done = states(await correct(ledger, await check(ledger)))
    for user_id in users:
        assert (code.value, State.REFUSED) in done[user_id, 0]
        assert (("balance", State.DONE) in done[user_id, 0]) is with_balance
    assert {code, Code.SCHEMA} >= (await check(ledger)).counts.keys()


async def test_a_finding_that_is_gone_is_not_refused(
    ledger: Target, documents: Database[Document]
) -> None:
    raise_balance(documents, LAST, 2, 11)
    found = await check(ledger)
    await correct(ledger, found)
    assert await correct(ledger, found) == []


# Marks.


@pytest.mark.parametrize("order", [ORDER, KEEP_ACCOUNT], ids=["history", "account"])
async def test_each_app_with_a_wrong_running_balance_gets_an_entry(
    ledger: Target, documents: Database[Document], order: Any
) -> None:
    entries = documents["credit_transactions"]
    for app_id in (1, 2):
        last = entries.find_one({"user_id": 8, "app_id": app_id}, sort=[("sequence", -1)])
        assert last is not None
        changed = {"$inc": {"balance_after": Int64(3)}}
        entries.update_one({"_id": last["_id"]}, changed, bypass_document_validation=True)
    rechain(documents, 8)
    raise_balance(documents, 8, 1, 9)
    found = await check(ledger)
    assert found.places[Code.RUNNING_BALANCE] == {(8, 1), (8, 2)}
    done = await correct(ledger, found, order)
    assert {each.state for each in done if each.user_id == 8} == {State.DONE}
    assert Code.RUNNING_BALANCE not in (await check(ledger)).counts
    adjusted = entries.find({"user_id": 8, "metadata.name": "repair"})
    assert sorted(each["app_id"] for each in adjusted) == [1, 2]


# Users that cannot be corrected.


def effects_past_uint32(db: Database[Document]) -> None:
    added = db["credit_transactions"].find({"user_id": 7, "app_id": 1, "type": "add"}).limit(2)
    for entry in list(added):
        changed = {"$set": {"credits": Int64(UINT32_MAX)}}
        db["credit_transactions"].update_one({"_id": entry["_id"]}, changed)
    rechain(db, 7)


def user_id_of_64_bits(db: Database[Document]) -> None:
    greatest = {"$set": {"user_id": Int64(2**63 - 1)}}
    db["credit_transactions"].update_one(
        {"user_id": 7, "sequence": 4}, greatest, bypass_document_validation=True
    )


def purchase_of_another_user(db: Database[Document]) -> None:
    db["purchases"].find_one_and_update(
        {"user_id": 7}, {"$set": {"user_id": Int64(6)}}, sort=[("sequence", -1)]
    )


@pytest.mark.parametrize(
    "plant", [effects_past_uint32, user_id_of_64_bits, purchase_of_another_user]
)
@pytest.mark.parametrize("order", [ORDER, KEEP_ACCOUNT], ids=["history", "account"])
async def test_a_user_that_cannot_be_corrected_does_not_end_the_repair(
    ledger: Target,
    documents: Database[Document],
    plant: Callable[[Database[Document]], None],
    order: Any,
) -> None:
    plant(documents)
    raise_balance(documents, LAST, 2, 11)
    found = await check(ledger)
    for each in (replace(order, apply=False), order):
        done = states(await correct(ledger, found, each))
        assert {state for _, state in done[7, 0]} == {State.REFUSED}
        expected = State.DONE if each.apply else State.PLANNED
        assert ("balance", expected) in done[LAST, 0]


# Alerts.


async def test_an_entry_that_crosses_alerts_of_the_user_and_of_the_app_has_their_events(
    ledger: Target, documents: Database[Document]
) -> None:
    before = {each["_id"] for each in documents["alert_events"].find()}
    raise_balance(documents, LAST, 2, 300 - balance(documents, LAST, 2))
    debtor = next(user_id for user_id in (7, 8, 9) if balance(documents, user_id, 1) >= 40)
    # The policy of the app lets adjustments leave a debt.
    raise_balance(documents, debtor, 1, -100 - balance(documents, debtor, 1))
    await correct(ledger, await check(ledger), KEEP_ACCOUNT)
    events = [each for each in documents["alert_events"].find() if each["_id"] not in before]
    crossed = {(each["user_id"], each["app_id"], each["alert"]["credits"]) for each in events}
    assert {(LAST, 2, 500), (debtor, 1, 40)} <= crossed
    assert all(each["unordered"] for each in events)
    assert (await check(ledger)).findings == []
