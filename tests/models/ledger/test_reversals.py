"""Test reversals: refunds to the very grants, and credits that are taken back."""

from datetime import timedelta
from typing import Any

import pytest
from credit_models.ledger import (
    GRANTS_MAX,
    NO_DETAILS,
    UINT32_MAX,
    Accepted,
    AdjustBalance,
    BalanceOverflow,
    CaptureHold,
    Category,
    GrantsFull,
    InsufficientCredits,
    Kind,
    NotReversible,
    Policy,
    ReleaseHold,
    ReversalExceeds,
    ReverseTransaction,
    SetSpendingCap,
    Settle,
    TransactionNotFound,
    TransferCredits,
    Use,
    VoidGrant,
)

from tests.models.ledger.history import NOON, Ledger, parts

DAY = timedelta(days=1)


def used() -> Ledger:
    """Return a ledger with a use `u` of 12 credits: 5 of `soon`, 5 base credits, 2 of `late`."""
    ledger = Ledger()
    ledger.add(5)
    ledger.grant(5, "soon", expires_after=DAY, category=Category.PROMOTIONAL)
    ledger.grant(5, "late", priority=501)
    ledger.use(12, "u")
    return ledger


def reverse(ledger: Ledger, id_: str = "u", **arguments: Any) -> object:
    return ledger.outcome(ReverseTransaction, reversed_id=id_, **arguments)


def test_a_refund_returns_the_credits_to_the_very_grants() -> None:
    ledger = used()
    entry = ledger.do(ReverseTransaction, reversed_id="u")
    assert (entry.kind, entry.credits, entry.effect) == (Kind.REFUND, 12, 12)
    assert (entry.details.related_id, entry.details.related_total) == ("u", 12)
    assert parts(entry) == {"soon": 5, "": 5, "late": 2}
    assert (ledger.left, ledger.account.base(1)) == ({"soon": 5, "late": 5}, 5)
    restored = ledger.app.grants[0]
    assert (restored.sequence, restored.category) == (2, Category.PROMOTIONAL)
    assert restored.ends_at == NOON + DAY


def test_refunds_in_parts_follow_the_order_of_the_allocations() -> None:
    ledger = used()
    assert parts(ledger.do(ReverseTransaction, reversed_id="u", credits=3)) == {"soon": 3}
    assert parts(ledger.do(ReverseTransaction, reversed_id="u", credits=4)) == {"soon": 2, "": 2}
    last = ledger.do(ReverseTransaction, reversed_id="u")
    assert (parts(last), last.details.related_total) == ({"": 3, "late": 2}, 12)


def test_all_refunds_together_never_exceed_the_use() -> None:
    ledger = used()
    assert reverse(ledger, credits=13) == ReversalExceeds(reversible=12, required=13)
    ledger.do(ReverseTransaction, reversed_id="u", credits=8)
    assert reverse(ledger, credits=5) == ReversalExceeds(reversible=4, required=5)
    ledger.do(ReverseTransaction, reversed_id="u", credits=4)
    assert reverse(ledger) == ReversalExceeds(reversible=0, required=0)
    assert reverse(ledger, credits=1) == ReversalExceeds(reversible=0, required=1)


def test_a_refund_shows_on_the_purchase() -> None:
    ledger = used()
    for credits_, total in ((8, 8), (4, 12)):
        ledger.do(ReverseTransaction, reversed_id="u", credits=credits_)
        assert [purchase.refunded_credits for purchase in ledger.purchases.values()] == [total]


def test_a_refund_to_a_grant_that_has_ended_expires_at_once() -> None:
    ledger = used()
    ledger.wait(days=1)
    ledger.do(ReverseTransaction, reversed_id="u")
    assert ledger.kinds[-2:] == ["refund", "expire"]
    expired = ledger.entries[7][-1]
    assert (expired.credits, expired.details.related_id) == (5, "soon")
    assert expired.details.effective_at == ledger.now
    assert (ledger.balance, ledger.left) == (10, {"late": 5})


def test_a_refund_can_restore_a_grant_that_has_ended_until_a_date() -> None:
    ledger = used()
    ledger.wait(days=2)
    until = ledger.now + DAY
    entry = ledger.do(ReverseTransaction, reversed_id="u", restore_until=until)
    assert entry.details.ends_at == until
    assert [(g.id, g.left, g.ends_at) for g in ledger.app.grants] == [
        ("soon", 5, until),
        ("late", 5, None),
    ]
    ledger.wait(days=1)
    assert ledger.left == {"late": 5}


