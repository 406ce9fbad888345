"""`HistoryService`, as a client sees it on the wire."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from credit_models import (
    CreditTransaction,
    GetTransactionRequest,
    GetTransactionResponse,
    QueryTransactionsRequest,
    QueryTransactionsResponse,
    TransactionType,
    UserId,
)
from credit_models.codec import encode
from credit_server.admission.list_slots import ListSlots
from credit_server.api import history_service
from credit_server.api.page_token import make_token
from credit_server.store.memory import MemoryStore
from credit_server.store.port import TransactionPage, TransactionQuery
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpclib.const import Status

from tests.server.callers import WireCaller, open_wire, reason_of
from tests.server.clocks import NOON, Clocks
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.requests import ANY_ID, request_of
from tests.server.serving import until

ONE = replace(EVERYTHING, name="one", apps=frozenset({1}))
OTHER = replace(ONE, name="other")
TWO = replace(EVERYTHING, name="two", apps=frozenset({2}))


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
async def caller(clocks: Clocks) -> AsyncIterator[WireCaller]:
    async with open_wire(clock=clocks.clock()) as caller:
        yield caller


# Any, here and below: the fields of requests have many types.
async def page(caller: WireCaller, **changed: Any) -> QueryTransactionsResponse:
    answer = await caller.call("QueryTransactions", query(**changed))
    return answer.message(QueryTransactionsResponse)


def query(**changed: Any) -> QueryTransactionsRequest:
    found = QueryTransactionsRequest(user_id=7)
    return replace(found, **changed)


async def sequences(caller: WireCaller, **changed: Any) -> list[int]:
    return [each.sequence for each in (await page(caller, **changed)).transactions]


async def add(caller: WireCaller, number: int, **changed: Any) -> None:
    for _ in range(number):
        await caller.write("AddCredits", **changed)


def broken(answer: Any) -> set[str]:
    return {
        violation.field
        for detail in answer.details
        if isinstance(detail, BadRequest)
        for violation in detail.field_violations
    }


class TestQueryTransactions:
    """Pages of a user's transactions."""

    async def test_the_newest_come_first(self, caller: WireCaller) -> None:
        await add(caller, 3)
        assert await sequences(caller) == [3, 2, 1]
        assert await sequences(caller, oldest_first=True) == [1, 2, 3]

    async def test_a_row_is_what_a_list_has(self, caller: WireCaller) -> None:
        await caller.write("GrantCredits", metadata={"order": "42"}, note="a gift")
        await caller.write("UseCredits", credits=20)
        listed = await caller.call("ListUserTransactions", UserId(user_id=7))
        found = await page(caller, oldest_first=True)
        assert found.transactions == listed.messages(CreditTransaction)
        assert found.transactions[-1].report_name == "Report"

    async def test_pages_continue_where_the_one_before_ended_while_rows_are_written(
        self, caller: WireCaller
    ) -> None:
        await add(caller, 5)
        first = await page(caller, page_size=2)
        await add(caller, 2)
        second = await page(caller, page_size=2, page_token=first.next_page_token)
        third = await page(caller, page_size=2, page_token=second.next_page_token)
        seen = [each.sequence for part in (first, second, third) for each in part.transactions]
        assert seen == [5, 4, 3, 2, 1]
        assert third.next_page_token == ""

    async def test_the_oldest_first_include_what_is_written_meanwhile(
        self, caller: WireCaller
    ) -> None:
        await add(caller, 3)
        first = await page(caller, page_size=2, oldest_first=True)
        await add(caller, 1)
        token = first.next_page_token
        assert await sequences(caller, oldest_first=True, page_token=token) == [3, 4]

    async def test_a_page_has_100_rows_and_at_most_1000(self, caller: WireCaller) -> None:
        await add(caller, 101)
        assert len(await sequences(caller)) == 100
        whole = await page(caller, page_size=2**32 - 1)
        assert (len(whole.transactions), whole.next_page_token) == (101, "")

    async def test_a_user_without_history_has_an_empty_last_page(self, caller: WireCaller) -> None:
        assert await page(caller) == QueryTransactionsResponse()

    async def test_filters_are_applied_together(self, caller: WireCaller, clocks: Clocks) -> None:
        await add(caller, 2, credits=50)
        clocks.advance(60)
        await caller.write("UseCredits", credits=20, report_id="a", created_by=4)
        await caller.write("UseCredits", credits=30, report_id="b")
        await caller.write("AddCredits", app_id=2)
        minute = NOON + timedelta(minutes=1)
        use = [TransactionType.USE]
        assert await sequences(caller, types=use) == [4, 3]
        assert await sequences(caller, types=[*use, TransactionType.ADD], app_id=2) == [5]
        assert await sequences(caller, created_from=minute) == [5, 4, 3]
        assert await sequences(caller, created_until=minute) == [2, 1]
        assert await sequences(caller, after_sequence=1, before_sequence=4) == [3, 2]
        assert await sequences(caller, credits_min=30, credits_max=49) == [4]
        assert await sequences(caller, report_id="a") == [3]
        assert await sequences(caller, created_by=4) == [3]
        assert await sequences(caller, created_by=4, report_id="b") == []

    async def test_all_that_happened_to_a_hold_is_found(self, caller: WireCaller) -> None:
        await caller.write("AddCredits")
        hold = (await caller.write("PlaceHold", credits=20)).transaction_id
        await caller.write("AddCredits")
        await caller.write("CaptureHold", hold_id=hold)
        found = await page(caller, related_id=hold)
        assert [each.type for each in found.transactions] == [
            TransactionType.USE,
            TransactionType.RELEASE,
        ]

    async def test_all_that_spent_a_grant_is_found(self, caller: WireCaller) -> None:
        await caller.write("AddCredits")
        # A grant without an end and a priority is not one of its own.
        grant = (await caller.write("GrantCredits", priority=1)).transaction_id
        used = (await caller.write("UseCredits", credits=60)).transaction_id
        found = await page(caller, grant_id=grant, types=[TransactionType.USE])
        assert [each.id for each in found.transactions] == [used]

    async def test_metadata_are_compared_as_pairs(self, caller: WireCaller) -> None:
        await caller.write("GrantCredits", metadata={"order": "42", "shop": "a"})
        await caller.write("GrantCredits", metadata={"order": "a", "shop": "42"})
        assert await sequences(caller, metadata={"order": "42"}) == [1]
        assert await sequences(caller, metadata={"order": "42", "shop": "42"}) == []

    @pytest.mark.parametrize("types", [[0], [TransactionType.ADD, 999]])
    async def test_an_unknown_type_is_rejected(self, caller: WireCaller, types: list[int]) -> None:
        request = query(types=[TransactionType(each) for each in types])
        answer = await caller.call("QueryTransactions", request)
        assert (answer.status, broken(answer)) == (Status.INVALID_ARGUMENT, {"types"})


