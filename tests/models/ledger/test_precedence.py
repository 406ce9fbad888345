"""Test the precedence of all refusals, call by call, and that the short way is the long one.

Each row fixes one fault of the row above: the reason is always that of the first fault.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from credit_models.ledger import (
    APPS_MAX,
    GRANTS_MAX,
    HOLDS_MAX,
    UINT32_MAX,
    Accepted,
    Account,
    Add,
    AdjustBalance,
    AlreadyPurchased,
    AvailableTooLow,
    BalanceOverflow,
    CapExceeded,
    Caps,
    CaptureHold,
    Command,
    CreditsLimitExceeded,
    ExpiresTooEarly,
    ExtendHold,
    GrantCredits,
    GrantEmpty,
    GrantNotFound,
    GrantsFull,
    HoldAlreadyReleased,
    HoldExceeded,
    HoldLifeExceeded,
    HoldNotFound,
    HoldsFull,
    InsufficientCredits,
    KeyReused,
    Lookup,
    NotReversible,
    PlaceHold,
    Policy,
    ReleaseHold,
    ReversalExceeds,
    ReverseTransaction,
    RevisionChanged,
    SetSpendingCap,
    TooManyApps,
    TransactionNotFound,
    TransferCredits,
    Use,
    VoidGrant,
    decide,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.models.ledger.history import NOON, Ledger

DAY = timedelta(days=1)
CAPPED = Policy(caps=Caps(hour=5))
REPORT: dict[str, Any] = {"report_id": "r", "report_name": "R", "purchase_id": "p"}

WRONG = 9999  # a revision that no account of these tests has

# A fault's remedy changes the ledger, or the arguments of the command.
Remedy = Callable[[Ledger], object] | dict[str, Any]
Row = tuple[type, Remedy]


def prepared() -> Ledger:
    """Return a ledger in which the key `k` was used by another call."""
    ledger = Ledger()
    ledger.do(SetSpendingCap, "used", key="k")
    return ledger


def more_apps(ledger: Ledger) -> None:
    """Fill the account with apps other than the app 5."""
    for app_id in range(len(ledger.accounts[7].balances) + 100, APPS_MAX + 100):
        ledger.add(1, app_id=app_id)
    more = APPS_MAX - len(ledger.accounts[7].balances)
    for app_id in range(5000, 5000 + more):
        ledger.add(1, app_id=app_id)


def walk(ledger: Ledger, call: type[Command], arguments: dict[str, Any], rows: list[Row]) -> None:
    """Check that each row has its outcome, then fix its fault; at last the command succeeds."""
    given_: dict[str, Any] = {"key": "k", "expected_revision": WRONG, **arguments}
    for refusal, remedy in rows:
        outcome = ledger.outcome(call, **given_)
        assert type(outcome) is refusal, outcome
        if isinstance(remedy, dict):
            given_ |= remedy
        else:
            remedy(ledger)
        if given_["expected_revision"] != WRONG:
            given_["expected_revision"] = ledger.accounts[7].revision
    assert isinstance(ledger.outcome(call, **given_), Accepted)


NEW_KEY: Row = (KeyReused, {"key": "new"})
REVISION: Row = (RevisionChanged, {"expected_revision": "stored"})
LOWER: Row = (AvailableTooLow, {"min_available_after": 0})
MUCH = {"min_available_after": UINT32_MAX}


def test_an_add() -> None:
    ledger = prepared()
    ledger.add(UINT32_MAX, app_id=5)
    walk(
        ledger,
        Add,
        {"credits": 10, "app_id": 1, "credits_max": 9, **MUCH},
        [
            NEW_KEY,
            (CreditsLimitExceeded, {"credits_max": 10, "app_id": 5}),
            REVISION,
            (BalanceOverflow, more_apps),
            (BalanceOverflow, {"app_id": 6}),
            (TooManyApps, {"app_id": 1}),
            LOWER,
        ],
    )


def test_a_use() -> None:
    ledger = prepared()
    ledger.add(9)
    ledger.use(2, "bought")
    walk(
        ledger,
        Use,
        {**REPORT, "credits": 10, "once": True, "policy": CAPPED, **MUCH},
        [
            NEW_KEY,
            REVISION,
            (AlreadyPurchased, {"report_id": "another"}),
            (CapExceeded, {"policy": Policy()}),
            (InsufficientCredits, {"credits": 7}),
            LOWER,
        ],
    )


def test_a_grant() -> None:
    ledger = prepared()
    ledger.add(UINT32_MAX, app_id=5)

    def full(ledger: Ledger) -> None:
        for _ in range(GRANTS_MAX):
            ledger.grant(1, priority=1)

    walk(
        ledger,
        GrantCredits,
        {"credits": 10, "credits_max": 9, "expires_at": NOON, **MUCH},
        [
            NEW_KEY,
            (CreditsLimitExceeded, {"credits_max": 10, "app_id": 5}),
            (ExpiresTooEarly, {"expires_at": NOON + DAY}),
            REVISION,
            (BalanceOverflow, more_apps),
            (BalanceOverflow, {"app_id": 6}),
            (TooManyApps, full),
            (TooManyApps, {"app_id": 1}),
            (GrantsFull, {"priority": 1, "expires_at": None}),
            LOWER,
        ],
    )


def test_a_void() -> None:
    ledger = prepared()
    ledger.add(5)
    ledger.grant(5, "empty")
    ledger.do(VoidGrant, grant_id="empty")
    ledger.grant(5, "live")
    walk(
        ledger,
        VoidGrant,
        {"grant_id": "unknown", **MUCH},
        [
            NEW_KEY,
            (GrantNotFound, {"grant_id": "empty"}),
            (GrantEmpty, {"grant_id": "live"}),
            REVISION,
            LOWER,
        ],
    )


def test_a_hold() -> None:
    ledger = prepared()
    ledger.add(HOLDS_MAX + 5)
    for number in range(HOLDS_MAX):
        ledger.hold(1, f"h{number}")
    walk(
        ledger,
        PlaceHold,
        {"credits": 10, "policy": CAPPED, **MUCH},
        [
            NEW_KEY,
            REVISION,
            (CapExceeded, {"policy": Policy()}),
            (InsufficientCredits, {"credits": 1}),
            (HoldsFull, lambda ledger: ledger.do(ReleaseHold, hold_id="h0")),
            LOWER,
        ],
    )


def test_a_capture() -> None:
    ledger = prepared()
    ledger.add(10)
    ledger.hold(1, "settled")
    ledger.do(ReleaseHold, hold_id="settled")
    ledger.hold(4, "h")
    walk(
        ledger,
        CaptureHold,
        {**REPORT, "hold_id": "unknown", "credits": 20, "policy": CAPPED, **MUCH},
        [
            NEW_KEY,
            (HoldNotFound, {"hold_id": "settled"}),
            (HoldAlreadyReleased, {"hold_id": "h"}),
            REVISION,
            (HoldExceeded, {"allow_excess": True}),
            (CapExceeded, {"policy": Policy()}),
            (InsufficientCredits, {"credits": 10}),
            LOWER,
        ],
    )


@pytest.mark.parametrize("call", [ReleaseHold, ExtendHold])
def test_a_release_and_an_extension(call: type[Command]) -> None:
    ledger = prepared()
    ledger.add(10)
    ledger.hold(1, "settled")
    ledger.do(ReleaseHold, hold_id="settled")
    ledger.hold(4, "h", expires_after=DAY)
    ledger.wait(seconds=1)
    longest = {} if call is ReleaseHold else {"expires_after": 7 * DAY}
    rows: list[Row] = [
        NEW_KEY,
        (HoldNotFound, {"hold_id": "settled"}),
        (HoldAlreadyReleased, {"hold_id": "h"}),
    ]
    if call is ExtendHold:
        rows.append((HoldLifeExceeded, {"expires_after": DAY}))
    walk(ledger, call, {"hold_id": "unknown", **longest, **MUCH}, [*rows, REVISION, LOWER])


def test_a_reversal_of_a_use() -> None:
    ledger = prepared()
    ledger.grant(10, "g")
    ledger.use(10, "u")

    def full(ledger: Ledger) -> None:
        ledger.do(AdjustBalance, delta=-(UINT32_MAX - 5), note="why")
        for _ in range(GRANTS_MAX):
            ledger.grant(1, priority=1, expires_after=DAY)

    ledger.add(UINT32_MAX - 5)
    walk(
        ledger,
        ReverseTransaction,
        {"reversed_id": "unknown", "credits": 11, **MUCH},
        [
            NEW_KEY,
            (TransactionNotFound, {"reversed_id": "used"}),
            (NotReversible, {"reversed_id": "u"}),
            REVISION,
            (ReversalExceeds, {"credits": 10}),
            (BalanceOverflow, full),
            (GrantsFull, lambda ledger: ledger.wait(days=1)),
            LOWER,
        ],
    )


def test_a_reversal_of_added_credits() -> None:
    ledger = prepared()
    ledger.add(10, "a")
    ledger.use(4)
    walk(
        ledger,
        ReverseTransaction,
        {"reversed_id": "a", "credits": 11, **MUCH},
        [
            NEW_KEY,
            REVISION,
            (ReversalExceeds, {"credits": 10}),
            (InsufficientCredits, {"credits": 6}),
            LOWER,
        ],
    )


def test_a_transfer() -> None:
    ledger = prepared()
    ledger.grant(20)
    ledger.add(UINT32_MAX, user_id=8, app_id=5)
    for app_id in range(10, 10 + APPS_MAX - 2):
        ledger.add(1, user_id=8, app_id=app_id)
    for _ in range(GRANTS_MAX):
        ledger.grant(1, user_id=8, app_id=3, priority=1)
    walk(
        ledger,
        TransferCredits,
        {"credits": 21, "to_user_id": 8, "to_app_id": 5, **MUCH},
        [
            NEW_KEY,
            REVISION,
            (InsufficientCredits, {"credits": 20}),
            (BalanceOverflow, {"to_app_id": 6}),
            (TooManyApps, {"to_app_id": 3}),
            (GrantsFull, {"to_app_id": 10}),
            LOWER,
        ],
    )


def test_an_adjustment_upwards() -> None:
    ledger = prepared()
    ledger.add(UINT32_MAX, app_id=5)
    walk(
        ledger,
        AdjustBalance,
        {"delta": 10, "note": "why", "app_id": 1, "credits_max": 9, **MUCH},
        [
            NEW_KEY,
            (CreditsLimitExceeded, {"credits_max": 10, "app_id": 5}),
            REVISION,
            (BalanceOverflow, more_apps),
            (BalanceOverflow, {"app_id": 6}),
            (TooManyApps, {"app_id": 1}),
            LOWER,
        ],
    )


def test_an_adjustment_downwards() -> None:
    ledger = prepared()
    ledger.add(5)
    more_apps(ledger)
    walk(
        ledger,
        AdjustBalance,
        {"delta": -10, "note": "why", **MUCH},
        [
            NEW_KEY,
            REVISION,
            (InsufficientCredits, {"policy": Policy(allow_negative=True), "app_id": 6}),
            (TooManyApps, {"app_id": 1, "delta": -5}),
            LOWER,
        ],
    )


def test_a_cap() -> None:
    ledger = prepared()
    ledger.add(5)
    more_apps(ledger)
    walk(
        ledger,
        SetSpendingCap,
        {"caps": Caps(hour=1), **MUCH},
        [
            NEW_KEY,
            (RevisionChanged, {"expected_revision": "stored", "app_id": 6}),
            (TooManyApps, {"app_id": 1}),
            LOWER,
        ],
    )


def test_a_refusal_for_too_little_left_names_what_would_be_left() -> None:
    ledger = Ledger()
    ledger.add(10)
    refused = ledger.outcome(Use, credits=4, **REPORT, min_available_after=7)
    assert refused == AvailableTooLow(available_after=6, required=7)
    owing = ledger.outcome(
        AdjustBalance,
        delta=-14,
        note="why",
        policy=Policy(allow_negative=True),
        min_available_after=1,
    )
    assert owing == AvailableTooLow(available_after=0, required=1)


def test_the_stored_revision_counts_although_something_is_due() -> None:
    ledger = Ledger()
    ledger.grant(10, expires_after=DAY)
    ledger.add(5)
    ledger.wait(days=1)
    assert ledger.outcome(Use, credits=1, **REPORT, expected_revision=3) == (
        RevisionChanged(revision=2)
    )
    assert ledger.use(1, expected_revision=2).sequence == 4


@given(
    balance=st.sampled_from([-UINT32_MAX, -1, 0, 1, 5, UINT32_MAX - 5, UINT32_MAX]),
    credits_=st.sampled_from([1, 5, UINT32_MAX]),
    credits_max=st.sampled_from([4, UINT32_MAX]),
    app_id=st.sampled_from([1, 2]),
    apps=st.sampled_from([1, APPS_MAX]),
    adds=st.booleans(),
    used=st.booleans(),
)
def test_the_short_way_of_a_plain_command_is_the_long_one(
    balance: int, credits_: int, credits_max: int, app_id: int, apps: int, adds: bool, used: bool
) -> None:
    others = dict.fromkeys(range(1000, 999 + apps), 1)
    account = Account(
        user_id=7,
        balances={1: balance, **others},
        revision=3 if used else 0,
        created_at=NOON if used else None,
        updated_at=NOON if used else None,
        created_by=2 if used else 0,
        updated_by=2 if used else 0,
    )
    common: dict[str, Any] = {
        "user_id": 7,
        "app_id": app_id,
        "created_by": 3,
        "key": "k",
        "transaction_id": "t",
        "credits": credits_,
    }
    plain: Command = Use(**common, **REPORT)
    if adds:
        plain = Add(**common, credits_max=credits_max)
    short = decide(account, plain, Lookup(), NOON + DAY)
    # A condition that is always met makes a command take the long way.
    long = decide(account, replace(plain, min_available_after=0), Lookup(), NOON + DAY)
    if isinstance(long, Accepted):
        request = (("min_available_after", "0"),)
        assert long.main.details.request == request
        main = replace(long.main, details=replace(long.main.details, request=()))
        long = long._replace(main=main, transactions=(main,))
    assert short == long
