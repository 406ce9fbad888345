"""The reads, as a client sees them on the wire: everything is as it is now."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

import pytest
from credit_models import (
    AppId,
    Balance,
    CreditTransaction,
    ExpiringCredits,
    ForecastStep,
    GetForecastResponse,
    Grant,
    GrantCategory,
    Hold,
    HoldState,
    ListHoldsResponse,
    Purchase,
    TransactionType,
    UserCredits,
    UserId,
)
from credit_server.admission.list_slots import ListSlots
from credit_server.store.memory import MemoryStore
from credit_server.store.port import HoldRow
from grpclib.const import Status

from tests.server.callers import WireCaller, open_wire
from tests.server.clocks import NOON, Clocks
from tests.server.requests import request_of
from tests.server.serving import until

HOUR = timedelta(hours=1)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
async def caller(clocks: Clocks) -> AsyncIterator[WireCaller]:
    async with open_wire(clock=clocks.clock()) as caller:
        yield caller


def after(hours: float) -> datetime:
    return NOON + hours * HOUR


async def balance(caller: WireCaller) -> Balance:
    answer = await caller.call("GetAppBalance", AppId(app_id=1, user_id=7))
    found = answer.message(Balance)
    everything = (await caller.call("GetUserCredits", UserId(user_id=7))).message(UserCredits)
    assert found.revision == everything.revision
    found.revision = 0
    assert [each for each in everything.balances if each.app_id == 1] in ([], [found])
    return found


async def holds(caller: WireCaller, **changed: object) -> list[Hold]:
    answer: ListHoldsResponse = await caller.read("ListHolds", **changed)
    return answer.holds


class TestBalances:
    """Balances show what is held, owed, and expires next."""

    async def test_held_credits_are_not_in_the_balance(self, caller: WireCaller) -> None:
        await caller.write("AddCredits")
        await caller.write("PlaceHold", credits=20)
        assert await balance(caller) == Balance(app_id=1, balance=30, held=20)

    async def test_what_a_hold_held_is_spendable_from_its_end_on(
        self, caller: WireCaller, clocks: Clocks
    ) -> None:
        await caller.write("AddCredits")
        await caller.write("PlaceHold", credits=20, expires_after_seconds=60)
        clocks.advance(59.999)
        assert (await balance(caller)).held == 20
        clocks.advance(0.001)
        assert await balance(caller) == Balance(app_id=1, balance=50)
        assert (await caller.write("UseCredits")).balance == 0

    async def test_a_grant_counts_from_its_start_to_its_end(
        self, caller: WireCaller, clocks: Clocks
    ) -> None:
        await caller.write("AddCredits", credits=1)
        await caller.write("GrantCredits", effective_at=after(1), expires_after_seconds=3600)
        expiring = ExpiringCredits(credits=50, at=after(2))
        found = []
        for _ in range(3):
            found.append(await balance(caller))
            clocks.advance(3600)
        assert found == [
            Balance(app_id=1, balance=1, expiring_next=expiring),
            Balance(app_id=1, balance=51, expiring_next=expiring),
            Balance(app_id=1, balance=1),
        ]

    async def test_what_expires_first_is_shown_with_all_that_expires_then(
        self, caller: WireCaller
    ) -> None:
        for hours, priority in ((3, 1), (2, 2), (2, 3), (4, 0)):
            await caller.write("GrantCredits", expires_at=after(hours), priority=priority)
        shown = (await balance(caller)).expiring_next
        assert shown == ExpiringCredits(credits=100, at=after(2))

    async def test_a_debt_is_owed_and_the_balance_is_0(self, caller: WireCaller) -> None:
        await caller.call("SetAppPolicy", request_of("SetAppPolicy"))
        await caller.write("AddCredits")
        receipt = await caller.write("AdjustBalance", delta=-60)
        assert (receipt.balance_before, receipt.balance, receipt.owed) == (50, 0, 10)
        assert await balance(caller) == Balance(app_id=1, owed=10)
        paid = await caller.write("AddCredits", credits=4)
        assert (paid.balance, paid.owed) == (0, 6)
        entries = (await caller.call("ListUserTransactions", UserId(user_id=7))).messages(
            CreditTransaction
        )
        assert [(each.effect, each.balance_after, each.owed_after) for each in entries] == [
            (50, 50, 0),
            (-60, 0, 10),
            (4, 0, 6),
        ]

    async def test_a_read_writes_nothing(self, caller: WireCaller, clocks: Clocks) -> None:
        await caller.write("GrantCredits", expires_at=after(1))
        clocks.advance(3600)
        before = (await caller.call("GetUserCredits", UserId(user_id=7))).message(UserCredits)
        for call in ("ListGrants", "ListHolds", "GetForecast", "GetSpendingCap"):
            await caller.read(call)
        after_ = (await caller.call("GetUserCredits", UserId(user_id=7))).message(UserCredits)
        assert before == after_
        assert before.revision == 1


class TestGrants:
    """ListGrants."""

    async def test_a_user_without_grants_has_base_credits(self, caller: WireCaller) -> None:
        found = await caller.read("ListGrants")
        assert (found.grants, found.base_credits) == ([], 0)
        await caller.write("AddCredits")
        found = await caller.read("ListGrants")
        assert (found.grants, found.base_credits) == ([], 50)

    async def test_grants_come_in_the_order_in_which_they_are_spent(
        self, caller: WireCaller, clocks: Clocks
    ) -> None:
        await caller.write("AddCredits", credits=5)
        late = await caller.write("GrantCredits", credits=10)
        soon = await caller.write("GrantCredits", credits=20, expires_at=after(1))
        first = await caller.write(
            "GrantCredits", credits=30, priority=1, category=GrantCategory.PROMOTIONAL
        )
        waiting = await caller.write("GrantCredits", credits=40, effective_at=after(2))
        found = await caller.read("ListGrants")
        assert found.base_credits == 5
        assert found.grants == [
            Grant(
                id=first.transaction_id,
                sequence=4,
                credits=30,
                left=30,
                priority=1,
                category=GrantCategory.PROMOTIONAL,
            ),
            Grant(
                id=soon.transaction_id,
                sequence=3,
                credits=20,
                left=20,
                priority=500,
                expires_at=after(1),
            ),
            Grant(id=late.transaction_id, sequence=2, credits=10, left=10, priority=500),
            Grant(
                id=waiting.transaction_id,
                sequence=5,
                credits=40,
                left=40,
                priority=500,
                effective_at=after(2),
            ),
        ]
        await caller.write("UseCredits", credits=33)
        clocks.advance(3600)
        left = {grant.id: grant.left for grant in (await caller.read("ListGrants")).grants}
        assert left == {late.transaction_id: 10, waiting.transaction_id: 40}


class TestHolds:
    """ListHolds."""

    async def test_open_holds_show_what_they_hold(self, caller: WireCaller) -> None:
        await caller.write("AddCredits")
        placed = await caller.write("PlaceHold", credits=20, purpose="an answer")
        await caller.write("CaptureHold", hold_id=placed.transaction_id, credits=7, final=False)
        expected = Hold(
            id=placed.transaction_id,
            sequence=2,
            credits=20,
            held=13,
            captured=7,
            state=HoldState.OPEN,
            placed_at=NOON,
            expires_at=after(0.25),
            purpose="an answer",
            created_by=9,
        )
        assert await holds(caller) == [expected]
        assert await holds(caller, include_settled=True) == [expected]

    async def test_settled_holds_show_how_they_were_settled(
        self, caller: WireCaller, clocks: Clocks
    ) -> None:
        await caller.write("AddCredits", credits=100)
        captured, released, expired, kept = [
            (await caller.write("PlaceHold", credits=20, purpose="p")).transaction_id
            for _ in range(4)
        ]
        clocks.advance(60)
        await caller.write("CaptureHold", hold_id=captured, credits=7)
        await caller.write("CaptureHold", hold_id=released, credits=1, final=False)
        await caller.write("ReleaseHold", hold_id=released)
        await caller.write("ExtendHold", hold_id=kept, expires_after_seconds=3600)
        clocks.advance(15 * 60)
        minute = NOON + timedelta(minutes=1)
        found = await holds(caller, include_settled=True)
        shown = [(each.id, each.state, each.held, each.captured, each.released) for each in found]
        assert shown == [
            (captured, HoldState.CAPTURED, 0, 7, 13),
            (released, HoldState.RELEASED, 0, 1, 19),
            (expired, HoldState.EXPIRED, 0, 0, 20),
            (kept, HoldState.OPEN, 20, 0, 0),
        ]
        assert [each.settled_at for each in found] == [minute, minute, after(0.25), None]
        assert [each.expires_at for each in found][2:] == [after(0.25), minute + HOUR]
        assert {(each.purpose, each.created_by, each.credits) for each in found} == {("p", 9, 20)}
        assert [each.id for each in await holds(caller)] == [kept]
        # The entry of the hold's end is written by the next write, and shows the same.
        await caller.write("AddCredits", credits=1)
        assert await holds(caller, include_settled=True) == found

    @pytest.mark.parametrize("settling", ["CaptureHold", "ReleaseHold"])
    async def test_a_settled_hold_shows_the_end_to_which_it_was_extended(
        self, caller: WireCaller, settling: str
    ) -> None:
        await caller.write("AddCredits")
        placed = await caller.write("PlaceHold", credits=20)
        hold_id = placed.transaction_id
        await caller.write("ExtendHold", hold_id=hold_id, expires_after_seconds=3600)
        await caller.write(settling, hold_id=hold_id)
        (settled,) = await holds(caller, include_settled=True)
        assert settled.expires_at == after(1)

    @pytest.mark.parametrize("include_settled", [False, True])
    async def test_holds_come_in_pages(self, caller: WireCaller, include_settled: bool) -> None:
        await caller.write("AddCredits", credits=100)
        placed = [(await caller.write("PlaceHold", credits=1)).transaction_id for _ in range(5)]
        found, sizes, position = [], [], 0
        while True:
            page: ListHoldsResponse = await caller.read(
                "ListHolds", include_settled=include_settled, after_sequence=position, page_size=2
            )
            found += [hold.id for hold in page.holds]
            sizes.append(len(page.holds))
            position = page.next_after_sequence
            if not position:
                break
        assert found == placed
        assert sizes == [2, 2, 1]
        everything: ListHoldsResponse = await caller.read("ListHolds", page_size=5)
        assert (len(everything.holds), everything.next_after_sequence) == (5, 0)

    async def test_a_page_without_a_size_has_100_holds(self, caller: WireCaller) -> None:
        await caller.write("AddCredits", credits=101)
        for _ in range(101):
            await caller.write("PlaceHold", credits=1)
        page: ListHoldsResponse = await caller.read("ListHolds")
        assert (len(page.holds), page.next_after_sequence) == (100, 101)


class GatedHolds(MemoryStore):
    """Reads holds one at a time, when the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.allowed = asyncio.Semaphore(0)

    async def hold_entries(
        self,
        user_id: int,
        app_id: int,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
        limit: int,
    ) -> Sequence[HoldRow]:
        self.asked += 1
        await self.allowed.acquire()
        return []


