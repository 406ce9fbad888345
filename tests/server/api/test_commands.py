"""Every field of a request arrives in its command."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_models import (
    AdjustBalanceRequest,
    CaptureHoldRequest,
    CreditRequest,
    ExtendHoldRequest,
    GrantCategory,
    GrantCreditsRequest,
    PlaceHoldRequest,
    PurchaseRequest,
    ReleaseHoldRequest,
    ReverseTransactionRequest,
    SetSpendingCapRequest,
    SpendingCaps,
    TransferCreditsRequest,
    VoidGrantRequest,
    ledger,
)
from credit_models.constraints import constraints_of
from credit_models.ledger import Caps, Category, Command
from credit_models.operations import AnyWrite
from credit_server.api.commands import Commands
from credit_server.store.memory import MemoryStore
from google.rpc.error_details_pb2 import BadRequest
from grpclib.exceptions import GRPCError

from tests.server.requests import WRITES, request_of

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
NIGHT = NOON + timedelta(hours=12)
COMMON: dict[str, Any] = {
    "user_id": 1,
    "app_id": 2,
    "created_by": 3,
    "idempotency_key": "k",
    "expected_revision": 4,
    "min_available_after": 5,
}
NOTED: dict[str, Any] = {
    **COMMON,
    "note": "n",
    "metadata": {"b": "2", "a": "1"},
    "validate_only": True,
}
REPORT: dict[str, Any] = {"report_id": "r", "report_name": "R"}
BASE: dict[str, Any] = {
    "user_id": 1,
    "app_id": 2,
    "created_by": 3,
    "key": "k",
    "expected_revision": 4,
    "min_available_after": 5,
}
OF_NOTED: dict[str, Any] = {
    **BASE,
    "note": "n",
    "metadata": (("a", "1"), ("b", "2")),
    "validate_only": True,
}
# Each request with all its fields, and the command.
WHOLE: list[tuple[AnyWrite, type[Command], dict[str, Any]]] = [
    (CreditRequest(**COMMON, credits=6), ledger.Add, {**BASE, "credits": 6, "credits_max": 100}),
    (
        PurchaseRequest(**COMMON, **REPORT, credits=6, once=True),
        ledger.Use,
        {**BASE, **REPORT, "credits": 6, "once": True},
    ),
    (
        GrantCreditsRequest(
            **NOTED,
            credits=6,
            expires_at=NIGHT,
            effective_at=NOON,
            priority=0,
            category=GrantCategory.PROMOTIONAL,
        ),
        ledger.GrantCredits,
        {
            **OF_NOTED,
            "credits": 6,
            "credits_max": 100,
            "expires_at": NIGHT,
            "effective_at": NOON,
            "priority": 0,
            "category": Category.PROMOTIONAL,
        },
    ),
    (
        GrantCreditsRequest(**NOTED, credits=6, expires_after_seconds=7),
        ledger.GrantCredits,
        {
            **OF_NOTED,
            "credits": 6,
            "credits_max": 100,
            "expires_after": timedelta(seconds=7),
            "priority": 500,
        },
    ),
    (VoidGrantRequest(**NOTED, grant_id="g"), ledger.VoidGrant, {**OF_NOTED, "grant_id": "g"}),
    (
        PlaceHoldRequest(
            **NOTED, credits=6, expires_after_seconds=7, purpose="p", allow_partial=True
        ),
        ledger.PlaceHold,
        {
            **OF_NOTED,
            "credits": 6,
            "expires_after": timedelta(seconds=7),
            "purpose": "p",
            "allow_partial": True,
        },
    ),
    (
        CaptureHoldRequest(
            **NOTED, **REPORT, hold_id="h", credits=6, final=False, allow_excess=True
        ),
        ledger.CaptureHold,
        {
            **OF_NOTED,
            **REPORT,
            "hold_id": "h",
            "credits": 6,
            "final": False,
            "allow_excess": True,
        },
    ),
    (
        CaptureHoldRequest(**NOTED, **REPORT, hold_id="h"),
        ledger.CaptureHold,
        {**OF_NOTED, **REPORT, "hold_id": "h", "credits": 0, "final": True},
    ),
    (ReleaseHoldRequest(**NOTED, hold_id="h"), ledger.ReleaseHold, {**OF_NOTED, "hold_id": "h"}),
    (
        ExtendHoldRequest(**NOTED, hold_id="h", expires_after_seconds=7),
        ledger.ExtendHold,
        {**OF_NOTED, "hold_id": "h", "expires_after": timedelta(seconds=7)},
    ),
    (
        ReverseTransactionRequest(**NOTED, transaction_id="t", credits=6, restore_until=NIGHT),
        ledger.ReverseTransaction,
        {**OF_NOTED, "reversed_id": "t", "credits": 6, "restore_until": NIGHT},
    ),
    (
        ReverseTransactionRequest(**NOTED, transaction_id="t"),
        ledger.ReverseTransaction,
        {**OF_NOTED, "reversed_id": "t", "credits": 0},
    ),
    (
        TransferCreditsRequest(**NOTED, to_user_id=6, to_app_id=7, credits=8),
        ledger.TransferCredits,
        {**OF_NOTED, "to_user_id": 6, "to_app_id": 7, "credits": 8},
    ),
    (
        TransferCreditsRequest(**NOTED, to_user_id=6, credits=8),
        ledger.TransferCredits,
        {**OF_NOTED, "to_user_id": 6, "to_app_id": 2, "credits": 8},
    ),
    (
        TransferCreditsRequest(**NOTED, to_app_id=7, credits=8),
        ledger.TransferCredits,
        {**OF_NOTED, "to_user_id": 1, "to_app_id": 7, "credits": 8},
    ),
    (
        AdjustBalanceRequest(**NOTED, delta=-6),
        ledger.AdjustBalance,
        {**OF_NOTED, "delta": -6, "credits_max": 100},
    ),
    (
        SetSpendingCapRequest(**NOTED, caps=SpendingCaps(per_hour=6, per_day=7, per_month=8)),
        ledger.SetSpendingCap,
        {**OF_NOTED, "caps": Caps(hour=6, day=7, month=8)},
    ),
    (SetSpendingCapRequest(**NOTED), ledger.SetSpendingCap, {**OF_NOTED, "caps": Caps()}),
]
BUYING = (ledger.Use, ledger.CaptureHold)


class NumberedStore(MemoryStore):
    """Counts its ids."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def new_id(self) -> str:
        self._count += 1
        return f"id-{self._count}"


