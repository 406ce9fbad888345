"""`HistoryService`, as a client sees it on the wire."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from credit_models import (
    CreditTransaction,
    GetBalanceAtRequest,
    GetBalanceAtResponse,
    GetTransactionRequest,
    GetTransactionResponse,
    Purchase,
    QueryPurchasesRequest,
    QueryPurchasesResponse,
    QueryTransactionsRequest,
    QueryTransactionsResponse,
    SummarizeRequest,
    SummarizeResponse,
    Summary,
    SummaryGroup,
    TransactionType,
    UserId,
)
from credit_models.codec import encode
from credit_server.admission.list_slots import ListSlots
from credit_server.api import history_service
from credit_server.api.page_token import make_token
from credit_server.store.history import (
    FIRST_ID,
    HistoryQuery,
    Page,
    Position,
    PurchaseQuery,
    PurchaseRow,
    TransactionQuery,
    TransactionRow,
)
from credit_server.store.memory import MemoryStore
from credit_server.store.port import StoreUnavailable
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpclib.const import Status

from tests.server.callers import WireCaller, open_wire, reason_of
from tests.server.clocks import NOON, Clocks
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.requests import ANY_ID, request_of
from tests.server.serving import until

_QueryT = TypeVar("_QueryT", bound=HistoryQuery)

ONE = replace(EVERYTHING, name="one", apps=frozenset({1}))
OTHER = replace(ONE, name="other")
TWO = replace(EVERYTHING, name="two", apps=frozenset({2}))


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
async def caller(clocks: Clocks) -> AsyncIterator[WireCaller]:
    store = MemoryStore(clock=lambda: clocks.store)
    async with open_wire(store, clock=clocks.clock()) as caller:
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


class FailoverStore(MemoryStore):
    """Simulates a change of primary: the old primary, which has fewer entries, still answers.

    Attributes:
        newest: The newest sequence that the old primary has; None: the primary has not changed.
    """

    newest: int | None = None

    async def query_transactions(self, query: TransactionQuery) -> Page[TransactionRow]:
        return await super().query_transactions(self._there(query))

    async def query_purchases(self, query: PurchaseQuery) -> Page[PurchaseRow]:
        return await super().query_purchases(self._there(query))

    def _there(self, query: _QueryT) -> _QueryT:
        if self.newest is None:
            return query
        if query.stored_sequence > self.newest:
            raise StoreUnavailable("not there yet")
        return replace(query, before_sequence=min(query.before_sequence or 99, self.newest + 1))


async def add(caller: WireCaller, number: int, **changed: Any) -> None:
    for _ in range(number):
        await caller.write("AddCredits", **changed)


async def purchase_page(caller: WireCaller, **changed: Any) -> QueryPurchasesResponse:
    request = replace(QueryPurchasesRequest(user_id=7), **changed)
    return (await caller.call("QueryPurchases", request)).message(QueryPurchasesResponse)


async def bought(caller: WireCaller, **changed: Any) -> list[tuple[int, str]]:
    """Return the users and the reports of a page of purchases."""
    page = await purchase_page(caller, **changed)
    return [(each.user_id, each.report_id) for each in page.purchases]


def ids(page: QueryTransactionsResponse | QueryPurchasesResponse) -> list[str]:
    if isinstance(page, QueryPurchasesResponse):
        return [each.id for each in page.purchases]
    return [each.id for each in page.transactions]


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

    async def test_pages_omit_nothing_if_the_primary_changes(self) -> None:
        store = FailoverStore()
        async with open_wire(store) as caller:
            await add(caller, 5)
            first = await page(caller, page_size=1)
            request = query(page_size=1, page_token=first.next_page_token)
            store.newest = 2  # 3 and 4 would be omitted
            assert (await caller.call("QueryTransactions", request)).status is Status.UNAVAILABLE
            store.newest = None
            assert await sequences(caller, page_token=first.next_page_token) == [4, 3, 2, 1]

    async def test_pages_of_the_oldest_end_early_if_the_primary_changes(self) -> None:
        store = FailoverStore()
        async with open_wire(store) as caller:
            await add(caller, 5)
            first = await page(caller, page_size=3, oldest_first=True)
            store.newest = 2
            token = first.next_page_token
            assert await sequences(caller, oldest_first=True, page_token=token) == []

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


class TestQueryTransactionsOfAnApp:
    """Pages of the transactions of all users in an app."""

    @pytest.fixture
    async def shop(self, caller: WireCaller, clocks: Clocks) -> WireCaller:
        """Return a caller, after transactions of two users in app 1 and one in app 2."""
        for user_id, app_id in ((7, 1), (8, 1), (7, 2), (7, 1)):
            await caller.write("AddCredits", user_id=user_id, app_id=app_id)
            clocks.advance(1)
        clocks.advance(600)
        return caller

    async def places(self, caller: WireCaller, **changed: Any) -> list[tuple[int, int]]:
        """Return the users and sequences of a page."""
        found = await page(caller, **{"user_id": None, "app_id": 1} | changed)
        return [(each.user_id, each.sequence) for each in found.transactions]

    async def test_the_transactions_of_all_users_are_ordered_by_time(
        self, shop: WireCaller
    ) -> None:
        assert await self.places(shop) == [(7, 3), (8, 1), (7, 1)]
        assert await self.places(shop, oldest_first=True) == [(7, 1), (8, 1), (7, 3)]
        assert await self.places(shop, app_id=2) == [(7, 2)]
        assert await self.places(shop, app_id=3) == []

    async def test_times_and_conditions_are_applied(self, shop: WireCaller) -> None:
        second = timedelta(seconds=1)
        assert await self.places(shop, created_from=NOON + second) == [(7, 3), (8, 1)]
        assert await self.places(shop, created_until=NOON + second) == [(7, 1)]
        assert await self.places(shop, types=[TransactionType.USE]) == []

    async def test_pages_continue_where_the_one_before_ended(self, shop: WireCaller) -> None:
        every = {"user_id": None, "app_id": 1, "page_size": 2}
        first = await page(shop, **every)
        second = await page(shop, page_token=first.next_page_token, **every)
        assert [each.sequence for each in first.transactions] == [3, 1]
        assert [each.sequence for each in second.transactions] == [1]
        assert second.next_page_token == ""
        assert first.complete_until is not None

    @pytest.mark.parametrize("read", [page, purchase_page])
    @pytest.mark.parametrize("oldest_first", [False, True])
    async def test_a_copy_goes_on_at_the_limit_although_entries_are_written_between_its_pages(
        self, shop: WireCaller, clocks: Clocks, read: Any, oldest_first: bool
    ) -> None:
        for user_id in (7, 8, 7):
            await shop.write("UseCredits", user_id=user_id, credits=1)
            clocks.advance(1)
        clocks.advance(600)
        every = {"user_id": None, "app_id": 1, "page_size": 2, "oldest_first": oldest_first}
        found: list[str] = []
        limits: list[datetime | None] = []
        token = ""
        while not limits or token:
            part = await read(shop, page_token=token, **every)
            token = part.next_page_token
            found += ids(part)
            limits.append(part.complete_until)
            if len(limits) < 3:
                await shop.write("UseCredits", credits=1)
                clocks.advance(600)
        assert [each is None for each in limits[1:]] == [not oldest_first] * len(limits[1:])
        until = limits[-1 if oldest_first else 0]
        every["page_size"] = 100
        rest, whole = await read(shop, created_from=until, **every), await read(shop, **every)
        assert sorted(found + ids(rest)) == sorted(ids(whole))

    async def test_the_latest_transactions_are_left_out_until_they_are_settled(
        self, shop: WireCaller, clocks: Clocks
    ) -> None:
        written = NOON + timedelta(seconds=604)
        await shop.write("AddCredits", user_id=9)
        clocks.advance(114)
        before = await page(shop, user_id=None, app_id=1)
        assert (len(before.transactions), before.complete_until) == (3, written)
        clocks.advance(0.001)
        assert await self.places(shop, created_from=before.complete_until) == [(9, 1)]

    async def test_a_users_page_has_all_and_no_limit_in_time(self, caller: WireCaller) -> None:
        await add(caller, 1)
        found = await page(caller)
        assert (len(found.transactions), found.complete_until) == (1, None)

    async def test_a_page_has_no_more_bytes_than_clients_accept(
        self, shop: WireCaller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history_service, "_PAGE_BYTES_MAX", 1)
        first = await page(shop, user_id=None, app_id=1)
        token = first.next_page_token
        assert await self.places(shop, page_token=token) == [(8, 1)]

    @pytest.mark.parametrize(
        ("changed", "fields"),
        [
            ({"app_id": None}, {"app_id"}),
            ({"after_sequence": 1}, {"after_sequence"}),
            ({"before_sequence": 0}, {"before_sequence"}),
            ({"related_id": ANY_ID}, {"related_id"}),
        ],
        ids=str,
    )
    async def test_what_belongs_to_a_user_is_rejected(
        self, caller: WireCaller, changed: dict[str, Any], fields: set[str]
    ) -> None:
        request = query(**{"user_id": None, "app_id": 1} | changed)
        answer = await caller.call("QueryTransactions", request)
        assert (answer.status, broken(answer)) == (Status.INVALID_ARGUMENT, fields)

    async def test_a_token_of_a_user_is_not_one_of_an_app(self, shop: WireCaller) -> None:
        token = (await page(shop, app_id=1, page_size=1)).next_page_token
        answer = await shop.call(
            "QueryTransactions", query(user_id=None, app_id=1, page_token=token)
        )
        assert reason_of(answer) == "PAGE_TOKEN_INVALID"


class TestQueryPurchases:
    """Pages of purchases."""

    @pytest.fixture
    async def shop(self, caller: WireCaller, clocks: Clocks) -> WireCaller:
        """Return a caller, after purchases of two users, one of which is refunded."""
        for user_id, report_id in ((7, "a"), (8, "b"), (7, "b")):
            await caller.write("AddCredits", user_id=user_id)
            receipt = await caller.write("UseCredits", user_id=user_id, report_id=report_id)
            clocks.advance(1)
        await caller.write("ReverseTransaction", transaction_id=receipt.transaction_id, credits=3)
        clocks.advance(600)
        return caller

    async def test_the_purchases_of_a_user_are_found(self, shop: WireCaller) -> None:
        assert await bought(shop) == [(7, "b"), (7, "a")]
        assert await bought(shop, oldest_first=True) == [(7, "a"), (7, "b")]
        assert await bought(shop, report_id="a", app_id=1) == [(7, "a")]
        assert await bought(shop, app_id=2) == []

    async def test_a_row_is_what_a_list_has(self, shop: WireCaller) -> None:
        listed = await shop.call("ListUserPurchases", UserId(user_id=7))
        found = await purchase_page(shop, oldest_first=True)
        assert found == QueryPurchasesResponse(purchases=listed.messages(Purchase))
        assert [each.refunded_credits for each in found.purchases] == [0, 3]

    async def test_the_purchases_of_an_app_are_found(self, shop: WireCaller) -> None:
        app = {"user_id": None, "app_id": 1}
        assert await bought(shop, **app) == [(7, "b"), (8, "b"), (7, "a")]
        assert await bought(shop, **app, report_id="b", oldest_first=True) == [(8, "b"), (7, "b")]
        assert await bought(shop, **app, refunded=True) == [(7, "b")]
        assert await bought(shop, **app, refunded=False, credits_min=1) == [(8, "b"), (7, "a")]
        assert (await purchase_page(shop, **app)).complete_until is not None

    async def test_pages_continue_where_the_one_before_ended(self, shop: WireCaller) -> None:
        for scope in ({"user_id": 7}, {"user_id": None, "app_id": 1}):
            found: list[str] = []
            token = ""
            while not found or token:
                one = await purchase_page(shop, page_size=1, page_token=token, **scope)
                found += [each.id for each in one.purchases]
                token = one.next_page_token
            whole = await purchase_page(shop, **scope)
            assert found == [each.id for each in whole.purchases]

    async def test_pages_omit_nothing_if_the_primary_changes(self) -> None:
        store = FailoverStore()
        async with open_wire(store) as caller:
            await add(caller, 1)
            for report in "abcd":
                await caller.write("UseCredits", credits=1, report_id=report)
            first = await purchase_page(caller, page_size=1)
            token = first.next_page_token
            request = QueryPurchasesRequest(user_id=7, page_size=1, page_token=token)
            store.newest = 3
            assert (await caller.call("QueryPurchases", request)).status is Status.UNAVAILABLE
            store.newest = None
            assert await bought(caller, page_token=token) == [
                (7, "c"),
                (7, "b"),
                (7, "a"),
            ]

    async def test_a_token_of_transactions_is_none_of_purchases(self, shop: WireCaller) -> None:
        token = (await page(shop, page_size=1)).next_page_token
        request = QueryPurchasesRequest(user_id=7, page_token=token)
        assert reason_of(await shop.call("QueryPurchases", request)) == "PAGE_TOKEN_INVALID"

    async def test_what_belongs_to_a_user_is_rejected(self, caller: WireCaller) -> None:
        request = QueryPurchasesRequest(after_sequence=1)
        answer = await caller.call("QueryPurchases", request)
        assert (answer.status, broken(answer)) == (
            Status.INVALID_ARGUMENT,
            {"app_id", "after_sequence"},
        )


class GatedQueries(MemoryStore):
    """Answers a query when the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.allowed = asyncio.Semaphore(0)

    async def query_transactions(self, query: TransactionQuery) -> Page[TransactionRow]:
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

    async def test_a_forged_token_past_the_last_time_is_rejected(self, caller: WireCaller) -> None:
        request = query(user_id=None, app_id=1)
        token = make_token(request, "", Position(2**63, FIRST_ID))
        answer = await caller.call("QueryTransactions", replace(request, page_token=token))
        assert reason_of(answer) == "PAGE_TOKEN_INVALID"

    @pytest.mark.parametrize("oldest_first", [False, True])
    async def test_a_forged_token_of_the_greatest_id_is_rejected(
        self, caller: WireCaller, oldest_first: bool
    ) -> None:
        request = query(user_id=None, app_id=1, oldest_first=oldest_first)
        token = make_token(request, "", Position(1, "f" * 24))
        answer = await caller.call("QueryTransactions", replace(request, page_token=token))
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


