"""Test the bound on an account: it limits new grants and holds, and nothing else."""

from collections import Counter
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from credit_models.ledger import (
    ACCOUNT_ITEMS_MAX,
    GRANTS_MAX,
    NOTHING_FOUND,
    Accepted,
    Account,
    AccountFull,
    Add,
    AdjustBalance,
    CaptureHold,
    Command,
    ExtendHold,
    Grant,
    GrantCredits,
    GrantsFull,
    PlaceHold,
    ReleaseHold,
    ReverseTransaction,
    Settle,
    TransferCredits,
    Use,
    VoidGrant,
    decide,
)
from credit_models.ledger.records import AppAccount

from tests.models.ledger.history import NOON, Ledger, parts

FEW = 6
DAY = timedelta(days=1)
APPS = (1, 2, 3)
LIMITED = (GrantCredits, PlaceHold, ReverseTransaction, TransferCredits)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the account be full with few items."""
    for module in ("app_draft", "holds"):
        monkeypatch.setattr(f"credit_models.ledger.{module}.ACCOUNT_ITEMS_MAX", FEW)


def full() -> Ledger:
    """Return a ledger with a full account: 4 grants and 2 holds of base credits in 3 apps."""
    ledger = Ledger()
    ledger.add(100)
    for app_id in (1, 2, 2, 3):
        ledger.grant(5, f"g{len(ledger.entries[7])}", app_id=app_id, priority=600)
    ledger.hold(1, "h1")
    ledger.hold(1, "h2")
    assert ledger.account.items == FEW
    return ledger


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (GrantCredits, {"credits": 1}),
        (GrantCredits, {"credits": 1, "app_id": 4}),
        (GrantCredits, {"credits": 1, "effective_at": NOON + DAY}),
        (PlaceHold, {"credits": 1}),
        (TransferCredits, {"credits": 1, "app_id": 2, "to_user_id": 7, "to_app_id": 4}),
    ],
)
def test_a_full_account_takes_no_more_grants_and_holds(
    call: type[Command], arguments: dict[str, Any]
) -> None:
    assert full().outcome(call, **arguments) == AccountFull(limit=FEW)


@pytest.mark.usefixtures("few")
def test_a_refund_does_not_restore_a_grant_in_a_full_account() -> None:
    ledger = full()
    ledger.use(5, "u", app_id=3)
    ledger.grant(1, app_id=4)
    refund: dict[str, Any] = {"reversed_id": "u", "app_id": 3}
    assert ledger.outcome(ReverseTransaction, **refund) == AccountFull(limit=FEW)
    ledger.do(ReleaseHold, hold_id="h1")
    assert ledger.do(ReverseTransaction, **refund).credits == 5


@pytest.mark.usefixtures("few")
def test_credits_of_a_full_account_can_be_added_used_captured_released_and_moved() -> None:
    ledger = full()
    ledger.add(7)
    ledger.add(1, app_id=4)
    ledger.use(3)
    ledger.do(AdjustBalance, delta=5, note="n")
    ledger.do(AdjustBalance, delta=-5, note="n")
    ledger.do(ExtendHold, hold_id="h1", expires_after=DAY)
    ledger.do(CaptureHold, hold_id="h1", credits=3, allow_excess=True, **ledger.report())
    ledger.hold(1, "h3")
    ledger.do(ReleaseHold, hold_id="h2")
    ledger.do(TransferCredits, credits=5, app_id=3, to_user_id=8, to_app_id=1)
    assert ledger.accounts[8].items == 1


@pytest.mark.usefixtures("few")
def test_a_grant_joins_one_with_the_same_terms_if_the_account_is_full() -> None:
    ledger = full()
    joined = ledger.grant(3, priority=600)
    assert parts(joined) == {"g1": 3}
    ledger.do(TransferCredits, credits=1, app_id=3, to_user_id=7, to_app_id=2)
    assert ledger.account.items == FEW


@pytest.mark.usefixtures("few")
def test_a_whole_grant_moves_to_another_app_of_a_full_account() -> None:
    ledger = full()
    ledger.do(TransferCredits, credits=5, app_id=3, to_user_id=7, to_app_id=4)
    assert ledger.account.items == FEW


@pytest.mark.usefixtures("few")
def test_the_allocations_of_a_hold_count_too() -> None:
    ledger = Ledger()
    for number in range(3):
        ledger.grant(1, f"g{number}", priority=number)
    assert ledger.outcome(PlaceHold, credits=3) == AccountFull(limit=FEW)
    ledger.hold(2, "h")
    assert ledger.account.items == FEW
    ledger.do(CaptureHold, hold_id="h", credits=1, final=False, **ledger.report())
    assert ledger.account.items == 4


@pytest.mark.usefixtures("few")
def test_the_reason_of_a_full_app_comes_before_that_of_the_full_account() -> None:
    ledger = Ledger()
    for number in range(FEW):
        ledger.grant(1, priority=number)
    assert ledger.outcome(GrantCredits, credits=1) == AccountFull(limit=FEW)
    assert GRANTS_MAX < ACCOUNT_ITEMS_MAX


def test_an_app_is_full_before_the_account_is() -> None:
    ledger = Ledger()
    for number in range(GRANTS_MAX):
        ledger.grant(1, priority=number)
    assert ledger.outcome(GrantCredits, credits=1) == GrantsFull(limit=GRANTS_MAX)


@pytest.mark.usefixtures("few")
def test_scheduled_grants_of_an_account_above_the_bound_start() -> None:
    scheduled = tuple(
        Grant(
            id=f"g{number}", sequence=number, credits=1, left=1,
            starts_at=NOON + number * DAY, created_by=1,
        )
        for number in range(1, 2 * FEW)
    )  # fmt: skip
    apps = {1: AppAccount.of(scheduled=scheduled)}
    account = Account(
        user_id=7, balances={1: 0}, apps=apps, revision=99, created_at=NOON, updated_at=NOON
    )
    settle = Settle(user_id=7, app_id=1, created_by=0, key="", transaction_id="")
    outcome = decide(account, settle, NOTHING_FOUND, NOON + 99 * DAY)
    assert isinstance(outcome, Accepted)
    assert outcome.accounts[0].balance(1) == len(scheduled)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("seed", range(12))
def test_no_sequence_of_commands_passes_the_bound_or_blocks_the_balance(seed: int) -> None:
    random, ledger = Random(seed), Ledger()
    met: Counter[str] = Counter()
    for number in range(300):
        call, arguments = _any_command(random, ledger, number)
        outcome = ledger.outcome(call, f"t{number}", **arguments)
        met[type(outcome).__name__] += 1
        if isinstance(outcome, Accepted):
            ledger.write(outcome)
        assert isinstance(outcome, AccountFull) <= issubclass(call, LIMITED), (seed, number)
        assert all(account.items <= FEW for account in ledger.accounts.values()), (seed, number)
        ledger.wait(minutes=random.choice([0, 0, 1, 10]))
    assert min(met["Accepted"], met["AccountFull"]) >= 10, met


def _any_command(
    random: Random, ledger: Ledger, number: int
) -> tuple[type[Command], dict[str, Any]]:
    app_id, credits_ = random.choice(APPS), random.randint(1, 6)
    at = {"app_id": app_id}
    report = {"report_id": "r", "report_name": "R", "purchase_id": f"p{number}"}
    app = ledger.account.apps.get(app_id, AppAccount())
    hold_id = random.choice(app.holds).id if app.holds else "none"
    grant_id = random.choice(app.grants).id if app.grants else "none"
    used = [e.id for e in ledger.entries[7] if e.purchase_id and e.app_id == app_id] or ["none"]
    span = timedelta(minutes=random.randint(1, 60))
    goal = {"to_user_id": random.choice([7, 8]), "to_app_id": app_id % len(APPS) + 1}
    grant = {"credits": credits_, "priority": random.randint(1, 9)}
    commands: list[tuple[type[Command], dict[str, Any]]] = [
        (Add, {**at, "credits": credits_}),
        (Use, {**at, "credits": credits_, **report}),
        (GrantCredits, {**at, **grant, "expires_after": random.choice([span, None])}),
        (GrantCredits, {**at, **grant, "effective_at": ledger.now + span}),
        (PlaceHold, {**at, "credits": credits_, "expires_after": span}),
        (CaptureHold, {**at, **report, "hold_id": hold_id, "credits": 1, "final": False}),
        (CaptureHold, {**at, **report, "hold_id": hold_id}),
        (ReleaseHold, {**at, "hold_id": hold_id}),
        (VoidGrant, {**at, "grant_id": grant_id}),
        (ReverseTransaction, {**at, "reversed_id": random.choice(used)}),
        (
            ReverseTransaction,
            {**at, "reversed_id": random.choice(used), "restore_until": ledger.now + span},
        ),
        (TransferCredits, {**at, **goal, "credits": credits_}),
        (AdjustBalance, {**at, "delta": -credits_, "note": "n"}),
    ]
    return random.choice(commands)