async def test_pages_of_holds_take_turns_with_other_lists() -> None:
    store, slots = GatedHolds(), ListSlots(at_once=1, wait_seconds_max=3600.0)
    async with open_wire(store, list_slots=slots) as caller:
        pages = [asyncio.create_task(holds(caller, include_settled=True)) for _ in range(2)]
        other = asyncio.create_task(caller.call("ListUserTransactions", UserId(user_id=7)))
        await until(lambda: sum(map(len, slots._waiting.values())) == 2)
        assert store.asked == 1
        store.allowed.release()
        await until(lambda: store.asked == 2)
        store.allowed.release()
        assert await asyncio.gather(*pages) == [[], []]
        assert (await other).status is Status.OK


class TestForecast:
    """GetForecast."""

    async def forecast(self, caller: WireCaller, **changed: object) -> GetForecastResponse:
        found: GetForecastResponse = await caller.read("GetForecast", **changed)
        user = (await caller.call("GetUserCredits", UserId(user_id=7))).message(UserCredits)
        assert found.revision == user.revision
        found.revision = 0
        return found

    async def test_what_time_changes_is_listed_by_its_instant(
        self, caller: WireCaller, clocks: Clocks
    ) -> None:
        await caller.write("AddCredits", credits=10)
        grant = await caller.write("GrantCredits", expires_at=after(3))
        later = await caller.write("GrantCredits", credits=7, effective_at=after(1))
        hold = await caller.write("PlaceHold", credits=20, expires_after_seconds=7200)

        def step(
            hours: int, kind: TransactionType, id_: str, effect: int, left: int
        ) -> ForecastStep:
            return ForecastStep(
                at=after(hours),
                type=kind,
                related_id=id_,
                credits=abs(effect),
                effect=effect,
                balance_after=left,
            )

        steps = [
            step(1, TransactionType.ACTIVATE, later.transaction_id, 7, 47),
            step(2, TransactionType.RELEASE, hold.transaction_id, 20, 67),
            step(3, TransactionType.EXPIRE, grant.transaction_id, -50, 17),
        ]
        assert await self.forecast(caller) == GetForecastResponse(balance=40, steps=steps)
        until = await self.forecast(caller, until=after(2))
        assert until == GetForecastResponse(balance=40, steps=steps[:2])
        assert (await self.forecast(caller, until=after(-1))).steps == []
        clocks.advance(2 * 3600)
        assert await self.forecast(caller) == GetForecastResponse(balance=67, steps=steps[2:])

    async def test_a_user_without_grants_and_holds_has_no_steps(self, caller: WireCaller) -> None:
        assert await self.forecast(caller) == GetForecastResponse()
        await caller.write("AddCredits")
        assert await self.forecast(caller) == GetForecastResponse(balance=50)

    async def test_other_apps_are_not_in_a_forecast(self, caller: WireCaller) -> None:
        await caller.write("GrantCredits", app_id=2, expires_at=after(1))
        assert await self.forecast(caller) == GetForecastResponse()