class TestGetBalanceAt:
    """A balance at an earlier time, or after a transaction."""

    async def at(self, caller: WireCaller, **changed: Any) -> tuple[int, int]:
        """Return a balance, and the sequence of the last transaction that counts."""
        request = replace(GetBalanceAtRequest(user_id=7, app_id=1), **changed)
        answer = await caller.call("GetBalanceAt", request)
        found = answer.message(GetBalanceAtResponse)
        return found.balance, found.sequence

    async def test_it_is_that_of_the_last_transaction_until_then(
        self, caller: WireCaller, clocks: Clocks
    ) -> None:
        for app_id in (1, 2, 1):
            await caller.write("AddCredits", app_id=app_id, credits=50)
            clocks.advance(60)
        assert await self.at(caller, at=NOON - timedelta(seconds=1)) == (0, 0)
        assert await self.at(caller, at=NOON) == (50, 1)
        assert await self.at(caller, at=NOON + timedelta(minutes=1)) == (50, 1)
        assert await self.at(caller, at=NOON + timedelta(minutes=2)) == (100, 3)
        assert await self.at(caller, sequence=0) == (0, 0)
        assert await self.at(caller, sequence=2) == (50, 1)
        assert await self.at(caller, sequence=2**63 - 1) == (100, 3)
        assert await self.at(caller, user_id=8, at=NOON) == (0, 0)

    async def test_a_grant_ends_at_its_instant_whenever_its_end_is_written(
        self, caller: WireCaller, clocks: Clocks
    ) -> None:
        await caller.write("AddCredits", credits=50)
        ends_at = NOON + timedelta(seconds=30)
        await caller.write("GrantCredits", credits=20, expires_at=ends_at)
        clocks.advance(60)
        before = ends_at - timedelta(milliseconds=1)
        for _ in range(2):
            assert (await self.at(caller, at=before))[0] == 70
            assert (await self.at(caller, at=ends_at))[0] == 50
            await caller.write("AddCredits", credits=1)  # writes the end of the grant

    async def test_a_time_in_the_future_is_the_present(
        self, caller: WireCaller, clocks: Clocks
    ) -> None:
        ends_at = NOON + timedelta(seconds=30)
        await caller.write("GrantCredits", credits=20, expires_at=ends_at)
        request = GetBalanceAtRequest(user_id=7, app_id=1, at=ends_at)
        answer = (await caller.call("GetBalanceAt", request)).message(GetBalanceAtResponse)
        assert answer == GetBalanceAtResponse(balance=20, sequence=1, as_of=NOON)

    async def test_credits_that_were_owed_are_shown(self, caller: WireCaller) -> None:
        await caller.read("SetAppPolicy", allow_negative=True)
        await caller.write("AddCredits", credits=5)
        await caller.write("AdjustBalance", delta=-20)
        request = GetBalanceAtRequest(user_id=7, app_id=1, sequence=2)
        answer = (await caller.call("GetBalanceAt", request)).message(GetBalanceAtResponse)
        assert answer == GetBalanceAtResponse(owed=15, sequence=2)

    @pytest.mark.parametrize("changed", [{}, {"at": NOON, "sequence": 1}], ids=str)
    async def test_it_takes_either_a_time_or_a_sequence(
        self, caller: WireCaller, changed: dict[str, Any]
    ) -> None:
        request = replace(GetBalanceAtRequest(user_id=7, app_id=1), **changed)
        answer = await caller.call("GetBalanceAt", request)
        assert (answer.status, broken(answer)) == (Status.INVALID_ARGUMENT, {"at"})


