"""Messages are checked against the contract's constraints, all fields at once."""

from collections.abc import Sequence
from datetime import UTC, datetime

import betterproto2
import pytest
from credit_models import (
    AdjustBalanceRequest,
    AppId,
    Balance,
    BatchWriteRequest,
    CreditRequest,
    CreditTransaction,
    Empty,
    GrantCreditsRequest,
    Operation,
    PurchaseRequest,
    SummarizeRequest,
    TransactionType,
    UserCredits,
    UserId,
    VoidGrantRequest,
)
from credit_models._generated.message_pool import default_message_pool
from credit_models.codec import encode
from credit_models.constraints import (
    Constraint,
    Violation,
    constraints_of,
    size_violations,
    violations,
)
from credit_models.image import message_class
from credit_models.operations import WRITE_TYPES, AnyWrite, kind_of, operation_of
from credit_models.text import Text

UINT32_MAX = 2**32 - 1
IDENTIFIER = f"must be 1 to {UINT32_MAX}, got 0"


def broken(message: betterproto2.Message) -> dict[str, str]:
    return {found.field: found.description for found in violations(message)}


def test_a_valid_request_has_no_violations() -> None:
    greatest = PurchaseRequest(
        user_id=UINT32_MAX,
        app_id=UINT32_MAX,
        report_id="r" * 128,
        report_name="😀" * 256,
        credits=UINT32_MAX,
        created_by=UINT32_MAX,
        idempotency_key="k" * 128,
    )
    least = PurchaseRequest(
        user_id=1, app_id=1, report_id="r", report_name="n", credits=1, created_by=1
    )
    assert violations(greatest) == violations(least) == ()


def test_every_broken_field_is_named_at_once_in_the_contracts_order() -> None:
    request = PurchaseRequest(report_id="r" * 129, idempotency_key="secret" * 50)
    assert violations(request) == (
        Violation(field="user_id", description=IDENTIFIER),
        Violation(field="app_id", description=IDENTIFIER),
        Violation(field="report_id", description="must be 1 to 128 characters, got 129"),
        Violation(field="report_name", description="must be 1 to 256 characters, got 0"),
        Violation(field="credits", description=IDENTIFIER),
        Violation(field="created_by", description=IDENTIFIER),
        Violation(field="idempotency_key", description="must be at most 128 characters, got 300"),
    )


def test_fixing_one_field_leaves_the_others_broken() -> None:
    request = CreditRequest(idempotency_key="k" * 129)
    fields = ["user_id", "app_id", "credits", "created_by"]
    for position, field in enumerate(fields):
        assert list(broken(request)) == [*fields[position:], "idempotency_key"]
        setattr(request, field, 1)
    request.idempotency_key = "k"
    assert broken(request) == {}


def test_an_optional_user_is_checked_only_if_it_is_set() -> None:
    assert broken(AppId(app_id=1)) == {}
    assert broken(AppId(app_id=1, user_id=0)) == {"user_id": IDENTIFIER}


def test_required_fields_must_be_set() -> None:
    transaction = CreditTransaction(
        id="t", user_id=1, app_id=1, credits=1, created_by=1, sequence=1
    )
    assert broken(transaction) == {"created_at": "must be set", "type": "must be set"}
    transaction.created_at = datetime(2024, 1, 1, tzinfo=UTC)
    transaction.type = TransactionType.ADD
    assert broken(transaction) == {}


def test_nested_messages_are_named_by_their_path() -> None:
    holdings = UserCredits(balances=[Balance(app_id=1), Balance(), Balance(app_id=3)])
    assert broken(holdings) == {"user_id": IDENTIFIER, "balances[1].app_id": IDENTIFIER}


@pytest.mark.parametrize("message_type", list(default_message_pool.url_to_type.values()))
def test_every_message_of_the_contract_can_be_checked(
    message_type: type[betterproto2.Message],
) -> None:
    constrained = constraints_of(message_type)
    assert set(constrained) <= vars(message_type()).keys()
    assert set(broken(message_type())) <= set(constrained)


def test_the_parsed_constraints_equal_those_of_the_contract() -> None:
    identifier = Constraint(minimum=1, maximum=UINT32_MAX)
    assert constraints_of(UserId) == {
        "user_id": identifier,
        "after_sequence": Constraint(maximum=2**63 - 1),
        "min_revision": Constraint(maximum=2**63 - 1),
    }
    assert constraints_of(PurchaseRequest) == {
        "user_id": identifier,
        "app_id": identifier,
        "report_id": Constraint(length_min=1, length_max=128, required=True, text=Text.IDENTIFIER),
        "report_name": Constraint(length_min=1, length_max=256, required=True, text=Text.NAME),
        "credits": identifier,
        "created_by": identifier,
        "idempotency_key": Constraint(length_max=128, text=Text.IDENTIFIER),
        "expected_revision": Constraint(maximum=2**63 - 1),
    }
    adjusted = constraints_of(AdjustBalanceRequest)
    assert adjusted["delta"] == Constraint(minimum=-UINT32_MAX, maximum=UINT32_MAX, required=True)
    assert adjusted["metadata"] == Constraint(
        items_max=16,
        keys=Constraint(length_min=1, length_max=64, text=Text.IDENTIFIER),
        values=Constraint(length_max=256),
    )
    assert constraints_of(Empty) == {}
    assert constraints_of(BatchWriteRequest) == {
        "operations": Constraint(items_min=1, items_max=1000)
    }