def test_a_refund_needs_no_new_end_for_a_grant_that_has_not_ended() -> None:
    ledger = used()
    ledger.do(ReverseTransaction, reversed_id="u", restore_until=NOON + 9 * DAY)
    assert ledger.app.grants[0].ends_at == NOON + DAY


def test_a_refund_needs_room_for_the_grants_that_it_restores() -> None:
    ledger = used()
    for _ in range(GRANTS_MAX - 1):
        ledger.grant(1)
    assert reverse(ledger) == GrantsFull(limit=GRANTS_MAX)
    assert reverse(ledger, credits=1) == GrantsFull(limit=GRANTS_MAX)
    ledger.wait(days=1)  # what is refunded to a grant that has ended needs no room
    ledger.do(ReverseTransaction, reversed_id="u")
    assert len(ledger.app.grants) == GRANTS_MAX


def test_a_refund_must_fit_into_the_balance() -> None:
    ledger = Ledger()
    ledger.add(10)
    ledger.use(10, "u")
    ledger.add(UINT32_MAX - 9)
    assert reverse(ledger) == BalanceOverflow(balance=UINT32_MAX - 9, credits=10)
    ledger.do(ReverseTransaction, reversed_id="u", credits=9)
    assert ledger.balance == UINT32_MAX


def test_the_use_of_a_capture_is_refunded_to_its_grants() -> None:
    ledger = Ledger()
    ledger.grant(5, "a", expires_after=DAY)
    ledger.grant(9, "b")
    ledger.hold(7, "h")
    ledger.do(CaptureHold, "u", hold_id="h", credits=9, allow_excess=True, **ledger.report())
    assert parts(ledger.do(ReverseTransaction, reversed_id="u", credits=6)) == {"a": 5, "b": 1}
    assert ledger.left == {"a": 5, "b": 6}


def test_a_refund_pays_debt_first() -> None:
    ledger = used()
    ledger.do(AdjustBalance, delta=-10, note="why", policy=Policy(allow_negative=True))
    assert ledger.balance == -7
    entry = ledger.do(ReverseTransaction, reversed_id="u")
    assert [(p.grant_id, p.credits) for p in entry.details.allocations] == [
        ("", 5),
        ("", 5),
        ("late", 2),
    ]
    assert (ledger.balance, ledger.left, ledger.account.base(1)) == (5, {"late": 2}, 3)


@pytest.mark.parametrize("is_held", [False, True])
def test_a_refund_to_a_voided_grant_expires_at_once(is_held: bool) -> None:
    ledger = used()
    if is_held:
        ledger.do(ReverseTransaction, reversed_id="u", credits=2)
        ledger.hold(1, "h")
    ledger.grant(1, "rest", priority=0)
    ledger.do(ReverseTransaction, reversed_id="u", credits=1)
    ledger.do(VoidGrant, grant_id="soon")
    entry = ledger.do(ReverseTransaction, reversed_id="u")
    assert ledger.kinds[-2:] == ["refund", "expire"]
    expired = ledger.entries[7][-1]
    assert (expired.details.related_id, expired.credits) == ("soon", parts(entry)["soon"])
    assert expired.details.effective_at == ledger.now
    assert "soon" not in {id_ for id_, left in ledger.left.items() if left}
    if is_held:
        ledger.do(ReleaseHold, hold_id="h")
        assert ledger.kinds[-2:] == ["release", "expire"]


def test_a_refund_to_ended_grants_expires_in_the_order_of_their_ends() -> None:
    """A voided grant ends when it is voided, here before the other one."""
    ledger = Ledger()
    ledger.grant(2, "ends later", priority=0, expires_after=timedelta(hours=2))
    ledger.grant(2, "voided", priority=1)
    ledger.use(3, "u")
    ledger.wait(hours=1)
    ledger.do(VoidGrant, grant_id="voided")
    ledger.wait(hours=2)
    ledger.do(ReverseTransaction, reversed_id="u")
    expired = [entry.details.related_id for entry in ledger.entries[7][-2:]]
    assert ledger.kinds[-3:] == ["refund", "expire", "expire"]
    assert expired == ["voided", "ends later"]


