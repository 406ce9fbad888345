"""Test idempotency: what of a request is compared with an earlier one of the same key."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from credit_models.ledger import (
    Add,
    AdjustBalance,
    Caps,
    CaptureHold,
    Category,
    Command,
    ExtendHold,
    GrantCredits,
    KeyReused,
    PlaceHold,
    Policy,
    ReleaseHold,
    Replayed,
    ReverseTransaction,
    SetSpendingCap,
    TransferCredits,
    Use,
    VoidGrant,
)

from tests.models.ledger.history import NOON, Ledger

DAY = timedelta(days=1)
COMMON: dict[str, Any] = {"created_by": 4, "expected_revision": 99, "min_available_after": 99}
ANNOTATED = {**COMMON, "note": "x", "metadata": (("a", "b"),)}
FIELDS = ("created_by", "note", "metadata", "expected_revision", "min_available_after")
REPORT = {"report_id": "r", "report_name": "R", "purchase_id": "p"}

# Each call, its arguments, and other values for all other fields of the request.
CALLS: list[tuple[type[Command], dict[str, Any], dict[str, Any]]] = [
    (Add, {"credits": 1}, {"credits": 2}),
    (
        Use,
        {"credits": 1, **REPORT},
        {"report_id": "x", "report_name": "X", "credits": 2, "once": True},
    ),
    (
        GrantCredits,
        {"credits": 1},
        {
            "credits": 2,
            "expires_at": NOON + 2 * DAY,
            "effective_at": NOON + DAY,
            "priority": 0,
            "category": Category.OWN,
        },
    ),
    (VoidGrant, {"grant_id": "g"}, {"grant_id": "x"}),
    (PlaceHold, {"credits": 1}, {"credits": 2, "purpose": "x", "allow_partial": True}),
    (
        CaptureHold,
        {"hold_id": "h", **REPORT},
        {
            "hold_id": "x",
            "credits": 2,
            "report_id": "x",
            "report_name": "X",
            "final": False,
            "allow_excess": True,
        },
    ),
    (ReleaseHold, {"hold_id": "h"}, {"hold_id": "x"}),
    (ExtendHold, {"hold_id": "h", "expires_after": DAY}, {"hold_id": "x"}),
    (
        ReverseTransaction,
        {"reversed_id": "u"},
        {"reversed_id": "x", "credits": 1, "restore_until": NOON + DAY},
    ),
    (
        TransferCredits,
        {"credits": 1, "to_user_id": 8, "to_app_id": 1},
        {"to_user_id": 9, "to_app_id": 2, "credits": 2},
    ),
    (AdjustBalance, {"delta": 1, "note": "why"}, {"delta": -1}),
    (SetSpendingCap, {"caps": Caps(hour=5)}, {"caps": Caps(day=5)}),
]
IDS = [call.__name__ for call, _, _ in CALLS]


def keyed() -> Ledger:
    ledger = Ledger()
    ledger.add(100)
    ledger.grant(10, "g")
    ledger.hold(10, "h")
    ledger.use(10, "u")
    return ledger


def names(changes: dict[str, Any]) -> set[str]:
    contract = {"reversed_id": "transaction_id", "expires_after": "expires_after_seconds"}
    return {contract.get(name, name) for name in changes}


@pytest.mark.parametrize(("call", "arguments", "changes"), CALLS, ids=IDS)
def test_the_same_request_is_replayed_whatever_has_changed(
    call: type[Command], arguments: dict[str, Any], changes: dict[str, Any]
) -> None:
    ledger = keyed()
    entry = ledger.do(call, key="k", **arguments)
    ledger.wait(days=30)
    again = call(**{**ledger.common(), "key": "k", **arguments})
    capped = Policy(caps=Caps(hour=1))
    assert ledger.decide(replace(again, policy=capped), ledger.now) == Replayed(transaction=entry)
    assert ledger.decide(replace(again, validate_only=True), ledger.now) == (
        Replayed(transaction=entry)
    )


@pytest.mark.parametrize(("call", "arguments", "changes"), CALLS, ids=IDS)
def test_each_field_that_differs_is_named(
    call: type[Command], arguments: dict[str, Any], changes: dict[str, Any]
) -> None:
    ledger = keyed()
    ledger.do(call, key="k", **arguments)
    common = COMMON if call in (Add, Use) else ANNOTATED
    for name, value in {**common, **changes}.items():
        other = ledger.outcome(call, key="k", **{**arguments, name: value})
        assert other == KeyReused(fields=tuple(names({name: value})))
    every = ledger.outcome(call, key="k", **{**arguments, **common, **changes})
    assert isinstance(every, KeyReused)
    assert set(every.fields) == names({**common, **changes})
    if call not in (Add, Use):
        assert every.fields[:5] == FIELDS


@pytest.mark.parametrize(("call", "arguments", "changes"), CALLS, ids=IDS)
def test_a_request_with_every_field_is_replayed(
    call: type[Command], arguments: dict[str, Any], changes: dict[str, Any]
) -> None:
    ledger = keyed()
    references = {name for name in changes if name.endswith("_id")} - {"report_id"}
    some = {**arguments, **{k: v for k, v in changes.items() if k not in references}}
    some |= {"expected_revision": 4, "min_available_after": 0}
    if call not in (Add, Use):
        some |= {"metadata": (("a", "b"),), "note": "n"}
    entry = ledger.do(call, key="k", **some)
    assert ledger.outcome(call, key="k", **some) == Replayed(transaction=entry)
    other = ledger.outcome(call, key="k", **{**some, "expected_revision": 5})
    assert other == KeyReused(fields=("expected_revision",))


@pytest.mark.parametrize(("call", "arguments", "changes"), CALLS, ids=IDS)
def test_a_key_is_not_reused_for_another_call(
    call: type[Command], arguments: dict[str, Any], changes: dict[str, Any]
) -> None:
    ledger = keyed()
    ledger.do(call, key="k", **arguments)
    for other, values, _ in CALLS:
        if other is not call:
            assert ledger.outcome(other, key="k", **values) == KeyReused(fields=("call",))


def test_a_key_belongs_to_a_user_in_an_app() -> None:
    ledger = keyed()
    ledger.grant(1, key="k")
    ledger.grant(2, key="k", app_id=2)
    ledger.grant(3, key="k", user_id=8)


def test_what_an_entry_holds_is_not_recorded_again() -> None:
    ledger = keyed()
    assert ledger.add(1).details.request == ()
    assert ledger.use(1).details.request == ()
    assert ledger.use(1, expected_revision=6).details.request == (("expected_revision", "6"),)
    metadata = (("order", "17"),)
    entry = ledger.grant(5, expires_after=DAY, priority=3, note="n", metadata=metadata)
    assert (entry.details.note, entry.details.metadata) == ("n", metadata)
    assert entry.details.request == (("expires_after_seconds", "86400"), ("priority", "3"))


def test_unset_and_default_values_are_the_same_request() -> None:
    ledger = keyed()
    entry = ledger.grant(5, key="k", priority=500)
    assert ledger.outcome(GrantCredits, key="k", credits=5) == Replayed(transaction=entry)
    captured = ledger.do(CaptureHold, key="c", hold_id="h", final=True, **REPORT)
    again = ledger.outcome(CaptureHold, key="c", hold_id="h", **REPORT)
    assert again == Replayed(transaction=captured)