class GatedQueries(MemoryStore):
    """Answers a query when the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.allowed = asyncio.Semaphore(0)

    async def query_transactions(self, query: TransactionQuery) -> TransactionPage:
        self.asked += 1
        await self.allowed.acquire()
        return await super().query_transactions(query)


async def test_a_page_has_no_more_bytes_than_clients_accept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history_service, "_PAGE_BYTES_MAX", 500)
    async with open_wire() as caller:
        await add(caller, 9)
        found: list[int] = []
        token = ""
        while not found or token:
            answer = await page(caller, page_token=token)
            assert 0 < len(encode(answer)) < 700
            found += [row.sequence for row in answer.transactions]
            token = answer.next_page_token
        assert found == [*range(9, 0, -1)]
        monkeypatch.setattr(history_service, "_PAGE_BYTES_MAX", 1)
        assert await sequences(caller) == [9]


async def test_pages_take_turns_with_other_lists() -> None:
    store, slots = GatedQueries(), ListSlots(at_once=1, wait_seconds_max=3600.0)
    async with open_wire(store, list_slots=slots) as caller:
        pages = [asyncio.create_task(page(caller)) for _ in range(2)]
        other = asyncio.create_task(caller.call("ListUserTransactions", UserId(user_id=7)))
        await until(lambda: sum(map(len, slots._waiting.values())) == 2)
        assert store.asked == 1
        store.allowed.release()
        store.allowed.release()
        assert await asyncio.gather(*pages) == [QueryTransactionsResponse()] * 2
        assert (await other).status is Status.OK


class TestPageTokens:
    """A token belongs to a request and to an identity."""

    async def token(self, caller: WireCaller) -> str:
        await add(caller, 3)
        return (await page(caller, page_size=1)).next_page_token

    async def test_the_size_of_pages_may_change(self, caller: WireCaller) -> None:
        token = await self.token(caller)
        assert await sequences(caller, page_size=2, page_token=token) == [2, 1]

    @pytest.mark.parametrize(
        "changed",
        [
            {"user_id": 8},
            {"app_id": 1},
            {"oldest_first": True},
            {"types": [TransactionType.ADD]},
            {"metadata": {"order": "42"}},
            {"created_from": NOON},
            {"credits_max": 0},
        ],
        ids=str,
    )
    async def test_a_token_of_another_request_is_rejected(
        self, caller: WireCaller, changed: dict[str, Any]
    ) -> None:
        token = await self.token(caller)
        answer = await caller.call("QueryTransactions", query(page_token=token, **changed))
        assert reason_of(answer) == "PAGE_TOKEN_INVALID"

    @pytest.mark.parametrize("token", ["x", "xxxx", "ü", "!" * 40, "A" * 34, "A" * 256])
    async def test_what_is_no_token_is_rejected(self, caller: WireCaller, token: str) -> None:
        answer = await caller.call("QueryTransactions", query(page_token=token))
        assert reason_of(answer) == "PAGE_TOKEN_INVALID"

    async def test_a_forged_token_past_the_last_sequence_is_rejected(
        self, caller: WireCaller
    ) -> None:
        token = make_token(query(), "", 2**63)
        answer = await caller.call("QueryTransactions", query(page_token=token))
        assert reason_of(answer) == "PAGE_TOKEN_INVALID"

    async def test_a_token_works_on_another_server_of_the_database(self) -> None:
        store = MemoryStore()
        async with open_wire(store) as first, open_wire(store) as second:
            token = await self.token(first)
            assert await sequences(second, page_token=token) == [2, 1]

    async def test_a_token_of_another_identity_is_rejected(self) -> None:
        tokens = FakeAuthenticator({"secret": ONE, "other": OTHER})
        async with open_wire(authenticator=tokens) as caller:
            token = await self.token(caller)
            other = WireCaller(caller.wire, "other")
            answer = await other.call("QueryTransactions", query(page_token=token))
            assert reason_of(answer) == "PAGE_TOKEN_INVALID"
            assert await sequences(caller, page_token=token) == [2, 1]


class TestGetTransaction:
    """One transaction, by its id or its key."""

    async def test_a_transaction_is_found_by_id_and_by_key(self, caller: WireCaller) -> None:
        receipt = await caller.write("AddCredits", idempotency_key="k")
        by_id = GetTransactionRequest(transaction_id=receipt.transaction_id)
        by_key = GetTransactionRequest(user_id=7, app_id=1, idempotency_key="k")
        for request in (by_id, by_key):
            answer = await caller.call("GetTransaction", request)
            found = answer.message(GetTransactionResponse).transaction
            assert found is not None
            assert (found.id, found.idempotency_key) == (receipt.transaction_id, "k")

    @pytest.mark.parametrize("id_", [ANY_ID, "none", "0" * 64])
    async def test_an_unknown_id_is_not_found(self, caller: WireCaller, id_: str) -> None:
        answer = await caller.call("GetTransaction", GetTransactionRequest(transaction_id=id_))
        assert (answer.status, reason_of(answer)) == (Status.NOT_FOUND, "TRANSACTION_NOT_FOUND")
        assert isinstance(answer.details[0], ErrorInfo)
        assert dict(answer.details[0].metadata) == {"transaction_id": id_}

    @pytest.mark.parametrize("changed", [{"user_id": 8}, {"app_id": 2}, {"idempotency_key": "l"}])
    async def test_a_key_belongs_to_a_user_in_an_app(
        self, caller: WireCaller, changed: dict[str, Any]
    ) -> None:
        await caller.write("AddCredits", idempotency_key="k")
        answer = await caller.call("GetTransaction", request_of("GetTransaction", **changed))
        assert reason_of(answer) == "IDEMPOTENCY_KEY_NOT_FOUND"

    @pytest.mark.parametrize(
        ("request_", "fields"),
        [
            (GetTransactionRequest(), {"transaction_id"}),
            (GetTransactionRequest(user_id=7), {"app_id", "idempotency_key"}),
            (GetTransactionRequest(app_id=1, idempotency_key="k"), {"user_id"}),
            (GetTransactionRequest(transaction_id=ANY_ID, app_id=1), {"app_id"}),
            (
                GetTransactionRequest(transaction_id=ANY_ID, idempotency_key="k"),
                {"idempotency_key"},
            ),
        ],
    )
    async def test_it_takes_either_an_id_or_a_whole_key(
        self, caller: WireCaller, request_: GetTransactionRequest, fields: set[str]
    ) -> None:
        answer = await caller.call("GetTransaction", request_)
        assert (answer.status, broken(answer)) == (Status.INVALID_ARGUMENT, fields)


class TestTenants:
    """An identity sees its own apps, as if there were no others."""

    @pytest.fixture
    async def tenants(self) -> AsyncIterator[tuple[WireCaller, WireCaller]]:
        tokens = FakeAuthenticator({"one": ONE, "two": TWO})
        async with open_wire(authenticator=tokens) as caller:
            yield WireCaller(caller.wire, "one"), WireCaller(caller.wire, "two")

    async def test_a_query_shows_the_own_apps(self, tenants: tuple[WireCaller, WireCaller]) -> None:
        one, two = tenants
        await one.write("AddCredits")
        await two.write("AddCredits", app_id=2)
        await one.write("AddCredits")
        assert await sequences(one) == [3, 1]
        assert await sequences(two) == [2]

    async def test_a_user_of_others_looks_like_one_without_history(
        self, tenants: tuple[WireCaller, WireCaller]
    ) -> None:
        one, two = tenants
        await add(one, 3)
        hold = (await one.write("PlaceHold")).transaction_id
        await one.write("ReleaseHold", hold_id=hold)
        for changed in ({}, {"credits_min": 1}, {"related_id": hold}, {"created_from": NOON}):
            assert await page(two, page_size=1, **changed) == QueryTransactionsResponse()

    async def test_another_app_is_not_allowed(self, tenants: tuple[WireCaller, WireCaller]) -> None:
        for call in ("QueryTransactions", "GetTransaction"):
            answer = await tenants[1].call(call, request_of(call))
            assert (answer.status, reason_of(answer)) == (
                Status.PERMISSION_DENIED,
                "APP_NOT_ALLOWED",
            )

    async def test_an_id_of_another_app_looks_like_no_id(
        self, tenants: tuple[WireCaller, WireCaller]
    ) -> None:
        one, two = tenants
        id_ = (await one.write("AddCredits")).transaction_id
        hidden, absent = [
            await two.call("GetTransaction", GetTransactionRequest(transaction_id=each))
            for each in (id_, ANY_ID)
        ]
        assert (hidden.status, reason_of(hidden)) == (absent.status, reason_of(absent))
        assert hidden.sentence == absent.sentence
