"""The six calls, as a client sees them on the wire."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest
from credit_models import (
    AppId,
    Balance,
    CreditRequest,
    CreditTransaction,
    Empty,
    Purchase,
    PurchaseRequest,
    Receipt,
    TransactionType,
    UserCredits,
    UserId,
)
from credit_models.codec import decode, encode
from credit_server.admission.list_slots import ListSlots
from credit_server.http2.limits import ConnectionLimits
from credit_server.store.memory import MemoryStore
from credit_server.store.port import Rejected
from credit_testing.calls import SERVICE, Answer, call_headers, framed
from credit_testing.http2_client import Connection
from credit_testing.stores import EndlessStore, FailingStore, GatedStore
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpclib.const import Status

from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.serving import serving, until

UINT32_MAX = 2**32 - 1


def _add(amount: int = 120, *, user: int = 7, app: int = 1, key: str = "") -> CreditRequest:
    return CreditRequest(
        user_id=user, app_id=app, credits=amount, created_by=9, idempotency_key=key
    )


def _use(amount: int = 30, *, report: str = "r-1", key: str = "") -> PurchaseRequest:
    return PurchaseRequest(
        user_id=7,
        app_id=1,
        report_id=report,
        report_name="Äpfel & Birnen 🍐",
        credits=amount,
        created_by=9,
        idempotency_key=key,
    )


def _receipt(answer: Answer) -> Receipt:
    assert answer.message(Empty) == Empty()
    return decode(Receipt, answer.binary("credit-receipt-bin"))


async def test_a_write_that_cannot_be_written_is_an_internal_error() -> None:
    # Not STORE_UNAVAILABLE: a client would retry a write that fails every time.
    failing = FailingStore(Rejected("no such document"))
    async with serving(failing) as served, Connection.connect(served.port) as wire:
        answer = await wire.call("AddCredits", _add())
    assert answer.status is Status.INTERNAL
    assert "document" not in answer.metadata["grpc-message"]


async def test_added_credits_are_in_the_receipt(wire: Connection) -> None:
    receipt = _receipt(await wire.call("AddCredits", _add()))
    assert receipt.transaction_id
    assert (receipt.purchase_id, receipt.balance) == ("", 120)
    assert (receipt.sequence, receipt.replayed) == (1, False)


async def test_the_receipt_travels_in_the_trailers(wire: Connection) -> None:
    answer = await wire.call("AddCredits", _add())
    assert "credit-receipt-bin" in answer.trailers
    assert "credit-receipt-bin" not in answer.headers
    assert answer.headers["content-type"] == "application/grpc+proto"


async def test_a_purchase_is_in_the_receipt(wire: Connection) -> None:
    await wire.call("AddCredits", _add())
    receipt = _receipt(await wire.call("UseCredits", _use()))
    assert receipt.purchase_id
    assert receipt.purchase_id != receipt.transaction_id
    assert (receipt.balance, receipt.sequence, receipt.replayed) == (90, 2, False)


async def test_the_same_key_gets_the_first_answer_again(wire: Connection) -> None:
    first = _receipt(await wire.call("AddCredits", _add(key="k")))
    await wire.call("AddCredits", _add(5))
    again = _receipt(await wire.call("AddCredits", _add(key="k")))
    assert (first.replayed, again.replayed) == (False, True)
    first.replayed = True
    assert again == first
    total = (await wire.call("GetAppBalance", AppId(app_id=1))).message(Balance)
    assert total.balance == 125


async def test_a_purchase_with_the_same_key_is_made_once(wire: Connection) -> None:
    await wire.call("AddCredits", _add())
    first = _receipt(await wire.call("UseCredits", _use(key="k")))
    again = _receipt(await wire.call("UseCredits", _use(key="k")))
    assert again.replayed
    assert (again.transaction_id, again.purchase_id) == (first.transaction_id, first.purchase_id)
    assert len((await wire.call("ListUserPurchases", UserId(user_id=7))).messages(Purchase)) == 1


@pytest.mark.parametrize(
    "key",
    ["k\r", " k", "k\u00a0", "k\u200b", "\ufeffk", "k\0", "e\u0301", "k\ufe0f", "k\U000e0fff"],
    ids=ascii,
)
async def test_a_key_that_looks_like_another_one_is_rejected_and_adds_nothing(
    wire: Connection, key: str
) -> None:
    answer = await wire.call("AddCredits", _add(key=key))
    assert answer.status is Status.INVALID_ARGUMENT
    info, broken = answer.details
    assert isinstance(info, ErrorInfo)
    assert isinstance(broken, BadRequest)
    assert info.reason == "INVALID_FIELD"
    assert [one.field for one in broken.field_violations] == ["idempotency_key"]
    total = (await wire.call("GetAppBalance", AppId(app_id=1))).message(Balance)
    assert total.balance == 0


async def test_a_report_needs_an_id_and_a_name_that_can_be_seen(wire: Connection) -> None:
    await wire.call("AddCredits", _add())
    for report, name in (("   ", "Report"), ("r-1", "   "), ("r-1", "\u200b"), ("r\u200b1", "R")):
        request = replace(_use(report=report), report_name=name)
        answer = await wire.call("UseCredits", request)
        assert answer.status is Status.INVALID_ARGUMENT
    assert (await wire.call("ListUserPurchases", UserId(user_id=7))).messages(Purchase) == []


async def test_calls_without_a_key_are_all_new(wire: Connection) -> None:
    receipts = [_receipt(await wire.call("AddCredits", _add())) for _ in range(3)]
    assert [receipt.balance for receipt in receipts] == [120, 240, 360]
    assert len({receipt.transaction_id for receipt in receipts}) == 3


async def test_a_users_balances_come_by_ascending_app(wire: Connection) -> None:
    for app in (3, 1, 2):
        await wire.call("AddCredits", _add(10 * app, app=app))
    holdings = (await wire.call("GetUserCredits", UserId(user_id=7))).message(UserCredits)
    assert holdings.balances == [Balance(app_id=app, balance=10 * app) for app in (1, 2, 3)]
    assert (holdings.user_id, holdings.revision) == (7, 3)
    assert (holdings.created_by, holdings.updated_by) == (9, 9)
    assert holdings.id
    assert holdings.created_at is not None
    assert holdings.updated_at is not None
    assert holdings.created_at <= holdings.updated_at


async def test_an_unknown_user_holds_nothing(wire: Connection) -> None:
    holdings = (await wire.call("GetUserCredits", UserId(user_id=7))).message(UserCredits)
    assert holdings == UserCredits(user_id=7)


async def test_an_unknown_app_holds_nothing(wire: Connection) -> None:
    balance = (await wire.call("GetAppBalance", AppId(app_id=5))).message(Balance)
    assert balance == Balance(app_id=5, balance=0)


async def test_an_unknown_user_has_a_balance_of_nothing(wire: Connection) -> None:
    balance = (await wire.call("GetAppBalance", AppId(app_id=5, user_id=8))).message(Balance)
    assert balance == Balance(app_id=5, balance=0)


async def test_an_apps_balance_is_the_sum_over_its_users(wire: Connection) -> None:
    await wire.call("AddCredits", _add(100, user=7))
    await wire.call("AddCredits", _add(20, user=8))
    await wire.call("AddCredits", _add(3, user=8, app=2))
    assert (await wire.call("GetAppBalance", AppId(app_id=1))).message(Balance).balance == 120


async def test_an_apps_balance_of_one_user_is_that_users_own(wire: Connection) -> None:
    await wire.call("AddCredits", _add(100, user=7))
    await wire.call("AddCredits", _add(20, user=8))
    answer = await wire.call("GetAppBalance", AppId(app_id=1, user_id=8))
    assert answer.message(Balance) == Balance(app_id=1, balance=20, revision=1)


async def test_the_greatest_sum_is_shown_and_one_more_is_not(wire: Connection) -> None:
    await wire.call("AddCredits", _add(UINT32_MAX - 1, user=7))
    await wire.call("AddCredits", _add(1, user=8))
    assert (await wire.call("GetAppBalance", AppId(app_id=1))).message(Balance) == Balance(
        app_id=1, balance=UINT32_MAX
    )
    await wire.call("AddCredits", _add(1, user=8))
    answer = await wire.call("GetAppBalance", AppId(app_id=1))
    assert answer.status is Status.OUT_OF_RANGE
    single = await wire.call("GetAppBalance", AppId(app_id=1, user_id=7))
    assert single.message(Balance).balance == UINT32_MAX - 1


async def test_transactions_come_oldest_first_over_all_pages() -> None:
    async with serving(MemoryStore(page_size=2)) as served, Connection.connect(served.port) as wire:
        await wire.call("AddCredits", _add(100, key="k"))
        for _ in range(4):
            await wire.call("UseCredits", _use(10))
        answer = await wire.call("ListUserTransactions", UserId(user_id=7))
    entries = answer.messages(CreditTransaction)
    assert answer.status is Status.OK
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.balance_after for entry in entries] == [100, 90, 80, 70, 60]
    assert [entry.type for entry in entries] == [TransactionType.ADD] + [TransactionType.USE] * 4
    assert [entry.idempotency_key for entry in entries] == ["k", "", "", "", ""]
    assert [bool(entry.purchase_id) for entry in entries] == [False, True, True, True, True]


async def test_purchases_come_oldest_first_over_all_pages() -> None:
    async with serving(MemoryStore(page_size=2)) as served, Connection.connect(served.port) as wire:
        await wire.call("AddCredits", _add(100))
        reports = [f"r-{number}" for number in (3, 1, 2)]
        receipts = [
            _receipt(await wire.call("UseCredits", _use(10, report=report))) for report in reports
        ]
        answer = await wire.call("ListUserPurchases", UserId(user_id=7))
    purchases = answer.messages(Purchase)
    assert answer.status is Status.OK
    assert [purchase.report_id for purchase in purchases] == reports
    assert [purchase.id for purchase in purchases] == [receipt.purchase_id for receipt in receipts]
    assert [purchase.transaction_id for purchase in purchases] == [
        receipt.transaction_id for receipt in receipts
    ]
    assert {purchase.report_name for purchase in purchases} == {"Äpfel & Birnen 🍐"}


async def test_more_lists_than_run_at_once_are_all_answered() -> None:
    limits = ConnectionLimits(lists_max=2)
    store = MemoryStore(page_size=1)
    async with (
        serving(store, connections=limits) as served,
        Connection.connect(served.port) as wire,
    ):
        for _ in range(3):
            await wire.call("AddCredits", _add())
        answers = await asyncio.gather(
            *(wire.call("ListUserTransactions", UserId(user_id=7)) for _ in range(16))
        )
    assert [len(answer.messages(CreditTransaction)) for answer in answers] == [3] * 16
    assert {answer.trailers["grpc-status"] for answer in answers} == {"0"}


async def test_a_cancelled_list_leaves_its_slot_to_the_next() -> None:
    limits = ConnectionLimits(lists_max=1)
    async with (
        serving(EndlessStore(), connections=limits) as served,
        Connection.connect(served.port, window=200) as wire,
    ):
        await wire.call("AddCredits", _add())
        path, question = SERVICE + "ListUserTransactions", framed(encode(UserId(user_id=7)))
        streams = [wire.begin(call_headers(path), question) for _ in range(3)]
        (first, running), (second, waiting), (_, last) = streams
        await running.begun()
        for given_up in (second, first):
            wire.reset(given_up)
        await last.begun()
        assert last.data
        assert not waiting.data


@pytest.mark.parametrize("method", ["ListUserTransactions", "ListUserPurchases"])
@pytest.mark.parametrize("after", [0, 1, 3, 4, 5, 6, 2**63 - 1])
async def test_a_list_starts_after_the_sequence_that_is_asked_for(method: str, after: int) -> None:
    async with serving(MemoryStore(page_size=2)) as served, Connection.connect(served.port) as wire:
        await wire.call("AddCredits", _add(100))
        for _ in range(4):
            await wire.call("UseCredits", _use(10))
        answer = await wire.call(method, UserId(user_id=7, after_sequence=after))
    assert answer.status is Status.OK
    if method == "ListUserTransactions":
        first, listed = 1, [entry.sequence for entry in answer.messages(CreditTransaction)]
    else:
        first, listed = 2, [entry.sequence for entry in answer.messages(Purchase)]
    assert listed == list(range(max(first, after + 1), 6))


@pytest.mark.parametrize("method", ["ListUserTransactions", "ListUserPurchases", "GetUserCredits"])
async def test_a_sequence_beyond_the_range_is_rejected(wire: Connection, method: str) -> None:
    answer = await wire.call(method, UserId(user_id=7, after_sequence=2**63))
    assert answer.status is Status.INVALID_ARGUMENT
    assert "after_sequence" in answer.sentence


async def test_a_users_credits_are_the_same_after_any_sequence(wire: Connection) -> None:
    await wire.call("AddCredits", _add())
    answers = [
        await wire.call("GetUserCredits", UserId(user_id=7, after_sequence=after))
        for after in (0, 1, 2**63 - 1)
    ]
    whole, *others = [answer.message(UserCredits) for answer in answers]
    assert whole.balances
    assert others == [whole, whole]


async def test_a_caller_that_reads_nothing_does_not_hold_up_others_on_its_connection() -> None:
    """A proxy sends the calls of many callers over one connection."""
    tokens = FakeAuthenticator(
        {name: replace(EVERYTHING, name=name) for name in ("greedy", "modest")}
    )
    greedy, modest = [("authorization", f"Bearer {name}") for name in ("greedy", "modest")]
    path, question = SERVICE + "ListUserTransactions", framed(encode(UserId(user_id=7)))
    async with (
        serving(
            EndlessStore(), connections=ConnectionLimits(lists_max=2), authenticator=tokens
        ) as served,
        Connection.connect(served.port, window=200) as wire,
    ):
        await wire.call("AddCredits", _add(), greedy)
        lists = [wire.begin(call_headers(path, greedy), question)[1] for _ in range(3)]
        for running in lists[:2]:
            await running.begun()
        for answer in await asyncio.gather(
            *(
                wire.call("ListUserPurchases", UserId(user_id=8), modest, ("grpc-timeout", "60S"))
                for _ in range(9)
            )
        ):
            assert answer.status is Status.OK
        assert not lists[2].headers, "the greedy caller's third list waits for its other two"


def _differs(asked: list[int], length: int) -> bool:
    return len(asked) != length


@pytest.mark.parametrize("identified", [True, False], ids=["identities", "addresses"])
async def test_a_caller_with_many_lists_does_not_keep_another_callers_list_waiting(
    identified: bool,
) -> None:
    store, slots = GatedStore(), ListSlots(at_once=2, wait_seconds_max=3600.0)
    tokens = FakeAuthenticator(
        {name: replace(EVERYTHING, name=name) for name in ("greedy", "modest")}
    )
    greedy, modest = [("authorization", f"Bearer {name}") for name in ("greedy", "modest")]
    # Identities share an address, as behind a proxy; without identities the address counts.
    address = "127.0.0.1" if identified else "127.0.0.2"
    async with (
        serving(store, authenticator=tokens if identified else None, list_slots=slots) as served,
        Connection.connect(served.port) as many,
        Connection.connect(served.port, source=address) as one,
    ):
        await many.call("AddCredits", _add(user=8), greedy)
        lists = [
            asyncio.create_task(many.call("ListUserTransactions", UserId(user_id=7), greedy))
            for _ in range(9)
        ]
        await until(lambda: sum(map(len, slots._waiting.values())) == 7)
        wanted = asyncio.create_task(one.call("ListUserTransactions", UserId(user_id=8), modest))
        await until(lambda: sum(map(len, slots._waiting.values())) == 8)
        assert store.asked == [7, 7]
        for _ in range(2):
            asked = len(store.asked)
            store.allowed.release()
            await until(partial(_differs, store.asked, asked))
        assert store.asked == [7, 7, 7, 8], "the other caller's list is not behind all nine"
        for _ in range(20):
            store.allowed.release()
        assert len((await wanted).messages(CreditTransaction)) == 1
        assert {answer.status for answer in await asyncio.gather(*lists)} == {Status.OK}


async def test_an_empty_list_has_headers_and_ends_well(wire: Connection) -> None:
    for method in ("ListUserPurchases", "ListUserTransactions"):
        answer = await wire.call(method, UserId(user_id=7))
        assert answer.headers[":status"] == "200"
        assert "grpc-status" not in answer.headers
        assert (answer.trailers["grpc-status"], bytes(answer.data)) == ("0", b"")


async def test_other_users_entries_are_not_listed(wire: Connection) -> None:
    await wire.call("AddCredits", _add(user=8))
    answer = await wire.call("ListUserTransactions", UserId(user_id=7))
    assert answer.messages(CreditTransaction) == []