@pytest.mark.parametrize(("count", "valid"), [(0, False), (1, True), (1000, True), (1001, False)])
def test_the_number_of_items_is_checked(count: int, valid: bool) -> None:
    batch = BatchWriteRequest(operations=[Operation()] * count)
    expected = {} if valid else {"operations": f"must be 1 to 1000 items, got {count}"}
    assert broken(batch) == expected


def test_the_sizes_alone_are_checked_before_a_message_is_converted() -> None:
    batch = BatchWriteRequest(operations=[Operation(add_credits=CreditRequest(user_id=1))])
    fields = ["app_id", "credits", "created_by"]
    assert list(broken(batch)) == [f"operations[0].add_credits.{field}" for field in fields]
    google = message_class("credit.v1.BatchWriteRequest")
    assert size_violations(BatchWriteRequest, google.FromString(encode(batch))) == ()


@pytest.mark.parametrize(
    ("metadata", "description"),
    [
        ({}, None),
        ({"k": ""}, None),
        ({str(number): "v" * 256 for number in range(16)}, None),
        ({str(number): "v" for number in range(17)}, "must be at most 16 items, got 17"),
        ({"": "v"}, "keys must be 1 to 64 characters, got 0"),
        ({"k" * 65: "v"}, "keys must be 1 to 64 characters, got 65"),
        ({"k": "", " k": ""}, "keys must not begin or end with white space"),
        ({"k": "", "l": "v" * 257}, "values must be at most 256 characters, got 257"),
    ],
)
def test_the_keys_and_values_of_a_map_are_checked(
    metadata: dict[str, str], description: str | None
) -> None:
    request = VoidGrantRequest(user_id=1, app_id=1, created_by=1, grant_id="g", metadata=metadata)
    expected = {} if description is None else {"metadata": description}
    assert broken(request) == expected
    nested = BatchWriteRequest(operations=[Operation(void_grant=request)])
    assert broken(nested) == {
        f"operations[0].void_grant.{field}": text for field, text in expected.items()
    }


@pytest.mark.parametrize("delta", [-UINT32_MAX, -1, 1, UINT32_MAX])
def test_a_signed_integer_in_its_range_is_valid(delta: int) -> None:
    request = AdjustBalanceRequest(user_id=1, app_id=1, created_by=1, note="n", delta=delta)
    assert broken(request) == {}


@pytest.mark.parametrize(
    ("delta", "description"),
    [
        (0, "must not be 0"),
        (-UINT32_MAX - 1, f"must be -{UINT32_MAX} to {UINT32_MAX}, got {-UINT32_MAX - 1}"),
        (UINT32_MAX + 1, f"must be -{UINT32_MAX} to {UINT32_MAX}, got {UINT32_MAX + 1}"),
    ],
)
def test_a_signed_integer_outside_its_range_is_named(delta: int, description: str) -> None:
    request = AdjustBalanceRequest(user_id=1, app_id=1, created_by=1, note="n", delta=delta)
    assert broken(request) == {"delta": description}


def test_an_optional_field_and_a_member_of_a_oneof_are_checked_if_they_are_set() -> None:
    request = GrantCreditsRequest(user_id=1, app_id=1, created_by=1, credits=1)
    assert broken(request) == {}
    request.priority = 1001
    request.expires_after_seconds = 0
    assert broken(request) == {
        "priority": "must be at most 1000, got 1001",
        "expires_after_seconds": f"must be 1 to {UINT32_MAX}, got 0",
    }


def test_a_required_time_that_is_not_set_is_reported() -> None:
    request = SummarizeRequest(user_id=1)
    assert broken(request) == {"created_from": "must be set", "created_until": "must be set"}


INTEGERS = [-(2**63), -1, 0, 1, UINT32_MAX, UINT32_MAX + 1, 2**63 - 1, 2**63, 2**64 - 1]
TEXTS = ["", "a", "a b", " a", "a ", "a\n", "é", "e\u0301", "\u200b", "a" * 128, "é" * 257]


@pytest.mark.parametrize("request_type", WRITE_TYPES)
def test_a_request_breaks_the_same_constraints_alone_and_in_an_operation(
    request_type: type[AnyWrite],
) -> None:
    request = request_type()
    edges: dict[str, Sequence[object]] = {}
    for name, constraint in constraints_of(request_type).items():
        if constraint.minimum is not None or constraint.maximum is not None:
            edges[name] = INTEGERS if getattr(request, name) == 0 else [*INTEGERS, None]
        elif isinstance(getattr(request, name), str):
            edges[name] = TEXTS
        if name in edges:
            setattr(request, name, 1 if edges[name] is not TEXTS else "a")
    for name, values in edges.items():
        valid = getattr(request, name)
        for value in values:
            setattr(request, name, value)
            alone = {f"{kind_of(request)}.{field}": why for field, why in broken(request).items()}
            assert broken(operation_of(request)) == alone
        setattr(request, name, valid)


def test_the_parsed_constraints_are_read_only() -> None:
    with pytest.raises(TypeError):
        constraints_of(UserId)["user_id"] = Constraint()  # type: ignore[index] # wrong on purpose
