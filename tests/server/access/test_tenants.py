"""Two tenants on one ledger: neither learns anything of the other from any answer."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

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
    UserCredits,
    UserId,
)
from credit_models.codec import decode
from credit_models.scopes import METHOD_SCOPES
from credit_server.access.identity import AddLimits
from credit_testing.calls import Answer
from credit_testing.http2_client import Connection
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status

from tests.server.callers import WireCaller, open_wire
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.requests import ANY_ID, PATHS, WRITES, request_of
from tests.server.serving import serving

USER = UserId(user_id=7)
OTHER_WRITES = (
    "SetAppPolicy",
    "SetAlert",
    "RemoveAlert",
    "SetWebhook",
    "RemoveWebhook",
    "ResendDeadLetters",
)


class Tenant:
    """Make calls as one tenant."""

    def __init__(self, wire: Connection, name: str, app: int) -> None:
        self._wire = wire
        self._token = ("authorization", f"Bearer {name}")
        self._app = app

    async def add(self, amount: int = 50, *, app: int = 0, key: str = "") -> Answer:
        request = CreditRequest(
            user_id=7,
            app_id=app or self._app,
            credits=amount,
            created_by=self._app,
            idempotency_key=key,
        )
        return await self._wire.call("AddCredits", request, self._token)

    async def use(self, amount: int = 5, *, key: str = "") -> Answer:
        request = PurchaseRequest(
            user_id=7,
            app_id=self._app,
            report_id=f"r-{self._app}",
            report_name="Report",
            credits=amount,
            created_by=self._app,
            idempotency_key=key,
        )
        return await self._wire.call("UseCredits", request, self._token)

    async def holdings(self) -> UserCredits:
        return (await self._wire.call("GetUserCredits", USER, self._token)).message(UserCredits)

    async def purchases(self) -> list[Purchase]:
        answer = await self._wire.call("ListUserPurchases", USER, self._token)
        assert answer.status is Status.OK
        return answer.messages(Purchase)

    async def transactions(self) -> list[CreditTransaction]:
        answer = await self._wire.call("ListUserTransactions", USER, self._token)
        assert answer.status is Status.OK
        return answer.messages(CreditTransaction)

    async def balance(self, **fields: int) -> Answer:
        return await self._wire.call("GetAppBalance", AppId(**fields), self._token)


def info(answer: Answer) -> ErrorInfo:
    found = answer.details[0]
    assert isinstance(found, ErrorInfo)
    return found


@pytest.fixture
async def tenants() -> AsyncIterator[tuple[Tenant, Tenant, Tenant]]:
    """Two tenants, of app 1 and of app 2, and an identity of all apps."""
    bound = replace(EVERYTHING, may_impersonate=False)
    tokens = FakeAuthenticator(
        {
            "one": replace(bound, name="one", apps=frozenset({1}), actor=1),
            "two": replace(bound, name="two", apps=frozenset({2, 3}), actor=2),
            "all": EVERYTHING,
        }
    )
    async with (
        serving(authenticator=tokens) as served,
        Connection.connect(served.port) as wire,
    ):
        yield Tenant(wire, "one", 1), Tenant(wire, "two", 2), Tenant(wire, "all", 9)


Tenants = tuple[Tenant, Tenant, Tenant]


async def test_the_other_tenants_user_looks_like_one_that_never_had_credits(
    tenants: Tenants,
) -> None:
    one, two, _ = tenants
    await one.add()
    await one.use()
    assert await two.holdings() == UserCredits(user_id=7)
    assert await two.purchases() == []
    assert await two.transactions() == []


async def test_each_tenant_sees_their_own_balances_and_nothing_of_all_apps_together(
    tenants: Tenants,
) -> None:
    one, two, everybody = tenants
    await one.add(50)
    await two.add(70)
    await two.add(5, app=3)
    whole = await everybody.holdings()
    assert (whole.revision, whole.created_by, whole.updated_by) == (3, 1, 2)
    assert await one.holdings() == UserCredits(
        id=whole.id, user_id=7, balances=[Balance(app_id=1, balance=50)]
    )
    assert await two.holdings() == UserCredits(
        id=whole.id,
        user_id=7,
        balances=[Balance(app_id=2, balance=70), Balance(app_id=3, balance=5)],
    )


async def test_each_tenant_lists_their_own_entries_in_their_order(tenants: Tenants) -> None:
    one, two, everybody = tenants
    for _ in range(3):
        await one.add()
        await two.add()
        await one.use()
    assert [entry.sequence for entry in await one.transactions()] == [1, 3, 4, 6, 7, 9]
    assert [entry.sequence for entry in await two.transactions()] == [2, 5, 8]
    assert {entry.app_id for entry in await two.transactions()} == {2}
    assert [entry.report_id for entry in await one.purchases()] == ["r-1"] * 3
    assert await two.purchases() == []
    assert len(await everybody.transactions()) == 9
    assert len(await everybody.purchases()) == 3


async def test_a_tenant_may_know_the_sum_of_their_own_app_alone(tenants: Tenants) -> None:
    one, two, _ = tenants
    await one.add(50)
    assert (await one.balance(app_id=1)).message(Balance).balance == 50
    assert (await one.balance(app_id=1, user_id=7)).message(Balance).balance == 50
    for fields in ({"app_id": 1}, {"app_id": 1, "user_id": 7}, {"app_id": 1, "user_id": 0}):
        refused = await two.balance(**fields)
        assert (refused.status, info(refused).metadata) == (
            Status.PERMISSION_DENIED,
            {"app_id": "1"},
        )


async def test_a_refusal_reveals_only_the_tenants_own_balance(tenants: Tenants) -> None:
    one, two, _ = tenants
    await one.add(1000)
    await two.add(3)
    assert info(await two.use(5)).metadata == {"available": "3", "required": "5", "shortfall": "2"}


@pytest.mark.parametrize("first", ["add", "use"])
@pytest.mark.parametrize("second", ["add", "use"])
async def test_a_key_of_another_app_is_as_free_as_any_other_key(
    tenants: Tenants, first: str, second: str
) -> None:
    one, two, _ = tenants
    for tenant in (one, two):
        await tenant.add(100)
    written = await (one.add(11, key="k") if first == "add" else one.use(11, key="k"))
    receipts = []
    for key in ("k", "another"):
        answer = await (two.add(12, key=key) if second == "add" else two.use(12, key=key))
        assert answer.message(Empty) == Empty()
        receipts.append(decode(Receipt, answer.binary("credit-receipt-bin")))
    assert written.message(Empty) == Empty()
    assert [receipt.replayed for receipt in receipts] == [False, False]
    assert receipts[1].sequence == receipts[0].sequence + 1


async def test_a_key_of_the_tenants_own_app_names_all_that_differs(tenants: Tenants) -> None:
    one, _, _ = tenants
    await one.add(50, key="k")
    assert info(await one.add(51, key="k")).metadata == {"fields": "credits"}
    assert info(await one.use(51, key="k")).metadata == {"fields": "call"}


async def test_an_identity_of_all_apps_uses_a_key_once_in_each(tenants: Tenants) -> None:
    one, _, everybody = tenants
    await one.add(50, key="k")
    reused = await everybody.add(51, key="k", app=1)
    assert info(reused).metadata == {"fields": "credits,created_by"}
    elsewhere = await everybody.add(51, key="k", app=2)
    assert elsewhere.message(Empty) == Empty()


async def test_a_key_of_the_other_tenant_gets_a_receipt_of_ones_own(tenants: Tenants) -> None:
    one, two, _ = tenants
    await one.add(50, key="k")
    again = decode(Receipt, (await one.add(50, key="k")).binary("credit-receipt-bin"))
    assert (again.replayed, again.sequence) == (True, 1)
    other = decode(Receipt, (await two.add(50, key="k")).binary("credit-receipt-bin"))
    assert (other.replayed, other.sequence) == (False, 2)
    assert other.transaction_id != again.transaction_id


# ---- how much one call may add


def receipt(answer: Answer) -> Receipt:
    assert answer.message(Empty) == Empty()
    return decode(Receipt, answer.binary("credit-receipt-bin"))


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (AddLimits(), 100),
        (AddLimits(default=40), 40),
        (AddLimits(default=400), 100),
        (AddLimits(by_app={1: 30}), 30),
        (AddLimits(default=40, by_app={2: 30}), 40),
        (AddLimits(default=40, by_app={1: 60}), 60),
    ],
)
async def test_the_least_of_the_servers_and_the_identitys_limit_bounds_what_one_call_adds(
    limits: AddLimits, limit: int
) -> None:
    limited = FakeAuthenticator({"shop": replace(EVERYTHING, add_limits=limits)})
    async with (
        serving(authenticator=limited, credits_max=100) as served,
        Connection.connect(served.port) as wire,
    ):
        shop = Tenant(wire, "shop", 1)
        refused = await shop.add(limit + 1)
        assert refused.status is Status.OUT_OF_RANGE
        assert info(refused).reason == "CREDITS_LIMIT_EXCEEDED"
        assert dict(info(refused).metadata) == {"credits": str(limit + 1), "limit": str(limit)}
        assert not (await shop.holdings()).balances
        assert (await shop.add(limit)).status is Status.OK


async def test_a_retry_succeeds_although_the_limit_was_lowered_meanwhile() -> None:
    identities = {"shop": EVERYTHING}
    async with (
        serving(authenticator=FakeAuthenticator(identities)) as served,
        Connection.connect(served.port) as wire,
    ):
        shop = Tenant(wire, "shop", 1)
        first = receipt(await shop.add(50, key="k"))
        identities["shop"] = replace(EVERYTHING, add_limits=AddLimits(default=1))
        again = receipt(await shop.add(50, key="k"))
        assert again.replayed
        assert again.transaction_id == first.transaction_id


async def test_what_a_purchase_costs_is_not_bounded_by_the_limit() -> None:
    limited = FakeAuthenticator({"shop": replace(EVERYTHING, add_limits=AddLimits(default=5))})
    async with serving(authenticator=limited) as served, Connection.connect(served.port) as wire:
        shop = Tenant(wire, "shop", 1)
        for _ in range(2):
            await shop.add(5)
        assert (await shop.use(10)).status is Status.OK


# ---- grants, holds, transfers and policies


@pytest.fixture
async def callers() -> AsyncIterator[tuple[WireCaller, WireCaller, WireCaller]]:
    """Callers of app 1, of the apps 2 and 3, and of all apps. User 7 has credits in all three."""
    apps = {"one": frozenset({1}), "two": frozenset({2, 3}), "all": None}
    tokens = FakeAuthenticator(
        {name: replace(EVERYTHING, name=name, apps=own) for name, own in apps.items()}
    )
    async with (
        serving(authenticator=tokens) as served,
        Connection.connect(served.port) as wire,
    ):
        one, two, everybody = (WireCaller(wire, name) for name in apps)
        for app_id in (1, 2, 3):
            await everybody.write("AddCredits", app_id=app_id, credits=100)
        yield one, two, everybody


Callers = tuple[WireCaller, WireCaller, WireCaller]
SOON = datetime.now(UTC) + timedelta(days=1)


@pytest.mark.parametrize(
    "call",
    [
        "GetAppPolicy",
        "GetSpendingCap",
        "ListGrants",
        "ListHolds",
        "GetForecast",
        "GetAppBalance",
        "ListAlerts",
        "ListAlertEvents",
        "ListWebhooks",
        "ListDeadLetters",
    ],
)
async def test_nothing_is_read_in_another_tenants_app(callers: Callers, call: str) -> None:
    one, two, _ = callers
    assert (await one.call(call, request_of(call))).status is Status.OK
    refused = await two.call(call, request_of(call))
    assert (refused.status, info(refused).metadata) == (Status.PERMISSION_DENIED, {"app_id": "1"})


@pytest.mark.parametrize("call", [*WRITES, *OTHER_WRITES])
async def test_nothing_is_written_in_another_tenants_app(callers: Callers, call: str) -> None:
    _, two, _ = callers
    request = request_of(call)
    refused = await two.call(call, request)
    assert (refused.status, info(refused).metadata) == (Status.PERMISSION_DENIED, {"app_id": "1"})
    if call in WRITES:
        for around in ("BatchWrite/", "Write/"):
            assert info(await two.call(around + call, request)).reason == "APP_NOT_ALLOWED"


@pytest.mark.parametrize(
    ("call", "field", "reason"),
    [
        ("VoidGrant", "grant_id", "GRANT_NOT_FOUND"),
        ("CaptureHold", "hold_id", "HOLD_NOT_FOUND"),
        ("ReleaseHold", "hold_id", "HOLD_NOT_FOUND"),
        ("ExtendHold", "hold_id", "HOLD_NOT_FOUND"),
        ("ReverseTransaction", "transaction_id", "TRANSACTION_NOT_FOUND"),
    ],
)
async def test_an_id_of_another_tenants_app_looks_like_one_that_never_was(
    callers: Callers, call: str, field: str, reason: str
) -> None:
    one, two, _ = callers
    place = {"VoidGrant": "GrantCredits", "ReverseTransaction": "UseCredits"}
    placed = await one.write(place.get(call, "PlaceHold"), credits=10)
    found = []
    for id_ in (placed.transaction_id, ANY_ID):
        answer = await two.call(call, request_of(call, app_id=2, **{field: id_}))
        found.append((answer.status, answer.sentence, info(answer).reason))
        assert info(answer).metadata == {field: id_}
    assert found[0] == found[1]
    assert found[0][2] == reason


async def test_each_tenant_sees_their_own_grants_holds_and_forecast(callers: Callers) -> None:
    one, two, _ = callers
    await one.write("GrantCredits", credits=10, expires_at=SOON)
    await one.write("PlaceHold", credits=5)
    whole = (await one.call("GetUserCredits", USER)).message(UserCredits)
    (balance,) = whole.balances
    assert (balance.held, balance.expiring_next is not None) == (5, True)
    assert len((await one.read("ListGrants")).grants) == 1
    assert len((await one.read("ListHolds", include_settled=True)).holds) == 1
    assert len((await one.read("GetForecast")).steps) == 2
    for app_id in (2, 3):
        grants = await two.read("ListGrants", app_id=app_id)
        assert (grants.grants, grants.base_credits) == ([], 100)
        assert (await two.read("ListHolds", app_id=app_id, include_settled=True)).holds == []
        assert (await two.read("GetForecast", app_id=app_id)).steps == []
    others = (await two.call("GetUserCredits", USER)).message(UserCredits).balances
    assert others == [Balance(app_id=2, balance=100), Balance(app_id=3, balance=100)]


@pytest.mark.parametrize(("source", "target", "denied"), [(2, 1, 1), (1, 2, 1), (3, 2, None)])
async def test_a_transfer_needs_both_apps(
    callers: Callers, source: int, target: int, denied: int | None
) -> None:
    _, two, everybody = callers
    request = request_of("TransferCredits", app_id=source, to_app_id=target)
    for around in ("", "BatchWrite/", "Write/"):
        answer = await two.call(around + "TransferCredits", replace(request, credits=10))
        if denied is None:
            assert answer.status is Status.OK
        else:
            assert info(answer).metadata == {"app_id": str(denied)}
    allowed = await everybody.call("TransferCredits", replace(request, credits=10))
    assert allowed.status is Status.OK


async def test_the_other_side_of_a_transfer_is_seen_by_its_own_tenant_alone(
    callers: Callers,
) -> None:
    one, two, everybody = callers
    note, metadata = "between us", {"deal": "d-1"}
    await everybody.write("TransferCredits", credits=30, note=note, metadata=metadata)
    await everybody.write("TransferCredits", to_user_id=8, to_app_id=3, credits=20)
    entries = {
        name: (await caller.call("ListUserTransactions", user)).messages(CreditTransaction)
        for name, caller, user in (
            ("out", one, USER),
            ("in", two, USER),
            ("to 8", two, UserId(user_id=8)),
            ("hidden", one, UserId(user_id=8)),
        )
    }
    assert [each.effect for each in entries["out"]] == [100, -30, -20]
    assert {each.app_id for each in entries["out"]} == {1}
    assert [(each.app_id, each.effect) for each in entries["in"]] == [(2, 100), (3, 100), (2, 30)]
    assert [(each.app_id, each.effect) for each in entries["to 8"]] == [(3, 20)]
    assert entries["hidden"] == []
    received = entries["in"][-1]
    assert (received.note, received.metadata, received.idempotency_key) == ("", {}, "")
    # The id of the other side is opaque: it opens nothing in one's own app.
    answer = await two.call(
        "ReverseTransaction",
        request_of("ReverseTransaction", app_id=2, transaction_id=received.related_id),
    )
    assert info(answer).reason == "TRANSACTION_NOT_FOUND"


@pytest.mark.parametrize("call", ["GrantCredits", "AdjustBalance"])
async def test_the_limit_of_what_one_call_adds_holds_for_grants_and_adjustments(call: str) -> None:
    limited = replace(EVERYTHING, add_limits=AddLimits(default=400, by_app={1: 40}))
    async with open_wire(
        authenticator=FakeAuthenticator({"secret": limited}), credits_max=300
    ) as caller:
        field = "delta" if call == "AdjustBalance" else "credits"
        for app_id, limit in ((1, 40), (2, 300)):
            for around in ("", "BatchWrite/", "Write/"):
                request = request_of(call, app_id=app_id, **{field: limit + 1})
                refused = await caller.call(around + call, request)
                assert info(refused).reason == "CREDITS_LIMIT_EXCEEDED"
                assert info(refused).metadata == {"credits": str(limit + 1), "limit": str(limit)}
            await caller.write(call, app_id=app_id, **{field: limit})
        if call == "AdjustBalance":
            await caller.write(call, app_id=2, delta=-300)


@pytest.mark.parametrize("call", [*WRITES, *OTHER_WRITES])
async def test_each_write_requires_its_scope_alone(call: str) -> None:
    scope = METHOD_SCOPES[PATHS[call]]
    for scopes, denied in ((frozenset({scope}), False), (EVERYTHING.scopes - {scope}, True)):
        tokens = FakeAuthenticator({"secret": replace(EVERYTHING, scopes=scopes)})
        async with open_wire(authenticator=tokens) as caller:
            arounds = ("", "BatchWrite/", "Write/") if call in WRITES else ("",)
            for around in arounds:
                answer = await caller.call(around + call, request_of(call))
                reason = "" if answer.status is Status.OK else info(answer).reason
                assert (reason == "SCOPE_MISSING") is denied