def command_of(request: AnyWrite) -> Command:
    return Commands(NumberedStore(), credits_max=100).of(request, None)


def broken_fields(request: AnyWrite) -> list[str]:
    with pytest.raises(GRPCError) as caught:
        command_of(request)
    (broken,) = [each for each in caught.value.details or () if isinstance(each, BadRequest)]
    return [violation.field for violation in broken.field_violations]


@pytest.mark.parametrize(
    ("request_", "command", "expected"), WHOLE, ids=lambda given: type(given).__name__
)
def test_a_request_arrives_whole(
    request_: AnyWrite, command: type[Command], expected: dict[str, Any]
) -> None:
    ids: dict[str, Any] = {"transaction_id": "id-1"}
    if command in BUYING:
        ids = {"purchase_id": "id-1", "transaction_id": "id-2"}
    assert command_of(request_) == command(**expected, **ids)


def test_every_request_is_tried_and_sets_each_of_its_fields_somewhere() -> None:
    by_type: dict[type[AnyWrite], set[str]] = {}
    for request, _, _ in WHOLE:
        empty = vars(type(request)())
        found = by_type.setdefault(type(request), set())
        found |= {name for name, value in vars(request).items() if value != empty[name]}
    assert set(by_type) == {type(request_of(call)) for call in WRITES}
    for request_type, found in by_type.items():
        assert found == vars(request_type()).keys() - {"_unknown_fields"}


def test_an_instant_is_taken_in_whole_milliseconds() -> None:
    instant = NOON.replace(microsecond=123_999)
    request = request_of("GrantCredits", expires_at=instant, effective_at=instant)
    command = command_of(request)
    assert isinstance(command, ledger.GrantCredits)
    assert command.expires_at == command.effective_at == NOON.replace(microsecond=123_000)


def test_a_category_that_the_server_does_not_know_is_rejected() -> None:
    assert broken_fields(request_of("GrantCredits", category=GrantCategory(77))) == ["category"]


@pytest.mark.parametrize(
    "target", [{}, {"to_user_id": 7}, {"to_app_id": 1}, {"to_user_id": 7, "to_app_id": 1}]
)
def test_a_transfer_to_its_source_is_rejected(target: dict[str, int]) -> None:
    request = replace(request_of("TransferCredits", to_app_id=None), **target)
    assert broken_fields(request) == ["to_user_id"]


def test_an_operation_sets_no_caps_of_an_app() -> None:
    assert broken_fields(request_of("SetSpendingCap", user_id=None)) == ["user_id"]


def test_the_caps_of_an_app_take_nothing_that_is_about_a_user() -> None:
    request = request_of(
        "SetSpendingCap", user_id=None, note="n", metadata={"a": "b"}, min_available_after=0
    )
    assert broken_fields(request) == ["note", "metadata", "min_available_after"]


@pytest.mark.parametrize("call", WRITES)
def test_every_broken_constraint_is_named(call: str) -> None:
    request = type(request_of(call))()
    required = [
        name
        for name, constraint in constraints_of(type(request)).items()
        if (constraint.required or constraint.minimum) and getattr(request, name) is not None
    ]
    assert broken_fields(request)[: len(required)] == required
    assert {"app_id", "created_by"} <= set(required)
