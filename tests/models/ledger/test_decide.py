"""Test the ledger's rules: precedence, effects, and invariants after any sequence of commands."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_models.ledger import (
    APPS_MAX,
    NOTHING_FOUND,
    UINT32_MAX,
    Accepted,
    Account,
    Add,
    BalanceOverflow,
    Command,
    CreditsLimitExceeded,
    InsufficientCredits,
    InvariantViolated,
    KeyReused,
    Kind,
    Lookup,
    Outcome,
    Replayed,
    TooManyApps,
    Transaction,
    Use,
    decide,
    hash_of,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)

ADD = Add(user_id=7, app_id=1, credits=10, created_by=3, key="k", transaction_id="t1")
USE = Use(
    user_id=7,
    app_id=1,
    report_id="r",
    report_name="Report",
    credits=4,
    created_by=3,
    key="k",
    transaction_id="t1",
    purchase_id="p1",
)


# Any: the fields have many types.
def account(balance: int = 0, **changes: Any) -> Account:
    base = Account(
        user_id=7,
        balances={1: balance},
        revision=5,
        created_at=NOW - timedelta(days=1),
        updated_at=NOW - timedelta(hours=1),
        created_by=2,
        updated_by=2,
    )
    return replace(base, **changes)


def made_by(command: Command) -> Transaction:
    outcome = decide(account(balance=100), command, NOTHING_FOUND, NOW)
    assert isinstance(outcome, Accepted)
    return replace(outcome.main, id="earlier")


# Each row fixes one fault of the row above: the reason is always that of the first fault.
USE_ROWS: list[tuple[str, Use, int, Transaction | None, Outcome | None]] = [
    (
        "key used by another call, balance too small",
        USE,
        0,
        made_by(ADD),
        KeyReused(fields=("call",)),
    ),
    (
        "key used with every field different, balance too small",
        USE,
        0,
        replace(made_by(USE), report_id="x", report_name="X", credits=1, created_by=9),
        KeyReused(fields=("report_id", "report_name", "credits", "created_by")),
    ),
    (
        "key used with one field different, balance too small",
        USE,
        0,
        replace(made_by(USE), report_name="X"),
        KeyReused(fields=("report_name",)),
    ),
    (
        "key used for the same request, balance too small",
        USE,
        0,
        made_by(USE),
        Replayed(transaction=made_by(USE)),
    ),
    ("key is new, balance is 0", USE, 0, None, InsufficientCredits(available=0, required=4)),
    ("balance lacks one credit", USE, 3, None, InsufficientCredits(available=3, required=4)),
    ("nothing is wrong", USE, 4, None, None),
]

ADD_ROWS: list[tuple[str, Add, int, Transaction | None, Outcome | None]] = [
    (
        "key used by another call, balance would overflow",
        ADD,
        UINT32_MAX,
        made_by(USE),
        KeyReused(fields=("call",)),
    ),
    (
        "key used with every field different, balance would overflow",
        ADD,
        UINT32_MAX,
        replace(made_by(ADD), credits=1, created_by=9),
        KeyReused(fields=("credits", "created_by")),
    ),
    (
        "key used for the same request, balance would overflow",
        ADD,
        UINT32_MAX,
        made_by(ADD),
        Replayed(transaction=made_by(ADD)),
    ),
    (
        "key used for the same request, limit was lowered, balance would overflow",
        replace(ADD, credits_max=9),
        UINT32_MAX,
        made_by(ADD),
        Replayed(transaction=made_by(ADD)),
    ),
    (
        "key is new, limit is one too low, balance would overflow",
        replace(ADD, credits_max=9),
        UINT32_MAX,
        None,
        CreditsLimitExceeded(credits=10, limit=9),
    ),
    (
        "limit is just enough, balance would overflow",
        replace(ADD, credits_max=10),
        UINT32_MAX,
        None,
        BalanceOverflow(balance=UINT32_MAX, credits=10),
    ),
    (
        "key is new, balance is at its greatest",
        ADD,
        UINT32_MAX,
        None,
        BalanceOverflow(balance=UINT32_MAX, credits=10),
    ),
    (
        "balance is one too great",
        ADD,
        UINT32_MAX - 9,
        None,
        BalanceOverflow(balance=UINT32_MAX - 9, credits=10),
    ),
    ("nothing is wrong", ADD, UINT32_MAX - 10, None, None),
]


@pytest.mark.parametrize(
    ("command", "balance", "earlier", "expected"),
    [
        pytest.param(*row[1:], id=f"{type(row[1]).__name__}: {row[0]}")
        for row in USE_ROWS + ADD_ROWS
    ],
)
def test_the_first_fault_is_the_reason(
    command: Command, balance: int, earlier: Transaction | None, expected: Outcome | None
) -> None:
    outcome = decide(account(balance), command, Lookup(earlier=earlier), NOW)
    if expected is None:
        assert isinstance(outcome, Accepted)
    else:
        assert outcome == expected


def test_credits_for_one_app_too_many_are_refused() -> None:
    full = account(balances=dict.fromkeys(range(2, APPS_MAX + 2), 1))
    assert decide(full, ADD, NOTHING_FOUND, NOW) == TooManyApps(limit=APPS_MAX)
    assert isinstance(decide(full, replace(ADD, app_id=2), NOTHING_FOUND, NOW), Accepted)
    one_less = account(balances=dict.fromkeys(range(2, APPS_MAX + 1), 1))
    assert isinstance(decide(one_less, ADD, NOTHING_FOUND, NOW), Accepted)


def test_the_shortfall_is_the_number_of_missing_credits() -> None:
    assert InsufficientCredits(available=3, required=10).shortfall == 7


def test_an_accepted_add_writes_the_account_and_the_history() -> None:
    outcome = decide(account(balance=100), ADD, NOTHING_FOUND, NOW)
    entry = Transaction(
        id="t1",
        user_id=7,
        app_id=1,
        kind=Kind.ADD,
        credits=10,
        balance_after=110,
        sequence=6,
        created_at=NOW,
        created_by=3,
        key="k",
    )
    entry = replace(entry, hash=hash_of(entry, b""))
    changed = account(balance=110, revision=6, updated_at=NOW, updated_by=3)
    assert outcome == Accepted(
        accounts=(replace(changed, heads={1: entry.hash}),),
        transactions=(entry,),
        main=entry,
        purchase=None,
        refunded=None,
    )


def test_an_accepted_use_writes_a_purchase_that_its_transaction_names() -> None:
    outcome = decide(account(balance=100), USE, NOTHING_FOUND, NOW)
    assert isinstance(outcome, Accepted)
    assert outcome.purchase is not None
    assert outcome.main.purchase_id == outcome.purchase.id == "p1"
    assert outcome.purchase.transaction_id == outcome.main.id == "t1"
    assert outcome.purchase.sequence == outcome.main.sequence == 6
    assert outcome.main.balance_after == outcome.accounts[0].balance(1) == 96


def test_the_first_transaction_dates_the_account() -> None:
    outcome = decide(Account.empty(7), ADD, NOTHING_FOUND, NOW)
    assert isinstance(outcome, Accepted)
    assert outcome.accounts[0].created_at == outcome.accounts[0].updated_at == NOW
    assert outcome.accounts[0].created_by == outcome.accounts[0].updated_by == 3
    assert outcome.accounts[0].revision == 1


def test_a_clock_that_was_set_back_does_not_reorder_the_history() -> None:
    ahead = account(updated_at=NOW + timedelta(minutes=5))
    outcome = decide(ahead, ADD, NOTHING_FOUND, NOW)
    assert isinstance(outcome, Accepted)
    assert outcome.main.created_at == NOW + timedelta(minutes=5)


def test_balances_of_other_apps_do_not_change() -> None:
    outcome = decide(account(balances={1: 5, 2: 8}), ADD, NOTHING_FOUND, NOW)
    assert isinstance(outcome, Accepted)
    assert outcome.accounts[0].balances == {1: 15, 2: 8}


def test_a_command_for_another_user_is_a_bug() -> None:
    with pytest.raises(InvariantViolated, match="own user"):
        decide(account(), replace(ADD, user_id=8), NOTHING_FOUND, NOW)


@pytest.mark.parametrize("changes", [{"app_id": 2}, {"user_id": 8}], ids=str)
def test_an_earlier_transaction_of_another_user_or_app_is_a_bug(changes: dict[str, Any]) -> None:
    with pytest.raises(InvariantViolated, match="a key belongs to a user in an app"):
        decide(account(), ADD, Lookup(earlier=replace(made_by(ADD), **changes)), NOW)


@pytest.mark.parametrize("credits_", [0, -1, UINT32_MAX + 1])
def test_credits_out_of_range_are_a_bug(credits_: int) -> None:
    with pytest.raises(InvariantViolated, match="credits"):
        decide(account(), replace(ADD, credits=credits_), NOTHING_FOUND, NOW)


# Amounts cluster at the edges, so that refusals are about as frequent as successes.
amounts = st.one_of(
    st.integers(1, 20),
    st.sampled_from([1, 2**31, UINT32_MAX - 1, UINT32_MAX]),
    st.integers(1, UINT32_MAX),
)


@st.composite
def commands(draw: st.DrawFn) -> Command:
    key = draw(st.sampled_from(["", "", "", "a", "b", "c"]))
    app_id = draw(st.integers(1, 3))
    if draw(st.booleans()):
        return Add(
            user_id=7,
            app_id=app_id,
            credits=draw(amounts),
            created_by=1,
            key=key,
            transaction_id="",
        )
    return Use(
        user_id=7,
        app_id=app_id,
        report_id=draw(st.sampled_from("xy")),
        report_name="n",
        credits=draw(amounts),
        created_by=1,
        key=key,
        transaction_id="",
        purchase_id="",
    )


@given(st.lists(commands(), max_size=40))
def test_history_always_adds_up_and_balances_stay_in_range(requests: list[Command]) -> None:
    current = Account.empty(7)
    history: list[Transaction] = []
    by_key: dict[tuple[int, str], Transaction] = {}
    for number, request in enumerate(requests):
        command = replace(request, transaction_id=f"t{number}")
        before = current
        outcome = decide(
            current, command, Lookup(earlier=by_key.get((command.app_id, command.key))), NOW
        )
        if isinstance(outcome, Accepted):
            current = outcome.accounts[0]
            history.append(outcome.main)
            if command.key:
                by_key[command.app_id, command.key] = outcome.main
        else:
            assert current is before  # neither a refusal nor a replay has an effect
        if isinstance(outcome, Replayed):
            assert outcome.transaction in history

    sums: dict[int, int] = {}
    for entry in history:
        signed = entry.credits if entry.kind is Kind.ADD else -entry.credits
        sums[entry.app_id] = sums.get(entry.app_id, 0) + signed
        assert sums[entry.app_id] == entry.balance_after
        assert 0 <= entry.balance_after <= UINT32_MAX
    assert sums == dict(current.balances)
    assert [entry.sequence for entry in history] == list(range(1, len(history) + 1))
    assert current.revision == len(history)


@given(st.lists(commands(), min_size=1, max_size=20), st.data())
def test_a_replay_changes_nothing_even_after_other_commands(
    requests: list[Command], data: st.DataObject
) -> None:
    current = Account.empty(7)
    answered: list[tuple[Command, Transaction]] = []
    for number, request in enumerate(requests):
        command = replace(request, key=f"k{number}", transaction_id=f"t{number}")
        outcome = decide(current, command, NOTHING_FOUND, NOW)
        if isinstance(outcome, Accepted):
            current = outcome.accounts[0]
            answered.append((command, outcome.main))
    if answered:
        command, entry = data.draw(st.sampled_from(answered))
        again = replace(command, transaction_id="another")
        assert decide(current, again, Lookup(earlier=entry), NOW) == Replayed(transaction=entry)


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (timedelta(0), timedelta(0)),
        (timedelta(seconds=3), timedelta(seconds=3)),  # another server within the limit
        (timedelta(seconds=4), timedelta(seconds=4)),
        (timedelta(hours=1), timedelta(seconds=4)),  # a clock that was wrong
        (timedelta(days=40_000), timedelta(seconds=4)),
    ],
)
def test_a_time_in_the_future_is_not_copied_to_later_entries(
    ahead: timedelta, expected: timedelta
) -> None:
    latest = NOW + timedelta(seconds=4)
    outcome = decide(account(updated_at=NOW + ahead), ADD, NOTHING_FOUND, NOW, latest)
    assert isinstance(outcome, Accepted)
    assert outcome.main.created_at == NOW + expected
    assert outcome.accounts[0].updated_at == NOW + expected
    # The next entry has its own time again.
    later = NOW + timedelta(minutes=1)
    following = decide(outcome.accounts[0], ADD, NOTHING_FOUND, later, later + timedelta(seconds=4))
    assert isinstance(following, Accepted)
    assert following.main.created_at == later