async def test_entries_show_where_credits_came_from_and_what_they_refer_to(
    caller: WireCaller, clocks: Clocks
) -> None:
    await caller.write("AddCredits", credits=10)
    grant = await caller.write("GrantCredits", credits=20, expires_at=after(1), priority=1)
    used = await caller.write("UseCredits", credits=25)
    await caller.write("ReverseTransaction", transaction_id=used.transaction_id, credits=24)
    clocks.advance(3600)
    await caller.write("AddCredits", credits=1)
    entries = (await caller.call("ListUserTransactions", UserId(user_id=7))).messages(
        CreditTransaction
    )
    shown = [
        (
            each.type,
            each.effect,
            each.related_id,
            [(part.grant_id, part.credits) for part in each.allocations],
        )
        for each in entries
    ]
    place = grant.transaction_id
    assert shown == [
        (TransactionType.ADD, 10, "", []),
        (TransactionType.GRANT, 20, "", [(place, 20)]),
        (TransactionType.USE, -25, "", [(place, 20), ("", 5)]),
        (TransactionType.REFUND, 24, used.transaction_id, [(place, 20), ("", 4)]),
        (TransactionType.EXPIRE, -20, place, [(place, 20)]),
        (TransactionType.ADD, 1, "", []),
    ]
    assert entries[1].expires_at == entries[4].effective_at == after(1)
    assert (entries[2].report_id, entries[2].report_name) == ("r", "Report")
    assert sum(each.effect for each in entries) == (await balance(caller)).balance == 10
    (purchase,) = (await caller.call("ListUserPurchases", UserId(user_id=7))).messages(Purchase)
    assert (purchase.id, purchase.refunded_credits) == (used.purchase_id, 24)


@pytest.mark.parametrize("call", ["ListGrants", "ListHolds", "GetForecast", "GetSpendingCap"])
async def test_a_user_that_never_had_credits_has_an_empty_answer(
    caller: WireCaller, call: str
) -> None:
    answer = await caller.call(call, request_of(call, user_id=4_000_000_000))
    assert answer.status is Status.OK
    assert bytes(answer.data) == bytes(5)
