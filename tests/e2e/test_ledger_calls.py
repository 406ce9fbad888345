"""Each call of the contract on a real mongod, over a socket: accepted, rejected, and validated."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from credit_models import (
    AppId,
    AppPolicy,
    Balance,
    CreditTransaction,
    FindUserRequest,
    FindUserResponse,
    GetTransactionRequest,
    GetTransactionResponse,
    Purchase,
    UserCredits,
    UserId,
)
from credit_models.reasons import method_reasons, reason_name
from credit_server.store.mongo import MongoStore
from credit_testing.http2_client import Connection
from credit_testing.server import running_server
from grpclib.const import Status

from tests.server.callers import WireCaller, open_wire, reason_of, receipt_of
from tests.server.clocks import Clocks
from tests.server.provocations import LONG_AGO, UINT32_MAX
from tests.server.requests import PATHS, WRITES, prepared, request_of

USER = UserId(user_id=7)
PLAIN = ("AddCredits", "UseCredits")
# What makes the sound request of each write be rejected, and why.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "AddCredits": ({"min_available_after": UINT32_MAX}, "AVAILABLE_TOO_LOW"),
    "UseCredits": ({"credits": 51}, "INSUFFICIENT_CREDITS"),
    "GrantCredits": ({"expires_at": LONG_AGO}, "EXPIRES_TOO_EARLY"),
    "VoidGrant": ({"grant_id": "0" * 24}, "GRANT_NOT_FOUND"),
    "PlaceHold": ({"credits": 51}, "INSUFFICIENT_CREDITS"),
    "CaptureHold": ({"credits": 21}, "HOLD_EXCEEDED"),
    "ReleaseHold": ({"hold_id": "0" * 24}, "HOLD_NOT_FOUND"),
    "ExtendHold": ({"hold_id": "0" * 24}, "HOLD_NOT_FOUND"),
    "ReverseTransaction": ({"credits": 21}, "REVERSAL_EXCEEDS"),
    "TransferCredits": ({"credits": 51}, "INSUFFICIENT_CREDITS"),
    "AdjustBalance": ({"delta": -1}, "INSUFFICIENT_CREDITS"),
    "SetSpendingCap": ({"expected_revision": 99}, "REVISION_CHANGED"),
    "SetAppPolicy": ({"expected_revision": 99}, "REVISION_CHANGED"),
}


@pytest.fixture
async def store(mongod_uri: str, migrated_database: str) -> AsyncIterator[MongoStore]:
    store = MongoStore(mongod_uri, database=migrated_database, page_size=3)
    yield store
    await store.close()


@pytest.fixture
async def caller(store: MongoStore) -> AsyncIterator[WireCaller]:
    async with open_wire(store, clock=Clocks().clock()) as caller:
        yield caller


async def everything(caller: WireCaller) -> tuple[object, ...]:
    """Return all that the database has of user 7 and of the app."""
    return (
        (await caller.call("GetUserCredits", USER)).message(UserCredits),
        (await caller.call("ListUserTransactions", USER)).messages(CreditTransaction),
        (await caller.call("ListUserPurchases", USER)).messages(Purchase),
        (await caller.call("GetAppBalance", AppId(app_id=1))).message(Balance),
        (await caller.read("ListGrants")).grants,
        (await caller.read("ListHolds", include_settled=True)).holds,
        (await caller.read("GetForecast")).steps,
        (await caller.read("GetAppPolicy")).policy,
    )


@pytest.mark.parametrize("call", WRITES)
async def test_a_write_that_is_accepted_is_in_the_history(caller: WireCaller, call: str) -> None:
    receipt = receipt_of(call, await caller.call(call, await prepared(caller, call)))
    entries = (await caller.call("ListUserTransactions", USER)).messages(CreditTransaction)
    balance = (await caller.call("GetAppBalance", AppId(app_id=1, user_id=7))).message(Balance)
    assert [each.sequence for each in entries] == list(range(1, len(entries) + 1))
    assert receipt.transaction_id in {each.id for each in entries}
    own = [each for each in entries if each.app_id == 1]
    assert sum(each.effect for each in own) == own[-1].balance_after == balance.balance
    assert receipt.balance == balance.balance
    total = (await caller.call("GetAppBalance", AppId(app_id=1))).message(Balance)
    assert total.balance == balance.balance


@pytest.mark.parametrize("call", REFUSED)
async def test_a_write_that_is_rejected_changes_nothing(caller: WireCaller, call: str) -> None:
    changed, expected = REFUSED[call]
    request = replace(await prepared(caller, call), **changed)
    before = await everything(caller)
    answer = await caller.call(call, request)
    assert reason_of(answer) == expected
    assert expected in {reason_name(each) for each in method_reasons()[PATHS[call]]}
    assert await everything(caller) == before


@pytest.mark.parametrize("call", [call for call in WRITES if call not in PLAIN])
async def test_a_write_that_is_only_validated_changes_nothing(
    caller: WireCaller, call: str
) -> None:
    request = replace(await prepared(caller, call), idempotency_key="k")
    before = await everything(caller)
    preview = receipt_of(call, await caller.call(call, replace(request, validate_only=True)))
    assert await everything(caller) == before
    written = receipt_of(call, await caller.call(call, request))
    preview.transaction_id, preview.purchase_id = written.transaction_id, written.purchase_id
    assert written.hash
    assert preview == replace(written, validated=True, hash=b"")
    again = receipt_of(call, await caller.call(call, replace(request, validate_only=True)))
    assert again == replace(written, replayed=True)


async def test_a_policy_is_kept_and_a_validated_one_is_not(caller: WireCaller) -> None:
    preview = (await caller.read("SetAppPolicy", validate_only=True)).policy
    assert preview.revision == 1
    assert (await caller.read("GetAppPolicy")).policy == AppPolicy(app_id=1)
    stored = (await caller.read("SetAppPolicy")).policy
    assert (await caller.read("GetAppPolicy")).policy == stored
    caps = (await caller.read("SetSpendingCap", user_id=None)).policy
    assert (caps.revision, caps.allow_negative, caps.caps.per_day) == (2, True, 500)
    assert (await caller.read("GetAppPolicy")).policy == caps


OF_APPS = {"ListWebhooks", "ListDeadLetters", "ListCheckpoints"}
READS = (
    "GetUserCredits",
    "GetAppBalance",
    "ListUserPurchases",
    "ListUserTransactions",
    "GetAppPolicy",
    "GetSpendingCap",
    "ListGrants",
    "ListHolds",
    "GetForecast",
    "QueryTransactions",
    "QueryPurchases",
    "GetBalanceAt",
    "Summarize",
    "ListCheckpoints",
    "GetCheckpoint",
    "ListAlerts",
    "ListAlertEvents",
    "ListWebhooks",
    "ListDeadLetters",
)


@pytest.mark.parametrize("call", READS)
async def test_a_read_is_answered_and_a_broken_one_is_rejected(
    caller: WireCaller, call: str
) -> None:
    assert (await caller.call(call, request_of(call))).status is Status.OK
    field = "app_id" if call in {"GetAppBalance", "GetAppPolicy", *OF_APPS} else "user_id"
    broken = await caller.call(call, request_of(call, **{field: 0}))
    assert (broken.status, reason_of(broken)) == (Status.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_transaction_is_found_by_the_key_of_its_request(caller: WireCaller) -> None:
    request = replace(await prepared(caller, "AddCredits"), idempotency_key="k")
    await caller.call("AddCredits", request)
    entries = (await caller.call("ListUserTransactions", USER)).messages(CreditTransaction)
    by_key = await caller.read("GetTransaction")
    by_id = (
        await caller.call("GetTransaction", GetTransactionRequest(transaction_id=entries[-1].id))
    ).message(GetTransactionResponse)
    assert by_key.transaction == by_id.transaction == entries[-1]


async def test_a_user_is_found_by_the_text_of_an_app(caller: WireCaller) -> None:
    resolved = await caller.read("ResolveUser")
    assert await caller.read("ResolveUser") == replace(resolved, created=False)
    assert (await caller.read("FindUser")).user == resolved.user
    by_number = FindUserRequest(user_id=resolved.user.user_id)
    answer = (await caller.call("FindUser", by_number)).message(FindUserResponse)
    assert answer.user == resolved.user


def test_every_call_is_made_here() -> None:
    others = {"SetAppPolicy", "GetTransaction", "Watch", "BatchWrite", "Write"}
    others |= {"SetAlert", "RemoveAlert", "SetWebhook", "RemoveWebhook", "ResendDeadLetters"}
    others |= {"ResolveUser", "FindUser"}
    assert {*WRITES, *READS, *others} == set(PATHS)


async def test_an_alert_of_a_user_has_an_event_for_each_crossing(
    caller: WireCaller, store: MongoStore
) -> None:
    await caller.read("SetAlert")
    assert (await caller.read("SetAlert")).alerts == (await caller.read("ListAlerts")).user_alerts
    await caller.write("AddCredits", credits=50)
    used = [await caller.write("UseCredits", credits=credits_) for credits_ in (30, 1)]
    while await store.alert_events.order(1):
        pass
    (event,) = (await caller.read("ListAlertEvents")).events
    assert (event.transaction_id, event.balance, event.position) == (used[1].transaction_id, 19, 1)
    assert (await caller.read("RemoveAlert")).alerts == []


@pytest.mark.parametrize("around", ["BatchWrite/", "Write/"])
@pytest.mark.parametrize("call", WRITES)
async def test_an_operation_is_that_call(caller: WireCaller, call: str, around: str) -> None:
    request = replace(await prepared(caller, call), idempotency_key="k")
    changed, expected = REFUSED[call]
    refused = replace(request, idempotency_key="", **changed)
    assert reason_of(await caller.call(around + call, refused)) == expected
    receipt = receipt_of(around + call, await caller.call(around + call, request))
    alone = receipt_of(call, await caller.call(call, request))
    assert alone == replace(receipt, replayed=True)


async def test_a_server_of_its_own_serves_a_day_of_a_shop(
    store_options: list[str], tmp_path: Path
) -> None:
    """All calls on one user, on the server as an operator runs it."""
    async with running_server(tmp_path, *store_options) as process:
        host, _, port = process.address.rpartition(":")
        assert host == "127.0.0.1"
        async with Connection.connect(int(port)) as wire:
            caller = WireCaller(wire)
            await caller.write("AddCredits", credits=100)
            await caller.write("GrantCredits", credits=30, expires_after_seconds=1, priority=1)
            hold = await caller.write("PlaceHold", credits=10)
            held = hold.transaction_id
            await caller.write("CaptureHold", hold_id=held, credits=4, final=False)
            await caller.write("ExtendHold", hold_id=held)
            await caller.write("ReleaseHold", hold_id=held)
            used = await caller.write("UseCredits", credits=20)
            await caller.write("ReverseTransaction", transaction_id=used.transaction_id, credits=5)
            await caller.write("TransferCredits", to_user_id=8, credits=7)
            await caller.write("AdjustBalance", delta=-3)
            await caller.write("SetSpendingCap")
            voided = await caller.write("GrantCredits")
            await caller.write("VoidGrant", grant_id=voided.transaction_id)
            # The sweeper writes the end of the grant.
            while not (entries := await _expired(caller)):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.05)
            (expired,) = entries
            assert expired.effective_at is not None
            balance = (await caller.call("GetUserCredits", USER)).message(UserCredits).balances[0]
            found = (await caller.call("ListUserTransactions", USER)).messages(CreditTransaction)
            here = [each for each in found if each.app_id == 1]
            assert sum(each.effect for each in here) == balance.balance
            total = (await caller.call("GetAppBalance", AppId(app_id=1))).message(Balance)
            assert total.balance == balance.balance


async def _expired(caller: WireCaller) -> list[CreditTransaction]:
    entries = (await caller.call("ListUserTransactions", USER)).messages(CreditTransaction)
    return [each for each in entries if each.type.name == "EXPIRE"]