class TestSummarize:
    """Sums of transactions."""

    async def sums(self, caller: WireCaller, **changed: Any) -> SummarizeResponse:
        span: dict[str, Any] = {
            "created_from": NOON - timedelta(days=1),
            "created_until": NOON + timedelta(days=9),
        }
        request = SummarizeRequest(**{"user_id": 7} | span | changed)
        return (await caller.call("Summarize", request)).message(SummarizeResponse)

    @pytest.fixture
    async def shop(self, caller: WireCaller, clocks: Clocks) -> WireCaller:
        """Return a caller, after transactions of two users on two days."""
        await caller.write("AddCredits", credits=50)
        await caller.write("AddCredits", user_id=8, credits=70)
        await caller.write("AddCredits", app_id=2, credits=9)
        clocks.advance(86_400)
        await caller.write("UseCredits", credits=20, report_id="a")
        clocks.advance(600)
        return caller

    async def test_they_are_those_of_a_user_or_of_an_app(self, shop: WireCaller) -> None:
        of_user = await self.sums(shop)
        assert of_user == SummarizeResponse(
            summaries=[Summary(transactions=3, credits_in=59, credits_out=20, spent=20)]
        )
        of_app = await self.sums(shop, user_id=None, app_id=1)
        assert [(each.transactions, each.credits_in) for each in of_app.summaries] == [(3, 120)]
        assert of_app.complete_until == NOON + timedelta(days=1, seconds=600 - 114)

    async def test_each_group_is_named(self, shop: WireCaller) -> None:
        group = SummaryGroup
        midnight = NOON - timedelta(hours=12)
        names = {
            group.DAY: [midnight, midnight + timedelta(days=1)],
            group.MONTH: [midnight],
            group.TYPE: [TransactionType.ADD, TransactionType.USE],
            group.REPORT: ["", "a"],
            group.APP: [1, 2],
        }
        fields = ["starts_at", "starts_at", "type", "report_id", "app_id"]
        for (group_by, expected), field in zip(names.items(), fields, strict=True):
            found = await self.sums(shop, group_by=group_by)
            assert [getattr(each, field) for each in found.summaries] == expected
            assert sum(each.transactions for each in found.summaries) == 3

    @pytest.mark.parametrize(
        ("changed", "field"),
        [
            ({"group_by": SummaryGroup(9)}, "group_by"),
            ({"created_until": NOON - timedelta(days=1)}, "created_until"),
            ({"created_from": None}, "created_from"),
            ({"user_id": None}, "app_id"),
        ],
        ids=lambda each: each if isinstance(each, str) else "",
    )
    async def test_a_wrong_request_is_rejected(
        self, caller: WireCaller, changed: dict[str, Any], field: str
    ) -> None:
        request = replace(
            SummarizeRequest(
                user_id=7,
                created_from=NOON - timedelta(days=1),
                created_until=NOON,
            ),
            **changed,
        )
        answer = await caller.call("Summarize", request)
        assert (answer.status, broken(answer)) == (Status.INVALID_ARGUMENT, {field})

    async def test_too_many_groups_are_rejected(
        self, shop: WireCaller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history_service, "GROUPS_MAX", 1)
        request = SummarizeRequest(
            user_id=7, created_from=NOON, created_until=NOON + timedelta(days=9)
        )
        assert (await shop.call("Summarize", request)).status is Status.OK
        answer = await shop.call("Summarize", replace(request, group_by=SummaryGroup.TYPE))
        assert (answer.status, reason_of(answer)) == (
            Status.RESOURCE_EXHAUSTED,
            "SUMMARY_TOO_LARGE",
        )
        assert isinstance(answer.details[0], ErrorInfo)
        assert dict(answer.details[0].metadata) == {"counted": "groups", "limit": "1"}


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
        span: dict[str, Any] = {
            "created_from": NOON - timedelta(days=9000),
            "created_until": NOON.replace(9999),
        }
        answer = await two.call("Summarize", SummarizeRequest(user_id=7, **span))
        (summed,) = answer.message(SummarizeResponse).summaries
        assert summed.transactions == 1

    async def test_a_user_of_others_looks_like_one_without_history(
        self, tenants: tuple[WireCaller, WireCaller]
    ) -> None:
        one, two = tenants
        await add(one, 3)
        hold = (await one.write("PlaceHold")).transaction_id
        await one.write("ReleaseHold", hold_id=hold)
        for changed in ({}, {"credits_min": 1}, {"related_id": hold}, {"created_from": NOON}):
            assert await page(two, page_size=1, **changed) == QueryTransactionsResponse()

    async def test_all_users_of_an_app_are_those_of_an_own_app(
        self, tenants: tuple[WireCaller, WireCaller]
    ) -> None:
        one, _ = tenants
        assert await page(one, user_id=None, app_id=1) != QueryTransactionsResponse()
        span: dict[str, Any] = {"created_from": NOON, "created_until": NOON + timedelta(days=1)}
        for request in (
            query(user_id=None, app_id=2),
            QueryPurchasesRequest(app_id=2),
            SummarizeRequest(app_id=2, **span),
        ):
            call = type(request).__name__.removesuffix("Request")
            assert reason_of(await one.call(call, request)) == "APP_NOT_ALLOWED"

    async def test_another_app_is_not_allowed(self, tenants: tuple[WireCaller, WireCaller]) -> None:
        for call in (
            "QueryTransactions",
            "QueryPurchases",
            "GetTransaction",
            "GetBalanceAt",
            "ListCheckpoints",
            "GetCheckpoint",
        ):
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