def test_a_refund_of_a_capture_from_a_voided_grant_expires_at_once() -> None:
    ledger = Ledger()
    ledger.grant(5, "g")
    ledger.hold(3, "h")
    ledger.do(VoidGrant, grant_id="g")
    ledger.do(CaptureHold, "u", hold_id="h", **ledger.report())
    ledger.do(ReverseTransaction, reversed_id="u")
    assert (ledger.kinds[-2:], ledger.balance) == (["refund", "expire"], 0)


def test_a_refund_can_restore_a_voided_grant_until_a_date() -> None:
    ledger = Ledger()
    ledger.grant(5, "g")
    ledger.use(4, "u")
    ledger.do(VoidGrant, grant_id="g")
    ledger.do(ReverseTransaction, reversed_id="u", credits=3, restore_until=ledger.now + DAY)
    assert [(g.id, g.left, g.ends_at) for g in ledger.app.grants] == [("g", 3, ledger.now + DAY)]
    ledger.use(3, "again")  # after the VOID: its refund returns to the restored grant
    ledger.do(ReverseTransaction, reversed_id="again")
    assert ledger.left == {"g": 3}


def test_credits_that_return_to_an_ended_grant_pay_no_debt() -> None:
    ledger = used()
    ledger.wait(days=1)
    ledger.do(AdjustBalance, delta=-10, note="why", policy=Policy(allow_negative=True))
    assert ledger.balance == -7
    entry = ledger.do(ReverseTransaction, reversed_id="u", credits=7)
    assert parts(entry) == {"soon": 5, "": 2}
    assert (ledger.kinds[-1], ledger.balance, ledger.left) == ("expire", -5, {})
    ledger.do(ReverseTransaction, reversed_id="u", credits=5)
    assert (ledger.balance, ledger.left) == (0, {})


def test_credits_that_a_refund_restores_until_a_date_pay_debt() -> None:
    ledger = used()
    ledger.wait(days=1)
    ledger.do(AdjustBalance, delta=-10, note="why", policy=Policy(allow_negative=True))
    until = ledger.now + DAY
    ledger.do(ReverseTransaction, reversed_id="u", credits=5, restore_until=until)
    assert (ledger.kinds[-1], ledger.balance, ledger.left) == ("refund", -2, {})


@pytest.mark.parametrize("by_time", [False, True])
def test_held_credits_of_an_ended_grant_pay_no_debt(by_time: bool) -> None:
    ledger = Ledger()
    ledger.grant(5, "g", expires_after=DAY)
    ledger.hold(5, "h", expires_after=2 * DAY)
    ledger.wait(days=1)
    ledger.do(AdjustBalance, delta=-3, note="why", policy=Policy(allow_negative=True))
    if by_time:
        ledger.wait(days=1)
        ledger.do(Settle)
    else:
        ledger.do(ReleaseHold, hold_id="h")
    assert (ledger.kinds[-2:], ledger.balance) == (["release", "expire"], -3)


def test_the_entry_of_a_refund_records_the_state_after_what_expired() -> None:
    ledger = used()
    ledger.wait(days=1)
    entry = ledger.do(ReverseTransaction, reversed_id="u")
    assert (entry.sequence, entry.balance_after) == (5, 15)
    assert (entry.final_revision, entry.final_balance) == (6, 10)
    plain = ledger.add(1)
    assert (plain.final_revision, plain.final_balance) == (7, 11)
    assert plain.details == NO_DETAILS


def test_a_reversal_of_an_add_takes_base_credits() -> None:
    ledger = Ledger()
    ledger.add(10, "a")
    ledger.grant(5)
    ledger.use(12)  # 10 base credits at first, for the grant is younger
    assert reverse(ledger, "a") == ReversalExceeds(reversible=0, required=0)
    ledger.add(3)
    assert reverse(ledger, "a", credits=4) == InsufficientCredits(available=3, required=4)
    entry = ledger.do(ReverseTransaction, reversed_id="a")
    assert (entry.kind, entry.credits, entry.details.allocations) == (Kind.REVOKE, 3, ())
    assert ledger.balance == 3
    ledger.add(20)
    assert reverse(ledger, "a", credits=8) == ReversalExceeds(reversible=7, required=8)
    assert ledger.do(ReverseTransaction, reversed_id="a").credits == 7


