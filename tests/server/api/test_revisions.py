"""Reads that require a revision: what they wait for, and what they answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from credit_models import Balance, UserCredits
from credit_server.api import reads
from credit_server.api.page_token import make_token
from credit_testing.calls import Answer
from credit_testing.stores import LaggingStore
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status

from tests.server.callers import WireCaller, open_wire, reason_of
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.requests import request_of

# The calls that read one user's data. Those in the second list do not read the account otherwise.
OF_ACCOUNT = (
    "GetUserCredits",
    "GetAppBalance",
    "GetSpendingCap",
    "ListGrants",
    "ListHolds",
    "GetForecast",
    "GetBalanceAt",
    "ListAlerts",
)
OF_HISTORY = (
    "ListUserPurchases",
    "ListUserTransactions",
    "QueryTransactions",
    "QueryPurchases",
    "Summarize",
)
CALLS = (*OF_ACCOUNT, *OF_HISTORY)


@pytest.fixture
def store() -> LaggingStore:
    return LaggingStore()


@pytest.fixture
async def caller(store: LaggingStore) -> AsyncIterator[WireCaller]:
    async with open_wire(store) as caller:
        await caller.write("AddCredits")
        await store.remember(7)
        await caller.write("AddCredits")
        store.reads = 0
        yield caller


# Any: the fields of requests have many types.
async def read(caller: WireCaller, call: str, **changed: Any) -> Answer:
    fields = {**({"user_id": 7} if call == "GetAppBalance" else {}), **changed}
    return await caller.call(call, request_of(call, **fields))


@pytest.mark.parametrize("call", CALLS)
async def test_a_read_waits_for_the_revision(
    caller: WireCaller, store: LaggingStore, call: str
) -> None:
    store.lag = 3
    assert (await read(caller, call, min_revision=2)).status is Status.OK
    assert (store.lag, store.reads) == (0, 4)


@pytest.mark.parametrize("call", CALLS)
async def test_a_read_from_a_store_without_a_lag_reads_the_account_once(
    caller: WireCaller, store: LaggingStore, call: str
) -> None:
    assert (await read(caller, call, min_revision=2)).status is Status.OK
    assert store.reads == 1
    assert (await read(caller, call)).status is Status.OK
    assert store.reads == (1 if call in OF_HISTORY else 2)


@pytest.mark.parametrize("call", CALLS)
async def test_a_revision_that_does_not_come_is_reported(
    caller: WireCaller, store: LaggingStore, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "REVISION_SECONDS_MAX", 0.05)
    answer = await read(caller, call, min_revision=3)
    assert (answer.status, reason_of(answer)) == (Status.ABORTED, "REVISION_NOT_REACHED")
    (info,) = (each for each in answer.details if isinstance(each, ErrorInfo))
    assert dict(info.metadata) == {"revision": "2", "required": "3"}
    assert store.reads > 1


@pytest.mark.parametrize("call", [*OF_HISTORY, "GetBalanceAt", "ListHolds"])
async def test_a_history_that_misses_the_revision_is_not_returned(
    caller: WireCaller, store: LaggingStore, call: str
) -> None:
    """Right after a change of primary, the history can be older than the account."""
    del store._tables.sequences[7, 2]
    also: dict[str, dict[str, Any]]
    also = {"ListHolds": {"include_settled": True}, "GetBalanceAt": {"sequence": 2}}
    answer = await read(caller, call, min_revision=2, **also.get(call, {}))
    assert (answer.status, reason_of(answer)) == (Status.UNAVAILABLE, "STORE_UNAVAILABLE")


@pytest.mark.parametrize("call", ["QueryTransactions", "QueryPurchases"])
async def test_a_page_that_would_leave_out_the_newest_entries_is_not_returned(
    caller: WireCaller, store: LaggingStore, call: str
) -> None:
    """Right after a change of primary, a page can be read from older data than the page before."""
    token = make_token(request_of(call), "", 2)
    assert (await read(caller, call, page_token=token)).status is Status.OK
    del store._tables.sequences[7, 2]
    answer = await read(caller, call, page_token=token)
    assert (answer.status, reason_of(answer)) == (Status.UNAVAILABLE, "STORE_UNAVAILABLE")


async def test_a_user_without_history_has_revision_0(caller: WireCaller) -> None:
    answer = await read(caller, "GetAppBalance", user_id=8, min_revision=0)
    assert answer.message(Balance) == Balance(app_id=1)


async def test_a_write_during_the_wait_ends_it(caller: WireCaller, store: LaggingStore) -> None:
    reading = asyncio.create_task(read(caller, "GetUserCredits", min_revision=3))
    while not store.reads:  # noqa: ASYNC110 - the store reports no event
        await asyncio.sleep(0)
    receipt = await caller.write("AddCredits")
    found = (await reading).message(UserCredits)
    assert (found.revision, receipt.sequence) == (3, 3)
    assert found.balances[0].balance == 150


@pytest.mark.parametrize("call", ["GetSpendingCap", "ListGrants", "ListHolds", "GetForecast"])
async def test_an_answer_has_the_revision(caller: WireCaller, call: str) -> None:
    assert (await caller.read(call)).revision == 2


async def test_a_balance_of_a_user_has_the_revision(caller: WireCaller) -> None:
    assert (await read(caller, "GetAppBalance")).message(Balance).revision == 2
    total = await caller.call("GetAppBalance", request_of("GetAppBalance"))
    assert total.message(Balance).revision == 0


async def test_a_sum_over_all_users_has_no_revision_to_require(caller: WireCaller) -> None:
    for call in ("GetAppBalance", "QueryPurchases", "Summarize", "ListAlerts"):
        request = request_of(call, user_id=None, min_revision=1)
        answer = await caller.call(call, request)
        assert (answer.status, reason_of(answer)) == (Status.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_an_identity_of_certain_apps_requires_a_revision_and_does_not_see_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reads, "REVISION_SECONDS_MAX", 0.0)
    identity = replace(EVERYTHING, apps=frozenset({1}))
    async with open_wire(authenticator=FakeAuthenticator({"one": identity})) as opened:
        caller = WireCaller(opened.wire, "one")
        receipt = await caller.write("AddCredits")
        for call in CALLS:
            answer = await read(caller, call, min_revision=receipt.sequence)
            assert answer.status is Status.OK, call
        assert (await read(caller, "GetAppBalance")).message(Balance).revision == 0
        assert (await caller.read("ListGrants")).revision == 0
        answer = await read(caller, "GetUserCredits", min_revision=2)
        (info,) = (each for each in answer.details if isinstance(each, ErrorInfo))
        assert dict(info.metadata) == {"revision": "0", "required": "2"}
