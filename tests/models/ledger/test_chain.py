"""The hashes of entries: what they cover, and how they are chained."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_models import TransactionType
from credit_models.entry_hash import entry_hash
from credit_models.ledger import (
    NOTHING_FOUND,
    Accepted,
    Account,
    Add,
    Command,
    Kind,
    Lookup,
    Replayed,
    Transaction,
    TransferCredits,
    Use,
    decide,
    hash_of,
)
from credit_models.ledger.chain import _TYPES

from tests.models.ledger.every_kind import every_kind
from tests.models.ledger.history import NOON

ADD: dict[str, Any] = {
    "user_id": 7, "app_id": 1, "credits": 10, "created_by": 3, "key": "k", "transaction_id": "t",
}  # fmt: skip

# Any, here and below: the fields have values of many types.
FIELDS: dict[str, Any] = {
    "previous_hash": b"",
    "id_": "t",
    "user_id": 7,
    "app_id": 1,
    "credits_": 5,
    "created_at": NOON,
    "created_by": 3,
    "type_": 2,
    "balance_after": 4,
    "sequence": 6,
    "purchase_id": "p",
    "idempotency_key": "k",
    "effect": -5,
    "effective_at": None,
    "related_id": "",
    "allocations": (),
    "metadata": (),
    "note": "",
    "owed_after": 0,
    "report_id": "r",
    "report_name": "R",
    "expires_at": None,
}
OTHER: dict[str, list[Any]] = {
    "previous_hash": [b"\x01", b"\x00"],
    "id_": ["", "t2"],
    "user_id": [8, 2**32 - 1],
    "app_id": [7, 0],
    "credits_": [6],
    "created_at": [NOON + timedelta(milliseconds=1), datetime(1969, 12, 31, 23, tzinfo=UTC)],
    "created_by": [2],
    "type_": [1],
    "balance_after": [0],
    "sequence": [7, 2**64 - 1],
    "purchase_id": ["", "pk"],
    "idempotency_key": ["", "kk"],
    "effect": [5, 0],
    "effective_at": [NOON, NOON + timedelta(milliseconds=1)],
    "related_id": ["x", "y"],
    "allocations": [[("", 5)], [("g", 5)], [("g", 4), ("", 1)], [("", 1), ("g", 4)]],
    "metadata": [[("a", "b")], [("a", "c")], [("b", "b")], [("a", "b"), ("b", "")]],
    "note": ["n", "a"],
    "owed_after": [1],
    "report_id": ["", "rR"],
    "report_name": ["", "Rr"],
    "expires_at": [NOON, NOON + timedelta(milliseconds=1)],
}


def test_each_value_of_each_field_has_a_hash_of_its_own() -> None:
    assert OTHER.keys() == FIELDS.keys()
    given = [FIELDS, *({**FIELDS, name: value} for name in OTHER for value in OTHER[name])]
    hashes = {entry_hash(**fields) for fields in given}
    assert len(hashes) == len(given)
    assert {(len(each), each[0]) for each in hashes} == {(33, 1)}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # The same bytes in other fields.
        ({"purchase_id": "pk", "idempotency_key": ""}, {"purchase_id": "p"}),
        ({"report_id": "rR", "report_name": ""}, {"report_id": "r"}),
        ({"related_id": "x"}, {"note": "x"}),
        ({"effective_at": NOON}, {"expires_at": NOON}),
        ({"metadata": [("ab", "c")]}, {"metadata": [("a", "bc")]}),
        ({"allocations": [("a", 1)]}, {"metadata": [("a", "\x00\x00\x00\x01")]}),
    ],
)
def test_a_value_cannot_move_to_another_field(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert entry_hash(**{**FIELDS, **first}) != entry_hash(**{**FIELDS, **second})


def test_the_order_of_metadata_has_no_effect() -> None:
    pairs = [("b", "1"), ("a", "2"), ("\U0001f600", "3"), ("\uffff", "4")]
    hashes = {entry_hash(**{**FIELDS, "metadata": given}) for given in (pairs, pairs[::-1])}
    assert len(hashes) == 1


def test_the_numbers_of_the_types_are_those_of_the_contract() -> None:
    assert {kind.name: number for kind, number in _TYPES.items()} == {
        each.name: each.value for each in TransactionType if each
    }


def test_every_kind_of_entry_continues_the_chain_of_its_app() -> None:
    ledger = every_kind()
    heads: dict[tuple[int, int], bytes] = {}
    for entries in ledger.entries.values():
        for entry in entries:
            place = entry.user_id, entry.app_id
            assert entry.previous_hash == heads.get(place, b"")
            assert entry.hash == hash_of(entry, entry.previous_hash)
            heads[place] = entry.hash
    assert heads.keys() == {(7, 1), (7, 2), (8, 1)}
    for user_id, account in ledger.accounts.items():
        assert account.heads == {
            app: head for (user, app), head in heads.items() if user == user_id
        }


def _decided(account: Account, genesis: bytes | None = b"", **fields: Any) -> Accepted:
    outcome = decide(account, Add(**{**ADD, **fields}), NOTHING_FOUND, NOON, genesis=genesis)
    assert isinstance(outcome, Accepted)
    return outcome


# A condition makes a command take the path of all kinds.
@pytest.mark.parametrize("path", [{}, {"min_available_after": 0}], ids=["plain", "all kinds"])
def test_a_chain_begins_only_if_it_may_and_then_never_ends(path: dict[str, Any]) -> None:
    without = _decided(Account.empty(7), None, **path)
    assert (without.main.hash, without.accounts[0].heads) == (b"", {})
    first = _decided(without.accounts[0], **path)
    assert first.main.previous_hash == b""
    assert first.main.sequence == 2
    second = _decided(first.accounts[0], None, **path)
    assert second.main.previous_hash == first.main.hash
    assert second.accounts[0].heads == {1: second.main.hash}
    other = _decided(second.accounts[0], None, app_id=2, **path)
    assert (other.main.hash, other.accounts[0].heads) == (b"", {1: second.main.hash})


def test_both_paths_give_an_entry_the_same_hash() -> None:
    account = _decided(Account.empty(7)).accounts[0]
    use = Use(**ADD, report_id="r", report_name="R", purchase_id="p")
    plain = decide(account, use, NOTHING_FOUND, NOON)
    # A hash does not cover the conditions of a request: they are no public fields.
    full = decide(account, replace(use, expected_revision=1), NOTHING_FOUND, NOON)
    assert isinstance(plain, Accepted)
    assert isinstance(full, Accepted)
    assert plain.main.hash == full.main.hash
    assert plain.accounts[0].heads == full.accounts[0].heads


def test_a_retry_returns_the_hash_of_the_first_call() -> None:
    first = _decided(Account.empty(7))
    again: Command = Add(**{**ADD, "transaction_id": "t2"})
    replayed = decide(first.accounts[0], again, Lookup(earlier=first.main), NOON)
    assert replayed == Replayed(transaction=first.main)


def test_an_entry_with_a_later_one_of_the_same_command_keeps_its_hash() -> None:
    ledger = every_kind()
    ledger.add(5)
    main = ledger.do(TransferCredits, to_user_id=7, to_app_id=2, credits=1)
    assert main.final_revision > main.sequence
    assert main.hash == hash_of(main, main.previous_hash)


def test_what_the_contract_does_not_show_is_not_hashed() -> None:
    entry: Transaction = _decided(Account.empty(7)).main
    hidden = replace(
        entry.details,
        request=(("once", "true"),),
        held_after=3,
        released=1,
        related_total=2,
        final_revision=9,
        final_balance=8,
    )
    assert hash_of(replace(entry, details=hidden), b"") == entry.hash
    refund = replace(entry, kind=Kind.REFUND)
    until = replace(entry.details, ends_at=NOON)
    assert hash_of(replace(refund, details=until), b"") == hash_of(refund, b"")
