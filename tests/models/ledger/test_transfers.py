"""Test transfers between apps and users, and corrections of a balance."""

from datetime import timedelta
from typing import Any

import pytest
from credit_models.ledger import (
    APPS_MAX,
    GRANTS_MAX,
    UINT32_MAX,
    Accepted,
    AdjustBalance,
    BalanceOverflow,
    Category,
    CreditsLimitExceeded,
    GrantsFull,
    InsufficientCredits,
    InvariantViolated,
    Kind,
    PlaceHold,
    Policy,
    TooManyApps,
    TransferCredits,
    Use,
    decide,
)

from tests.models.ledger.history import NOON, Ledger, parts

DAY = timedelta(days=1)
NEGATIVE = Policy(allow_negative=True)


def stocked() -> Ledger:
    ledger = Ledger()
    ledger.add(5)
    ledger.grant(5, "soon", expires_after=DAY, category=Category.PAID, priority=499)
    return ledger


@pytest.mark.parametrize(("user_id", "app_id"), [(7, 2), (8, 1), (8, 2)])
def test_credits_arrive_with_their_terms(user_id: int, app_id: int) -> None:
    ledger = stocked()
    out = ledger.do(TransferCredits, credits=7, to_user_id=user_id, to_app_id=app_id)
    assert (out.kind, out.effect, parts(out)) == (Kind.TRANSFER_OUT, -7, {"soon": 5, "": 2})
    first, second = ledger.entries[user_id][-2:]
    for entry in (first, second):
        assert (entry.kind, entry.app_id) == (Kind.TRANSFER_IN, app_id)
        assert (entry.details.related_id, entry.key) == (out.id, "")
    assert out.details.related_id == first.id
    assert (first.credits, first.details.ends_at) == (5, NOON + DAY)
    assert (second.credits, second.details.allocations) == (2, ())
    account = ledger.accounts[user_id]
    (grant,) = account.apps[app_id].grants
    assert (grant.id, grant.left, grant.priority) == (first.id, 5, 499)
    assert (grant.category, grant.ends_at) == (Category.PAID, NOON + DAY)
    assert (account.balance(app_id), account.base(app_id)) == (7, 2)
    assert ledger.balance == 3


def test_the_outcome_has_both_accounts() -> None:
    ledger = stocked()
    outcome = ledger.outcome(TransferCredits, credits=7, to_user_id=8, to_app_id=1)
    assert isinstance(outcome, Accepted)
    assert [account.user_id for account in outcome.accounts] == [7, 8]
    assert [entry.sequence for entry in outcome.transactions] == [3, 1, 2]
    assert outcome.main is outcome.transactions[0]


def test_the_entry_of_a_transfer_to_another_app_records_the_last_revision() -> None:
    ledger = stocked()
    entry = ledger.do(TransferCredits, credits=7, to_user_id=7, to_app_id=2)
    assert (entry.sequence, entry.final_revision) == (3, 5)
    assert entry.final_balance == entry.balance_after == 3
    ledger.do(TransferCredits, credits=1, to_user_id=8, to_app_id=1, expected_revision=5)


def test_what_is_due_on_both_sides_comes_first() -> None:
    ledger = stocked()
    ledger.grant(3, user_id=8, app_id=2, expires_after=DAY)
    ledger.wait(days=1)
    ledger.do(TransferCredits, credits=5, to_user_id=8, to_app_id=2)
    assert ledger.kinds == ["add", "grant", "expire", "transfer_out"]
    assert [entry.kind.value for entry in ledger.entries[8]] == ["grant", "expire", "transfer_in"]


def test_more_than_is_available_is_refused() -> None:
    ledger = stocked()
    ledger.hold(1)
    refused = ledger.outcome(TransferCredits, credits=10, to_user_id=8, to_app_id=1)
    assert refused == InsufficientCredits(available=9, required=10)


def test_the_target_must_have_room() -> None:
    ledger = stocked()
    ledger.add(UINT32_MAX - 1, app_id=2)
    to_app: dict[str, Any] = {"to_user_id": 7, "to_app_id": 2}
    assert ledger.outcome(TransferCredits, credits=2, **to_app) == BalanceOverflow(
        balance=UINT32_MAX - 1, credits=2
    )
    for _ in range(GRANTS_MAX):
        ledger.grant(1, user_id=8)
    to_user: dict[str, Any] = {"to_user_id": 8, "to_app_id": 1}
    assert ledger.outcome(TransferCredits, credits=2, **to_user) == GrantsFull(limit=GRANTS_MAX)
    for app_id in range(2, APPS_MAX + 1):
        ledger.add(1, user_id=8, app_id=app_id)
    too_many = ledger.outcome(TransferCredits, credits=2, to_user_id=8, to_app_id=APPS_MAX + 1)
    assert too_many == TooManyApps(limit=APPS_MAX)


