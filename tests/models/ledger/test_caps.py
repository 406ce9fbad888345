"""Test spending caps: what counts, and the edges of hours, days and months of UTC."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_models.ledger import (
    NO_CAPS,
    NO_POLICY,
    UINT32_MAX,
    Accepted,
    AdjustBalance,
    AppAccount,
    CapExceeded,
    Caps,
    CapStatus,
    CaptureHold,
    Kind,
    Period,
    PeriodSpending,
    PlaceHold,
    Policy,
    ReverseTransaction,
    SetSpendingCap,
    TransferCredits,
    Use,
    cap_statuses,
)

from tests.models.ledger.history import NOON, Ledger

MILLISECOND = timedelta(milliseconds=1)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)


def capped(**caps: int) -> Ledger:
    """Return a ledger of a user that has 1,000 credits and caps."""
    ledger = Ledger()
    ledger.add(1000)
    ledger.do(SetSpendingCap, caps=Caps(**caps))
    return ledger


def use(ledger: Ledger, credits_: int, **arguments: Any) -> object:
    return ledger.outcome(Use, credits=credits_, **ledger.report(), **arguments)


def exceeded(**changes: Any) -> CapExceeded:
    values: dict[str, Any] = {
        "period": Period.HOUR,
        "cap": 10,
        "spent": 0,
        "held": 0,
        "required": 1,
        "resets_at": NOON + timedelta(hours=1),
    }
    return CapExceeded(**{**values, **changes})


def test_a_cap_is_an_entry_of_no_effect() -> None:
    ledger = capped(hour=10, day=5)
    entry = ledger.entries[7][-1]
    assert (entry.kind, entry.credits, entry.effect, entry.balance_after) == (Kind.CAP, 5, 0, 1000)
    assert ledger.app.caps == Caps(hour=10, day=5)
    assert ledger.do(SetSpendingCap, caps=NO_CAPS).credits == UINT32_MAX
    assert ledger.app.caps == NO_CAPS


def test_uses_of_a_period_fit_into_its_cap() -> None:
    ledger = capped(hour=10)
    ledger.use(6)
    assert use(ledger, 5) == exceeded(spent=6, required=5)
    ledger.use(4)
    assert use(ledger, 1) == exceeded(spent=10)


def test_the_shortest_period_is_named_and_each_is_checked() -> None:
    ledger = capped(hour=10, day=12, month=14)
    assert use(ledger, 20) == exceeded(required=20)
    ledger.use(10)
    ledger.wait(hours=1)
    assert use(ledger, 3) == exceeded(
        period=Period.DAY, cap=12, spent=10, required=3, resets_at=datetime(2026, 6, 16, tzinfo=UTC)
    )
    ledger.wait(days=1)
    assert use(ledger, 5) == exceeded(
        period=Period.MONTH,
        cap=14,
        spent=10,
        required=5,
        resets_at=datetime(2026, 7, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        (Period.HOUR, "2026-06-15T12:00", "2026-06-15T13:00"),
        (Period.HOUR, "2026-12-31T23:00", "2027-01-01T00:00"),
        (Period.HOUR, "2026-03-29T01:00", "2026-03-29T02:00"),  # clocks change in Europe
        (Period.DAY, "2028-02-28T00:00", "2028-02-29T00:00"),
        (Period.DAY, "2028-02-29T00:00", "2028-03-01T00:00"),
        (Period.DAY, "2027-02-28T00:00", "2027-03-01T00:00"),
        (Period.MONTH, "2028-02-01T00:00", "2028-03-01T00:00"),
        (Period.MONTH, "2027-02-01T00:00", "2027-03-01T00:00"),
        (Period.MONTH, "2026-04-01T00:00", "2026-05-01T00:00"),
        (Period.MONTH, "2026-12-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_a_period_lasts_from_its_start_to_just_before_its_end(
    period: Period, start: str, end: str
) -> None:
    first, after = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end))
    ledger = Ledger()
    ledger.now = first - MILLISECOND
    ledger.add(100)
    ledger.do(SetSpendingCap, caps=Caps(**{period.value: 10}))
    ledger.use(7)
    ledger.now = first
    ledger.use(10)
    refusal = exceeded(period=period, spent=10, resets_at=after)
    assert use(ledger, 1) == refusal
    ledger.now = after - MILLISECOND
    assert use(ledger, 1) == refusal
    ledger.now = after
    ledger.use(10)


def test_open_holds_count_and_a_capture_does_not_count_twice() -> None:
    ledger = capped(hour=10)
    ledger.hold(6, "h")
    assert use(ledger, 5) == exceeded(held=6, required=5)
    assert ledger.outcome(PlaceHold, credits=5) == exceeded(held=6, required=5)
    ledger.do(CaptureHold, hold_id="h", credits=4, **ledger.report())
    assert use(ledger, 7) == exceeded(spent=4, required=7)
    ledger.use(6)


def test_a_capture_is_checked_only_for_its_excess() -> None:
    ledger = capped(hour=10)
    ledger.hold(6, "h")
    ledger.do(SetSpendingCap, caps=Caps(hour=5))
    captured = ledger.outcome(CaptureHold, hold_id="h", credits=6, **ledger.report())
    assert isinstance(captured, Accepted)
    excess: dict[str, Any] = {"credits": 7, "allow_excess": True}
    assert ledger.outcome(CaptureHold, hold_id="h", **excess, **ledger.report()) == exceeded(
        cap=5, held=6
    )


def test_a_partial_hold_is_checked_for_what_it_takes() -> None:
    ledger = Ledger()
    ledger.add(8)
    ledger.do(SetSpendingCap, caps=Caps(hour=10))
    assert ledger.hold(20, allow_partial=True).credits == 8


def test_a_refund_gives_back_in_the_period_of_the_use_only() -> None:
    ledger = capped(hour=10, day=20)
    ledger.use(10, "u")
    ledger.do(ReverseTransaction, reversed_id="u", credits=4)
    assert use(ledger, 5) == exceeded(spent=6, required=5)
    ledger.wait(hours=1)
    ledger.use(10)
    ledger.do(ReverseTransaction, reversed_id="u")
    assert use(ledger, 1) == exceeded(
        spent=10, resets_at=NOON + timedelta(hours=2)
    )  # the use was an hour ago
    ledger.wait(hours=1)
    ledger.use(10)  # and in the same day: 10 of 20 are given back


def test_transfers_and_adjustments_do_not_count() -> None:
    ledger = capped(hour=10)
    ledger.do(TransferCredits, credits=100, to_user_id=8, to_app_id=1)
    ledger.do(AdjustBalance, delta=-100, note="why")
    ledger.use(10)


def test_a_users_own_caps_replace_those_of_the_app() -> None:
    policy = Policy(caps=Caps(hour=3))
    ledger = Ledger()
    ledger.add(100)
    assert use(ledger, 4, policy=policy) == exceeded(cap=3, required=4)
    ledger.use(2, policy=policy)
    ledger.do(SetSpendingCap, caps=Caps(day=50), policy=policy)
    ledger.use(10, policy=policy)
    ledger.do(SetSpendingCap, caps=NO_CAPS, policy=policy)
    assert use(ledger, 1, policy=policy) == exceeded(cap=3, spent=12)


def counted(credits_: int, since: int) -> tuple[PeriodSpending, ...]:
    """Return the counters of uses of this hour."""
    starts = {Period.HOUR: NOON, Period.DAY: NOON.replace(hour=0), Period.MONTH: JUNE}
    return tuple(
        PeriodSpending(period=period, starts_at=starts_at, credits=credits_, since=since)
        for period, starts_at in starts.items()
    )


def test_all_periods_are_counted_from_the_first_use_under_a_cap_of_the_app() -> None:
    ledger = Ledger()
    ledger.add(100)
    ledger.use(5)
    assert ledger.accounts[7].apps == {}
    ledger.use(2, policy=Policy(caps=Caps(hour=3)))
    assert ledger.app.spent == counted(2, since=3)


def test_a_cap_of_another_period_finds_what_was_counted() -> None:
    ledger = capped(hour=10)
    ledger.use(9)
    ledger.do(SetSpendingCap, caps=Caps(month=10))
    ledger.wait(days=3)
    assert use(ledger, 2) == exceeded(
        period=Period.MONTH, spent=9, required=2, resets_at=datetime(2026, 7, 1, tzinfo=UTC)
    )


def test_caps_that_are_removed_and_set_again_keep_what_was_counted() -> None:
    ledger = capped(hour=10)
    ledger.use(6)
    ledger.do(SetSpendingCap, caps=NO_CAPS)
    ledger.use(20)
    ledger.do(SetSpendingCap, caps=Caps(hour=30))
    assert use(ledger, 5) == exceeded(cap=30, spent=26, required=5)


def test_caps_that_are_removed_and_set_again_without_a_use_still_count_from_the_first() -> None:
    ledger = capped(hour=10)
    ledger.do(SetSpendingCap, caps=NO_CAPS)
    ledger.use(10)
    ledger.do(SetSpendingCap, caps=Caps(hour=10))
    assert use(ledger, 1) == exceeded(spent=10)


def test_a_server_with_an_outdated_policy_keeps_the_counters() -> None:
    policy = Policy(caps=Caps(hour=3))
    ledger = Ledger()
    ledger.add(100)
    ledger.use(2, policy=policy)
    ledger.use(5)  # this server has not yet the policy
    assert ledger.app.spent == counted(7, since=2)
    assert use(ledger, 1, policy=policy) == exceeded(cap=3, spent=7)


def test_counters_go_with_the_first_use_after_their_month_without_a_cap() -> None:
    ledger = Ledger()
    ledger.add(100)
    ledger.use(2, policy=Policy(caps=Caps(hour=3)))
    ledger.now = datetime(2026, 6, 30, 23, 59, tzinfo=UTC)
    ledger.use(5)
    assert ledger.app.spent[2].credits == 7
    ledger.wait(minutes=1)
    ledger.use(5)
    assert ledger.accounts[7].apps == {}


def test_a_refund_gives_back_nothing_for_a_use_that_was_not_counted() -> None:
    ledger = Ledger()
    ledger.add(100)
    ledger.use(8, "before")
    ledger.do(SetSpendingCap, caps=Caps(hour=10))
    ledger.use(9, "after")
    ledger.do(ReverseTransaction, reversed_id="before")
    assert use(ledger, 2) == exceeded(spent=9, required=2)
    ledger.do(ReverseTransaction, reversed_id="after", credits=3)
    assert use(ledger, 5) == exceeded(spent=6, required=5)


def test_a_refund_gives_back_nothing_for_a_use_before_counting_began_again() -> None:
    ledger = capped(hour=10)
    ledger.use(5, "june")
    ledger.do(SetSpendingCap, caps=NO_CAPS)
    ledger.now = datetime(2026, 7, 1, tzinfo=UTC)
    ledger.use(5, "not counted")
    ledger.do(SetSpendingCap, caps=Caps(hour=10))
    ledger.use(9)
    for id_ in ("june", "not counted"):
        ledger.do(ReverseTransaction, reversed_id=id_)
    assert use(ledger, 2) == exceeded(
        spent=9, required=2, resets_at=datetime(2026, 7, 1, 1, tzinfo=UTC)
    )


def test_the_status_of_each_cap_shows_what_counts_and_when_it_resets() -> None:
    ledger = capped(hour=10, month=30)
    ledger.use(6)
    ledger.hold(3)
    assert cap_statuses(ledger.app, Policy(caps=Caps(day=1)), ledger.now) == [
        CapStatus(
            period=Period.HOUR,
            cap=10,
            spent=6,
            held=3,
            starts_at=NOON,
            resets_at=NOON + timedelta(hours=1),
        ),
        CapStatus(
            period=Period.MONTH,
            cap=30,
            spent=6,
            held=3,
            starts_at=JUNE,
            resets_at=datetime(2026, 7, 1, tzinfo=UTC),
        ),
    ]
    later = cap_statuses(ledger.app, NO_POLICY, NOON + timedelta(hours=1))
    assert [(status.spent, status.left) for status in later] == [(0, 7), (6, 21)]
    assert cap_statuses(AppAccount(), NO_POLICY, NOON) == []
