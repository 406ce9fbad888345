"""Test holds: placing, capturing, releasing, extending, and their end."""

from datetime import timedelta
from typing import Any

import pytest
from credit_models.ledger import (
    HOLDS_MAX,
    Accepted,
    AdjustBalance,
    CaptureHold,
    ExtendHold,
    HoldAlreadyCaptured,
    HoldAlreadyReleased,
    HoldExceeded,
    HoldExpired,
    HoldLifeExceeded,
    HoldNotFound,
    HoldsFull,
    InsufficientCredits,
    Kind,
    PlaceHold,
    Policy,
    ReleaseHold,
    Settle,
    Use,
)

from tests.models.ledger.history import NOON, Ledger, parts

QUARTER = timedelta(minutes=15)
DAY = timedelta(days=1)


def held(credits_: int = 10, **arguments: Any) -> Ledger:
    """Return a ledger with a balance of 20, of which a hold `h` has some credits."""
    ledger = Ledger()
    ledger.add(20)
    ledger.hold(credits_, "h", **arguments)
    return ledger


def capture(ledger: Ledger, **arguments: Any) -> object:
    return ledger.outcome(CaptureHold, hold_id="h", **ledger.report(), **arguments)


def test_a_hold_takes_credits_out_of_the_balance() -> None:
    ledger = held(purpose="a question")
    (hold,) = ledger.app.holds
    assert (hold.id, hold.sequence, hold.credits, hold.purpose) == ("h", 2, 10, "a question")
    assert (hold.placed_at, hold.ends_at) == (NOON, NOON + QUARTER)
    entry = ledger.entries[7][-1]
    assert (entry.kind, entry.effect, entry.balance_after) == (Kind.HOLD, -10, 10)
    assert (entry.details.ends_at, entry.details.held_after) == (NOON + QUARTER, 10)
    assert (ledger.balance, ledger.app.held) == (10, 10)


def test_a_hold_may_take_what_is_there() -> None:
    ledger = held()
    assert ledger.outcome(PlaceHold, credits=11) == InsufficientCredits(available=10, required=11)
    assert ledger.hold(11, allow_partial=True).credits == 10
    assert ledger.outcome(PlaceHold, credits=5, allow_partial=True) == InsufficientCredits(
        available=0, required=5
    )


def test_a_capture_is_a_release_followed_by_a_use() -> None:
    ledger = held()
    entry = ledger.do(CaptureHold, hold_id="h", credits=7, **ledger.report())
    release, use = ledger.entries[7][-2:]
    assert use is entry
    assert (release.kind, release.effect, release.key) == (Kind.RELEASE, 10, "")
    assert (use.kind, use.effect, use.balance_after) == (Kind.USE, -7, 13)
    for found in (release, use):
        assert (found.details.related_id, found.details.held_after) == ("h", 0)
    assert (release.details.related_total, use.details.related_total) == (0, 7)
    assert (use.details.released, ledger.app.holds) == (3, ())
    assert next(iter(ledger.purchases.values())).credits == 7


def test_a_capture_of_no_number_takes_all_of_the_hold() -> None:
    ledger = held()
    assert ledger.do(CaptureHold, hold_id="h", **ledger.report()).credits == 10


def test_a_capture_that_is_not_final_keeps_the_rest_held() -> None:
    ledger = held()
    for number in (3, 4):
        ledger.do(CaptureHold, hold_id="h", credits=number, final=False, **ledger.report())
    (hold,) = ledger.app.holds
    assert (hold.credits, hold.captured, ledger.balance) == (3, 7, 10)
    last = ledger.do(CaptureHold, hold_id="h", final=False, **ledger.report())
    assert (last.credits, last.details.related_total, ledger.app.holds) == (3, 10, ())
    assert capture(ledger) == HoldAlreadyCaptured(captured=10, released=0, settled_at=NOON)


def test_a_capture_above_the_hold_takes_the_excess_if_it_may() -> None:
    ledger = held()
    assert capture(ledger, credits=12) == HoldExceeded(held=10, required=12)
    assert capture(ledger, credits=21, allow_excess=True) == InsufficientCredits(
        available=10, required=11
    )
    use = ledger.do(CaptureHold, hold_id="h", credits=12, allow_excess=True, **ledger.report())
    assert (use.effect, use.balance_after, use.details.related_total) == (-12, 8, 10)
    assert capture(ledger) == HoldAlreadyCaptured(captured=10, released=0, settled_at=NOON)


def test_credits_that_were_held_in_time_can_be_captured_after_the_end_of_their_grant() -> None:
    ledger = Ledger()
    ledger.grant(10, "g", expires_after=QUARTER)
    ledger.hold(6, "h", expires_after=DAY)
    ledger.wait(hours=1)
    assert (ledger.balance, ledger.app.held, ledger.left) == (0, 6, {"g": 0})
    use = ledger.do(CaptureHold, hold_id="h", credits=4, **ledger.report())
    assert parts(use) == {"g": 4}
    # What was left at the end has expired, and so does what the hold returns.
    assert ledger.kinds == ["grant", "hold", "expire", "release", "use", "expire"]
    first, second = (entry for entry in ledger.entries[7] if entry.kind is Kind.EXPIRE)
    assert (first.credits, first.details.effective_at) == (4, NOON + QUARTER)
    assert (second.credits, second.details.effective_at) == (2, ledger.now)
    assert ledger.account.apps == {}