def test_a_reversal_of_a_grant_takes_what_is_left_of_it() -> None:
    ledger = Ledger()
    ledger.add(10)
    ledger.grant(5, "g", priority=1)
    ledger.use(2)
    assert reverse(ledger, "g", credits=4) == InsufficientCredits(available=3, required=4)
    first = ledger.do(ReverseTransaction, reversed_id="g", credits=1)
    assert (first.effect, parts(first), first.details.related_total) == (-1, {"g": 1}, 1)
    last = ledger.do(ReverseTransaction, reversed_id="g")
    assert (last.credits, last.details.related_total, ledger.balance) == (2, 3, 10)
    assert reverse(ledger, "g") == ReversalExceeds(reversible=0, required=0)


def test_a_reversal_of_a_scheduled_grant_changes_no_balance() -> None:
    ledger = Ledger()
    ledger.grant(5, "g", effective_at=NOON + DAY)
    entry = ledger.do(ReverseTransaction, reversed_id="g", credits=2)
    assert (entry.credits, entry.effect) == (2, 0)
    ledger.wait(days=1)
    assert ledger.balance == 3
    ledger.do(Settle)
    assert ledger.entries[7][-1].details.related_total == 2
    assert reverse(ledger, "g", credits=4) == ReversalExceeds(reversible=3, required=4)
    assert ledger.do(ReverseTransaction, reversed_id="g").details.related_total == 5


def test_credits_that_arrived_by_a_transfer_can_be_taken_back() -> None:
    ledger = Ledger()
    ledger.add(3)
    ledger.grant(5, priority=1)
    ledger.do(TransferCredits, credits=7, to_user_id=7, to_app_id=2)
    of_grant, of_base = ledger.entries[7][-2:]
    for entry in (of_grant, of_base):
        revoked = ledger.do(ReverseTransaction, reversed_id=entry.id, app_id=2)
        assert (revoked.kind, revoked.credits) == (Kind.REVOKE, entry.credits)
    assert ledger.account.balance(2) == 0


def test_a_grant_that_has_expired_cannot_be_taken_back_although_a_refund_restored_it() -> None:
    ledger = used()
    ledger.wait(days=1)
    ledger.do(ReverseTransaction, reversed_id="u", credits=1)  # expires at once
    ledger.do(ReverseTransaction, reversed_id="u", restore_until=ledger.now + DAY)
    assert ledger.left["soon"] == 4
    assert reverse(ledger, "soon") == ReversalExceeds(reversible=0, required=0)


def test_only_uses_and_added_credits_are_reversible() -> None:
    ledger = used()
    ledger.hold(1, "hold")
    ledger.do(AdjustBalance, "adjust", delta=1, note="why")
    ledger.do(SetSpendingCap, "cap")
    ledger.do(ReverseTransaction, "refund", reversed_id="u", credits=1)
    ledger.do(TransferCredits, "transfer_out", credits=1, to_user_id=8, to_app_id=1)
    for id_ in ("hold", "adjust", "cap", "refund", "transfer_out"):
        assert reverse(ledger, id_) == NotReversible(kind=Kind(id_))


@pytest.mark.parametrize("reversed_id", ["unknown", "other app", "other user"])
def test_an_entry_of_another_app_or_user_is_not_found(reversed_id: str) -> None:
    ledger = Ledger()
    ledger.add(5, "other app", app_id=2)
    ledger.add(5, "other user", user_id=8)
    assert reverse(ledger, reversed_id) == TransactionNotFound(transaction_id=reversed_id)


def test_a_report_can_be_bought_once_until_it_is_refunded_in_full() -> None:
    ledger = Ledger()
    ledger.add(30)
    ledger.use(10, "u", once=True)
    assert not isinstance(ledger.outcome(Use, credits=1, once=True, **ledger.report()), Accepted)
    ledger.do(ReverseTransaction, reversed_id="u", credits=9)
    assert not isinstance(ledger.outcome(Use, credits=1, once=True, **ledger.report()), Accepted)
    ledger.do(ReverseTransaction, reversed_id="u")
    ledger.use(10, once=True)
