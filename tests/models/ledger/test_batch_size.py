"""Test how the effects of commands are measured, and that one command always fits."""

from collections.abc import Iterator
from typing import Any

import pytest
from credit_models.ledger import (
    ACCOUNT_ITEMS_MAX,
    BATCH_SIZE_MAX,
    GRANTS_MAX,
    NOTHING_FOUND,
    Accepted,
    Account,
    Add,
    BatchSize,
    BatchTooLarge,
    Command,
    TransferCredits,
    Use,
    decide,
)

from tests.models.ledger.history import NOON, Ledger


def effects(ledger: Ledger, call: type[Command], **arguments: Any) -> Accepted:
    """Write a command, and return its effects."""
    outcome = ledger.outcome(call, **arguments)
    assert isinstance(outcome, Accepted)
    ledger.write(outcome)
    return outcome


def additions() -> Iterator[Accepted]:
    account = Account.empty(1)
    while True:
        add = Add(user_id=1, app_id=1, created_by=1, key="", transaction_id="t", credits=1)
        outcome = decide(account, add, NOTHING_FOUND, NOON)
        assert isinstance(outcome, Accepted)
        yield outcome
        account = outcome.accounts[0]


def full() -> Ledger:
    ledger = Ledger()
    for priority in range(GRANTS_MAX):
        ledger.grant(1, priority=priority)
    return ledger


def test_an_entry_counts_as_one() -> None:
    size, ledger = BatchSize(), Ledger()
    assert size.add(effects(ledger, Add, credits=5)) is None
    assert size.add(effects(ledger, Use, credits=1, **ledger.report())) is None
    assert size.total == 2


def test_allocations_count_and_the_account_of_each_user_once() -> None:
    size, ledger = BatchSize(), full()
    size.add(effects(ledger, Use, credits=160, **ledger.report()))
    # The entry, its 160 allocations, and the 96 grants that are left.
    assert size.total == 1 + 160 // 16 + 96 // 16
    before = size.total
    size.add(effects(ledger, Use, credits=1, **ledger.report()))
    assert size.total == before + 1


def test_the_command_that_exceeds_the_bound_is_rejected_and_not_added() -> None:
    size, adding = BatchSize(), additions()
    for _ in range(BATCH_SIZE_MAX):
        assert size.add(next(adding)) is None
    too_large = BatchTooLarge(size=BATCH_SIZE_MAX + 1, limit=BATCH_SIZE_MAX)
    assert size.add(next(adding)) == too_large
    assert size.add(next(adding)) == too_large
    assert size.total == BATCH_SIZE_MAX


def test_the_first_command_fits_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("credit_models.ledger.batch_size.BATCH_SIZE_MAX", 10)
    size, ledger = BatchSize(), full()
    moved = effects(ledger, TransferCredits, credits=GRANTS_MAX, to_user_id=8, to_app_id=1)
    assert size.add(moved) is None
    assert size.total == 257 + 2 * (256 // 16)
    assert isinstance(size.add(effects(ledger, Add, credits=1)), BatchTooLarge)


def test_the_items_of_the_largest_account_do_not_use_up_the_bound() -> None:
    assert ACCOUNT_ITEMS_MAX // 16 < BATCH_SIZE_MAX / 10
