"""Test grants: terms, burn order, room, and what is taken back of them."""

from datetime import timedelta

import pytest
from credit_models.ledger import (
    GRANTS_MAX,
    UINT32_MAX,
    Accepted,
    AdjustBalance,
    AppAccount,
    BalanceOverflow,
    Category,
    ExpiresTooEarly,
    Expiring,
    GrantCredits,
    GrantEmpty,
    GrantNotFound,
    GrantsFull,
    InvariantViolated,
    Kind,
    Policy,
    ReleaseHold,
    Use,
    VoidGrant,
)

from tests.models.ledger.history import NOON, Ledger, parts

DAY = timedelta(days=1)


def test_credits_are_used_by_priority_then_end_then_age() -> None:
    ledger = Ledger()
    ledger.add(1)  # base credits: priority 500, no end, the oldest of their rank
    ledger.grant(1, "late", priority=501)
    ledger.grant(1, "never")
    ledger.grant(1, "week", expires_after=7 * DAY)
    ledger.grant(1, "day", expires_after=DAY)
    ledger.grant(1, "day too", expires_at=NOON + DAY)
    ledger.grant(1, "early", priority=0, expires_after=30 * DAY)
    used = ledger.use(7)
    order = ["early", "day", "day too", "week", "", "never", "late"]
    assert [part.grant_id for part in used.details.allocations] == order
    assert ledger.balance == 0
    assert ledger.account.apps == {}  # grants that nothing is left of leave the account


def test_a_use_records_the_terms_of_the_grants_that_pay() -> None:
    ledger = Ledger()
    ledger.grant(5, "g", priority=7, category=Category.PAID, expires_after=DAY)
    (part,) = ledger.use(2).details.allocations
    assert (part.credits, part.grant_id, part.sequence) == (2, "g", 1)
    assert (part.priority, part.category, part.ends_at) == (7, Category.PAID, NOON + DAY)


def test_a_use_of_base_credits_alone_records_no_allocation() -> None:
    ledger = Ledger()
    ledger.add(5)
    ledger.grant(5, "g", priority=501)
    assert ledger.use(5).details.allocations == ()


def test_a_grant_ends_exactly_at_its_instant() -> None:
    ledger = Ledger()
    ledger.grant(5, "g", expires_after=timedelta(seconds=1))
    ledger.wait(milliseconds=999)
    assert isinstance(ledger.outcome(Use, credits=5, **ledger.report()), Accepted)
    ledger.wait(milliseconds=1)
    assert ledger.balance == 0
    assert not isinstance(ledger.outcome(Use, credits=1, **ledger.report()), Accepted)


def test_a_grant_starts_exactly_at_its_instant() -> None:
    ledger = Ledger()
    entry = ledger.grant(5, "g", effective_at=NOON + DAY, expires_after=DAY)
    assert (entry.kind, entry.credits, entry.effect) == (Kind.SCHEDULE, 5, 0)
    assert (entry.details.effective_at, entry.details.ends_at) == (NOON + DAY, NOON + 2 * DAY)
    ledger.wait(hours=23, minutes=59, seconds=59.999)
    assert (ledger.balance, len(ledger.app.scheduled)) == (0, 1)
    ledger.wait(milliseconds=1)
    assert (ledger.balance, ledger.left) == (5, {"g": 5})
    ledger.use(2)
    assert ledger.kinds == ["schedule", "activate", "use"]
    ledger.wait(days=1)
    assert ledger.balance == 0


def test_a_start_in_the_past_is_now() -> None:
    ledger = Ledger()
    entry = ledger.grant(5, effective_at=NOON - DAY, expires_after=DAY)
    assert (entry.kind, entry.details.ends_at) == (Kind.GRANT, NOON + DAY)


def test_an_end_after_the_year_9999_is_never() -> None:
    ledger = Ledger()
    assert ledger.grant(5, expires_after=timedelta(seconds=UINT32_MAX)).details.ends_at is not None
    ledger.now = NOON.replace(year=9990)
    assert ledger.grant(5, expires_after=timedelta(days=9000)).details.ends_at is None


@pytest.mark.parametrize("early", [timedelta(0), timedelta(milliseconds=1)], ids=str)
def test_a_grant_must_end_after_its_start(early: timedelta) -> None:
    ledger = Ledger()
    start = NOON + DAY
    assert ledger.outcome(
        GrantCredits, credits=5, effective_at=start, expires_at=start - early
    ) == ExpiresTooEarly(expires_at=start - early, starts_at=start)
    assert ledger.outcome(GrantCredits, credits=5, expires_at=NOON - early) == ExpiresTooEarly(
        expires_at=NOON - early, starts_at=NOON
    )


def test_held_and_scheduled_credits_count_against_the_greatest_balance() -> None:
    ledger = Ledger()
    ledger.add(UINT32_MAX - 10)
    ledger.hold(100)
    ledger.grant(4, effective_at=NOON + DAY)
    assert ledger.outcome(GrantCredits, credits=7) == BalanceOverflow(
        balance=UINT32_MAX - 6, credits=7
    )
    ledger.grant(6)
    ledger.wait(days=1)
    assert ledger.balance == UINT32_MAX