def test_a_transfer_pays_the_debt_of_the_target_first() -> None:
    ledger = stocked()
    ledger.do(AdjustBalance, user_id=8, delta=-4, note="why", policy=NEGATIVE)
    ledger.do(TransferCredits, credits=6, to_user_id=8, to_app_id=1)
    first, _ = ledger.entries[8][-2:]
    assert parts(first) == {"": 4, first.id: 1}
    assert (ledger.accounts[8].balance(1), ledger.accounts[8].base(1)) == (2, 1)


def test_a_transfer_that_goes_nowhere_or_lacks_the_other_account_is_a_bug() -> None:
    ledger = stocked()
    with pytest.raises(InvariantViolated, match="another app or user"):
        ledger.outcome(TransferCredits, credits=1, to_user_id=7, to_app_id=1)
    command = TransferCredits(**ledger.common(), credits=1, to_user_id=8, to_app_id=1)
    for target in (None, ledger.accounts[7]):
        with pytest.raises(InvariantViolated, match="accounts of both users"):
            decide(ledger.accounts[7], command, ledger.lookup(command), NOON, target=target)


def test_an_adjustment_adds_base_credits_and_takes_in_burn_order() -> None:
    ledger = stocked()
    up = ledger.do(AdjustBalance, delta=3, note="why")
    assert (up.kind, up.credits, up.effect, up.details.note) == (Kind.ADJUST, 3, 3, "why")
    assert ledger.account.base(1) == 8
    down = ledger.do(AdjustBalance, delta=-6, note="why")
    assert (down.credits, down.effect, parts(down)) == (6, -6, {"soon": 5, "": 1})
    assert ledger.balance == 7


def test_an_adjustment_leaves_no_debt_unless_the_app_allows_it() -> None:
    ledger = stocked()
    refused = ledger.outcome(AdjustBalance, delta=-11, note="why")
    assert refused == InsufficientCredits(available=10, required=11)
    entry = ledger.do(AdjustBalance, delta=-14, note="why", policy=NEGATIVE)
    assert (entry.balance_after, parts(entry)) == (-4, {"soon": 5, "": 4})
    assert (ledger.balance, ledger.left) == (-4, {})
    for call in (PlaceHold, TransferCredits, Use):
        more: dict[str, Any] = {"to_user_id": 8, "to_app_id": 1} if call is TransferCredits else {}
        more |= ledger.report() if call is Use else {}
        poor = ledger.outcome(call, credits=1, **more)
        assert poor == InsufficientCredits(available=0, required=1)
    ledger.add(5)
    assert ledger.balance == 1


def test_a_debt_has_a_limit() -> None:
    ledger = Ledger()
    ledger.do(AdjustBalance, delta=-UINT32_MAX, note="why", policy=NEGATIVE)
    assert ledger.outcome(AdjustBalance, delta=-1, note="why", policy=NEGATIVE) == (
        InsufficientCredits(available=0, required=1)
    )
    ledger.add(UINT32_MAX)
    assert ledger.balance == 0


def test_an_adjustment_has_the_limits_of_added_credits() -> None:
    ledger = Ledger()
    assert ledger.outcome(AdjustBalance, delta=6, note="why", credits_max=5) == (
        CreditsLimitExceeded(credits=6, limit=5)
    )
    ledger.add(UINT32_MAX)
    assert ledger.outcome(AdjustBalance, delta=1, note="why") == BalanceOverflow(
        balance=UINT32_MAX, credits=1
    )
    ledger.do(AdjustBalance, delta=-6, note="why", credits_max=5)  # the limit is for added credits
    for app_id in range(2, APPS_MAX + 1):
        ledger.add(1, app_id=app_id)
    for delta in (1, -1):
        more = ledger.outcome(
            AdjustBalance, delta=delta, note="why", app_id=APPS_MAX + 1, policy=NEGATIVE
        )
        assert more == TooManyApps(limit=APPS_MAX)


@pytest.mark.parametrize("delta", [0, UINT32_MAX + 1, -UINT32_MAX - 1])
def test_a_delta_out_of_range_is_a_bug(delta: int) -> None:
    with pytest.raises(InvariantViolated, match="credits are 1"):
        Ledger().outcome(AdjustBalance, delta=delta, note="why")