def test_a_hold_ends_exactly_at_its_instant() -> None:
    ledger = held()
    ledger.wait(minutes=14, seconds=59.999)
    assert isinstance(capture(ledger), Accepted)
    ledger.wait(milliseconds=1)
    assert (ledger.balance, ledger.app.held) == (20, 0)
    expired = HoldExpired(captured=0, released=10, settled_at=NOON + QUARTER)
    assert capture(ledger) == expired
    assert ledger.outcome(ReleaseHold, hold_id="h") == expired
    ledger.do(Settle)
    assert capture(ledger) == expired
    release = ledger.entries[7][-1]
    assert (release.kind, release.details.effective_at) == (Kind.RELEASE, NOON + QUARTER)
    assert release.created_by == 3  # that of the hold


def test_a_hold_is_settled_once() -> None:
    ledger = held()
    ledger.do(CaptureHold, hold_id="h", credits=3, final=False, **ledger.report())
    entry = ledger.do(ReleaseHold, hold_id="h")
    assert (entry.credits, entry.details.released, entry.details.related_total) == (7, 7, 3)
    settled = HoldAlreadyReleased(captured=3, released=7, settled_at=NOON)
    assert capture(ledger) == settled
    assert ledger.outcome(ReleaseHold, hold_id="h") == settled
    assert ledger.outcome(ExtendHold, hold_id="h", expires_after=DAY) == settled


def test_a_release_returns_credits_to_their_grants() -> None:
    ledger = Ledger()
    ledger.add(5)
    ledger.grant(5, "soon", expires_after=DAY)
    ledger.grant(5, "late", priority=501)
    ledger.hold(12, "h")
    assert ledger.left == {"soon": 0, "late": 3}
    entry = ledger.do(ReleaseHold, hold_id="h")
    assert parts(entry) == {"soon": 5, "": 5, "late": 2}
    assert (ledger.left, ledger.account.base(1)) == ({"soon": 5, "late": 5}, 5)


def test_a_release_pays_debt_first() -> None:
    ledger = Ledger()
    ledger.grant(10, "g")
    ledger.hold(10, "h")
    ledger.do(AdjustBalance, delta=-4, note="why", policy=Policy(allow_negative=True))
    assert parts(ledger.do(ReleaseHold, hold_id="h")) == {"": 4, "g": 6}
    assert (ledger.balance, ledger.left) == (6, {"g": 6})


def test_held_credits_can_be_captured_by_a_user_with_debt_but_no_excess() -> None:
    ledger = Ledger()
    ledger.add(10)
    ledger.hold(10, "h")
    ledger.do(AdjustBalance, delta=-4, note="why", policy=Policy(allow_negative=True))
    assert capture(ledger, credits=11, allow_excess=True) == InsufficientCredits(
        available=0, required=1
    )
    use = ledger.do(CaptureHold, hold_id="h", **ledger.report())
    assert (use.credits, use.balance_after) == (10, -4)


def test_an_extension_sets_a_new_end() -> None:
    ledger = held()
    ledger.wait(minutes=10)
    entry = ledger.do(ExtendHold, hold_id="h", expires_after=QUARTER)
    assert (entry.kind, entry.credits, entry.effect) == (Kind.EXTEND, 10, 0)
    assert (entry.details.related_id, entry.details.ends_at) == ("h", NOON + timedelta(minutes=25))
    ledger.wait(minutes=14)
    assert ledger.app.held == 10
    ledger.do(ExtendHold, hold_id="h", expires_after=timedelta(seconds=1))  # an earlier end
    ledger.wait(seconds=1)
    assert ledger.app.held == 0


def test_a_hold_lasts_seven_days_at_most() -> None:
    ledger = held(expires_after=timedelta(days=7))
    ledger.wait(milliseconds=1)
    longer = ledger.outcome(ExtendHold, hold_id="h", expires_after=timedelta(days=7))
    assert longer == HoldLifeExceeded(limit_seconds=7 * 24 * 60 * 60, placed_at=NOON)
    rest = timedelta(days=7) - timedelta(milliseconds=1)
    ledger.do(ExtendHold, hold_id="h", expires_after=rest)
    assert ledger.app.holds[0].ends_at == NOON + timedelta(days=7)


@pytest.mark.parametrize("hold_id", ["unknown", "added", "other app"])
def test_an_id_of_no_hold_in_the_app_is_not_found(hold_id: str) -> None:
    ledger = Ledger()
    ledger.add(5, "added")
    ledger.add(5, app_id=2)
    ledger.hold(5, "other app", app_id=2)
    missing = HoldNotFound(hold_id=hold_id)
    assert ledger.outcome(ReleaseHold, hold_id=hold_id) == missing
    assert ledger.outcome(ExtendHold, hold_id=hold_id, expires_after=DAY) == missing
    assert ledger.outcome(CaptureHold, hold_id=hold_id, **ledger.report()) == missing


def test_a_user_has_a_limited_number_of_open_holds() -> None:
    ledger = Ledger()
    ledger.add(HOLDS_MAX + 1)
    for number in range(HOLDS_MAX):
        ledger.hold(1, f"h{number}")
    assert ledger.outcome(PlaceHold, credits=1) == HoldsFull(limit=HOLDS_MAX)
    assert isinstance(ledger.outcome(Use, credits=1, **ledger.report()), Accepted)
    ledger.do(ReleaseHold, hold_id="h7")
    ledger.hold(1)