def full() -> Ledger:
    ledger = Ledger()
    for number in range(GRANTS_MAX):
        ledger.grant(1, f"g{number}", expires_after=(number + 1) * DAY)
    return ledger


def test_a_full_account_takes_only_a_grant_that_is_alike() -> None:
    ledger = full()
    assert ledger.outcome(GrantCredits, credits=1) == GrantsFull(limit=GRANTS_MAX)
    for other in ({"priority": 1}, {"category": Category.OWN}):
        alike = ledger.outcome(GrantCredits, credits=1, expires_after=2 * DAY, **other)
        assert alike == GrantsFull(limit=GRANTS_MAX)
    later = ledger.outcome(GrantCredits, credits=1, effective_at=NOON + DAY, expires_after=DAY)
    assert later == GrantsFull(limit=GRANTS_MAX)
    joined = ledger.grant(5, "joined", expires_after=2 * DAY)
    assert parts(joined) == {"g1": 5}
    assert (ledger.left["g1"], len(ledger.app.grants)) == (6, GRANTS_MAX)
    assert ledger.app.grants[1].credits == 6


def test_grants_that_join_one_after_another_can_pass_the_greatest_number_of_credits() -> None:
    ledger = full()
    for _ in range(3):
        ledger.grant(UINT32_MAX // 2, expires_after=DAY)
        ledger.use(UINT32_MAX // 2)
    grant = ledger.app.grants[0]
    assert (grant.id, grant.left, grant.credits) == ("g0", 1, UINT32_MAX)


def test_scheduled_grants_take_room_and_used_ones_do_not() -> None:
    ledger = full()
    ledger.use(1)
    ledger.grant(1, effective_at=NOON + timedelta(hours=1))
    assert ledger.outcome(GrantCredits, credits=1) == GrantsFull(limit=GRANTS_MAX)


def test_void_takes_what_is_left_once() -> None:
    ledger = Ledger()
    ledger.grant(5, "g")
    ledger.use(2)
    entry = ledger.do(VoidGrant, grant_id="g")
    assert (entry.kind, entry.credits, entry.effect) == (Kind.VOID, 3, -3)
    assert (entry.details.related_id, parts(entry)) == ("g", {"g": 3})
    assert ledger.balance == 0
    assert ledger.outcome(VoidGrant, grant_id="g") == GrantEmpty(grant_id="g")


def test_the_void_of_a_scheduled_grant_changes_no_balance() -> None:
    ledger = Ledger()
    ledger.add(1)
    ledger.grant(5, "g", effective_at=NOON + DAY)
    entry = ledger.do(VoidGrant, grant_id="g")
    assert (entry.credits, entry.effect, entry.balance_after) == (5, 0, 1)
    ledger.wait(days=2)
    assert ledger.balance == 1


@pytest.mark.parametrize("grant_id", ["unknown", "added", "other app"])
def test_only_a_grant_of_the_app_can_be_voided(grant_id: str) -> None:
    ledger = Ledger()
    ledger.add(5, "added")
    ledger.grant(5, "other app", app_id=2)
    assert ledger.outcome(VoidGrant, grant_id=grant_id) == GrantNotFound(grant_id=grant_id)


def test_what_a_hold_returns_to_a_voided_grant_expires() -> None:
    ledger = Ledger()
    ledger.grant(5, "g")
    ledger.hold(2, "h")
    ledger.do(VoidGrant, grant_id="g")
    ledger.do(ReleaseHold, hold_id="h")
    assert ledger.kinds[-3:] == ["void", "release", "expire"]
    assert (ledger.balance, ledger.app) == (0, AppAccount())


def test_a_grant_pays_debt_first() -> None:
    ledger = Ledger()
    ledger.do(AdjustBalance, delta=-3, note="why", policy=Policy(allow_negative=True))
    entry = ledger.grant(5, "g")
    assert (entry.effect, parts(entry)) == (5, {"": 3, "g": 2})
    assert (ledger.balance, ledger.left) == (2, {"g": 2})
    assert ledger.account.base(1) == 0


def test_the_next_end_counts_started_and_scheduled_grants() -> None:
    ledger = Ledger()
    ledger.grant(1, expires_after=3 * DAY)
    ledger.grant(2, expires_after=2 * DAY)
    ledger.grant(4, effective_at=NOON + DAY, expires_at=NOON + 2 * DAY)
    assert ledger.app.expiring_next == Expiring(credits=6, at=NOON + 2 * DAY)
    assert AppAccount().expiring_next is None


def test_a_grant_of_no_credits_is_a_bug() -> None:
    with pytest.raises(InvariantViolated, match="credits are 1"):
        Ledger().outcome(GrantCredits, credits=0)
