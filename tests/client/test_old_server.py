"""A server of 0.2.0, which has the calls of `CreditService` alone."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_client import CreditClient, Outcome, ServerTooOld
from credit_client.testing import FakeCreditService, fake_credits
from grpclib.const import Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

# Any: the arguments of a call have no common type.
WHO: dict[str, Any] = {"user_id": 7, "app_id": 1, "created_by": 1}
REPORT: dict[str, Any] = {"report_id": "r-1", "report_name": "Answer"}

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
NIGHT = datetime(2026, 1, 3, tzinfo=UTC)


async def _unknown(_: Stream[object, object]) -> None:
    raise GRPCError(Status.UNIMPLEMENTED, "there is no such method")


class OldService:
    """The fake with `CreditService` alone; it answers other calls as the released server does."""

    def __init__(self) -> None:
        self.service = FakeCreditService()

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            path: handler if "CreditService" in path else handler._replace(func=_unknown)
            for path, handler in self.service.__mapping__().items()
        }


@pytest.fixture
async def old() -> AsyncIterator[CreditClient]:
    async with AsyncExitStack() as stack:
        # Any service of grpclib's will do; the fixture's type names the usual one.
        opened = fake_credits(OldService())  # type: ignore[arg-type]
        yield await stack.enter_async_context(opened)


async def test_the_calls_that_it_has_work_as_before(old: CreditClient) -> None:
    assert (await old.add(**WHO, credits=120)).balance == 120
    assert (await old.use(**WHO, **REPORT, credits=20)).balance == 100
    assert await old.balance(app_id=1) == 100
    assert [entry.sequence async for entry in old.transactions(user_id=7)] == [1, 2]


Call = Callable[[CreditClient], Awaitable[object]]


async def _first_hold(client: CreditClient) -> object:
    return await anext(client.holds(user_id=7, app_id=1))


@pytest.mark.parametrize(
    ("call", "method"),
    [
        (lambda it: it.grant(**WHO, credits=1), "GrantCredits"),
        (lambda it: it.void_grant(**WHO, grant_id="g"), "VoidGrant"),
        (lambda it: it.hold(**WHO, credits=1), "PlaceHold"),
        (
            lambda it: it.hold_of(**WHO, hold_id="h").capture(1, **REPORT),
            "CaptureHold",
        ),
        (lambda it: it.hold_of(**WHO, hold_id="h").release(), "ReleaseHold"),
        (
            lambda it: it.hold_of(**WHO, hold_id="h").extend(timedelta(seconds=1)),
            "ExtendHold",
        ),
        (lambda it: it.reverse(**WHO, transaction_id="t"), "ReverseTransaction"),
        (lambda it: it.transfer(**WHO, credits=1, to_user_id=8), "TransferCredits"),
        (lambda it: it.adjust(**WHO, delta=1, note="n"), "AdjustBalance"),
        (lambda it: it.set_spending_cap(**WHO, per_day=1), "SetSpendingCap"),
        (lambda it: it.set_app_spending_cap(app_id=1, created_by=1), "SetSpendingCap"),
        (lambda it: it.set_app_policy(app_id=1, created_by=1), "SetAppPolicy"),
        (lambda it: it.app_policy(app_id=1), "GetAppPolicy"),
        (lambda it: it.grants(user_id=7, app_id=1), "ListGrants"),
        (_first_hold, "ListHolds"),
        (lambda it: it.forecast(user_id=7, app_id=1), "GetForecast"),
        (lambda it: it.spending_cap(user_id=7, app_id=1), "GetSpendingCap"),
        # Their conditions are fields that the server does not know, and would ignore.
        (lambda it: it.use(**WHO, **REPORT, credits=1, once=True), "BatchWrite"),
        (lambda it: it.use(**WHO, **REPORT, credits=1, expected_revision=0), "BatchWrite"),
        (lambda it: it.add(**WHO, credits=1, expected_revision=0), "BatchWrite"),
        (lambda it: it.add(**WHO, credits=1, min_available_after=1), "BatchWrite"),
    ],
)
async def test_a_call_that_it_does_not_have_names_the_version_and_makes_no_change(
    old: CreditClient, call: Call, method: str
) -> None:
    await old.add(**WHO, credits=120)
    with pytest.raises(ServerTooOld, match=r"requires a server of 0\.3\.0 or later") as caught:
        await call(old)
    assert caught.value.method == f"credit.v1.LedgerService/{method}"
    assert caught.value.outcome is Outcome.NO_CHANGE
    assert await old.balance(app_id=1, user_id=7) == 120


@pytest.mark.parametrize(
    ("call", "method"),
    [
        (lambda it: it.query_transactions(user_id=7).page(), "HistoryService/QueryTransactions"),
        (lambda it: it.query_purchases(app_id=1).page(), "HistoryService/QueryPurchases"),
        (lambda it: it.balance_at(user_id=7, app_id=1, sequence=1), "HistoryService/GetBalanceAt"),
        (
            lambda it: it.summarize(app_id=1, created_from=NOON, created_until=NIGHT),
            "HistoryService/Summarize",
        ),
        (lambda it: it.transaction(transaction_id="t"), "HistoryService/GetTransaction"),
        (lambda it: anext(it.watch(user_id=7)), "HistoryService/Watch"),
        (lambda it: it.checkpoints(app_id=1), "HistoryService/ListCheckpoints"),
        (lambda it: it.set_alert(app_id=1, credits=20, created_by=1), "AlertService/SetAlert"),
        (
            lambda it: it.remove_alert(app_id=1, credits=20, created_by=1),
            "AlertService/RemoveAlert",
        ),
        (lambda it: it.alerts(app_id=1), "AlertService/ListAlerts"),
        (lambda it: anext(it.alert_events(app_id=1)), "AlertService/ListAlertEvents"),
        (lambda it: it.webhooks(app_id=1), "AlertService/ListWebhooks"),
    ],
)
async def test_so_does_a_call_of_a_later_service(
    old: CreditClient, call: Call, method: str
) -> None:
    with pytest.raises(ServerTooOld, match=r"requires a server of 0\.4\.0 or later") as caught:
        await call(old)
    assert caught.value.method == f"credit.v1.{method}"


async def test_so_does_a_user_that_is_named_by_text(old: CreditClient) -> None:
    with pytest.raises(ServerTooOld, match=r"requires a server of 0\.4\.0 or later") as caught:
        await old.balance(user_id="u-7", app_id=1)
    assert caught.value.method == "credit.v1.DirectoryService/FindUser"


async def test_each_write_of_a_batch_has_that_error(old: CreditClient) -> None:
    batch = old.batch()
    batch.add(**WHO, credits=120)
    batch.grant(**WHO, credits=120)
    await batch.send()
    assert [type(each.error) for each in batch] == [ServerTooOld] * 2
