"""Every write has what makes it safe, and its reasons are in the order of precedence."""

from collections.abc import Mapping

import pytest
from contract_check.constraint import constraint_of
from contract_check.rules.errors import documented
from contract_check.rules.scopes import scope_of
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from tests.contract.conftest import ROOT
from tests.contract.released_images import TODAY

PREFIX = "ERROR_REASON_"
LEDGER = "credit.v1.LedgerService"
# A precondition and the reason with which it rejects a request.
PRECONDITIONS = {
    "expected_revision": "REVISION_CHANGED",
    "min_available_after": "AVAILABLE_TOO_LOW",
}
# The fields of every write of `LedgerService`, with their numbers, constraints and presence.
COMMON = {
    name: TODAY.messages["credit.v1.GrantCreditsRequest"].fields_by_name[name]
    for name in (
        "app_id",
        "created_by",
        "idempotency_key",
        "note",
        "metadata",
        "validate_only",
        *PRECONDITIONS,
    )
}
# `CreditService` is older: its requests have no note, no metadata and no validation alone.
OLDER = {"CreditRequest", "PurchaseRequest"}
OPERATIONS = {
    field.message_type.name: field
    for field in TODAY.messages["credit.v1.Operation"].fields
    if field.message_type is not None
}
WRITES = {
    method.input_type.name: method
    for method in TODAY.methods.values()
    if not method.GetOptions().idempotency_level and method.input_type.name in OPERATIONS
}
# The order in which a write is checked: the whole of it, as each call has a part.
PRECEDENCE = [
    "INVALID_FIELD",
    "REVISION_NOT_REACHED",
    "PAGE_TOKEN_INVALID",
    "SUMMARY_TOO_LARGE",
    "RESUME_TOKEN_INVALID",
    "RESUME_TOKEN_EXPIRED",
    "ALERT_EVENTS_EXPIRED",
    "IDEMPOTENCY_KEY_REUSED",
    "CREDITS_LIMIT_EXCEEDED",
    "HOLD_NOT_FOUND",
    "GRANT_NOT_FOUND",
    "TRANSACTION_NOT_FOUND",
    "IDEMPOTENCY_KEY_NOT_FOUND",
    "USER_NOT_FOUND",
    "NOT_REVERSIBLE",
    "HOLD_ALREADY_CAPTURED",
    "HOLD_ALREADY_RELEASED",
    "HOLD_EXPIRED",
    "GRANT_EMPTY",
    "EXPIRES_TOO_EARLY",
    "HOLD_LIFE_EXCEEDED",
    "REVISION_CHANGED",
    "ALREADY_PURCHASED",
    "HOLD_EXCEEDED",
    "REVERSAL_EXCEEDS",
    "CAP_EXCEEDED",
    "INSUFFICIENT_CREDITS",
    "BALANCE_OVERFLOW",
    "WEBHOOK_URL_NOT_ALLOWED",
    "DEAD_LETTER_NOT_FOUND",
    "TOO_MANY_WEBHOOKS",
    "TOO_MANY_ALERTS",
    "TOO_MANY_APPS",
    "GRANTS_FULL",
    "HOLDS_FULL",
    "ACCOUNT_FULL",
    "USER_IDS_EXHAUSTED",
    "AVAILABLE_TOO_LOW",
    "BATCH_TOO_LARGE",
    "BATCH_ABORTED",
    "APP_TOTAL_OVERFLOW",
    "CLOCK_SKEWED",
    "OVERLOADED",
    "STORE_UNAVAILABLE",
    "DATA_UNREADABLE",
]

each_write = pytest.mark.parametrize("name", sorted(OPERATIONS))
each_call = pytest.mark.parametrize("call", TODAY.methods.values(), ids=lambda call: call.name)


def _fields(name: str) -> Mapping[str, FieldDescriptor]:
    return TODAY.messages[f"credit.v1.{name}"].fields_by_name


def _reasons(call: MethodDescriptor) -> list[str]:
    return [reason.removeprefix(PREFIX) for reason in documented(TODAY, call)]


def _writes_of_ledger() -> set[str]:
    """Return the requests of the calls of `LedgerService` that take a key."""
    return {
        method.input_type.name
        for method in TODAY.services[LEDGER].methods
        if "idempotency_key" in method.input_type.fields_by_name
    }


def test_every_write_is_an_operation_and_every_operation_is_a_write() -> None:
    assert set(OPERATIONS) == _writes_of_ledger() | OLDER == set(WRITES)


@each_write
def test_a_write_has_a_key_and_preconditions(name: str) -> None:
    fields = _fields(name)
    needed = {"user_id", "app_id", "created_by", "idempotency_key", *PRECONDITIONS}
    assert needed <= set(fields)
    assert all(fields[precondition].has_presence for precondition in PRECONDITIONS)
    assert set(PRECONDITIONS.values()) <= set(_reasons(WRITES[name]))


@pytest.mark.parametrize("name", sorted(_writes_of_ledger()))
def test_a_write_of_the_ledger_can_be_validated_and_takes_a_note_and_metadata(name: str) -> None:
    fields = _fields(name)
    for common, expected in COMMON.items():
        found = fields[common]
        assert _shape(found) == _shape(expected)
        if (name, common) != ("AdjustBalanceRequest", "note"):  # the only note that is required
            assert constraint_of(TODAY, found) == constraint_of(TODAY, expected)


def _shape(field: FieldDescriptor) -> tuple[int, int, bool, bool]:
    return field.number, field.type, field.is_repeated, field.has_presence


@pytest.mark.parametrize("name", sorted(_writes_of_ledger()))
def test_a_write_of_the_ledger_returns_a_receipt(name: str) -> None:
    receipt = WRITES[name].output_type.fields_by_name["receipt"]
    assert receipt.number == 1
    assert receipt.message_type is TODAY.messages["credit.v1.Receipt"]


def test_the_note_of_an_adjustment_is_required() -> None:
    note = _fields("AdjustBalanceRequest")["note"]
    assert constraint_of(TODAY, note).required


@each_call
def test_reasons_are_in_the_order_of_precedence(call: MethodDescriptor) -> None:
    reasons = _reasons(call)
    assert reasons == sorted(reasons, key=PRECEDENCE.index)


@pytest.mark.parametrize("name", ["BatchWrite", "Write"])
def test_a_call_with_operations_lists_the_reasons_of_all_operations(name: str) -> None:
    listed = set(_reasons(TODAY.methods[f"{LEDGER}.{name}"])) - {"BATCH_TOO_LARGE", "BATCH_ABORTED"}
    assert listed == {reason for call in WRITES.values() for reason in _reasons(call)}


@each_write
def test_the_comment_of_an_operation_names_its_call_and_scope(name: str) -> None:
    source = (ROOT / "contracts/credit/v1/ledger.proto").read_text()
    operation = OPERATIONS[name]
    declaration = f"    {name} {operation.name} = {operation.number};"
    comment = source[: source.index(declaration)].rpartition(";\n")[2].rpartition("{\n")[2]
    words = " ".join(comment.replace("//", "").split())
    assert f"{WRITES[name].name}` does." in words
    assert f"Requires the scope `{scope_of(TODAY, WRITES[name])}`." in words
