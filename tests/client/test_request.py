"""Requests are checked before they are sent, with the server's own rules, and have an id."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from credit_client import (
    CreditClient,
    CreditError,
    ErrorReason,
    InvalidField,
    methods,
    request_id,
)
from credit_client.request import build, current_request_id
from credit_client.testing import FakeCreditService, fake_credits
from credit_client.transport import Method
from credit_models import (
    AdjustBalanceRequest,
    AppId,
    CreditRequest,
    GrantCategory,
    GrantCreditsRequest,
    PurchaseRequest,
    SetSpendingCapRequest,
    SpendingCaps,
)
from credit_models.constraints import violations
from credit_models.image import SERVICES, method_path

# Any: the fields of a request have no common type.
VALID: dict[str, Any] = {
    "user_id": 7,
    "app_id": 1,
    "credits": 2**32 - 1,
    "created_by": 1,
    "idempotency_key": "k",
}


def test_a_valid_request_is_made() -> None:
    assert build(CreditRequest, VALID) == CreditRequest(**VALID)


def test_an_unset_optional_field_stays_unset() -> None:
    assert build(AppId, {"app_id": 1, "user_id": None}).user_id is None


def test_all_broken_fields_are_named_at_once_as_the_server_names_them() -> None:
    values: dict[str, Any] = {
        "user_id": 0,
        "app_id": 0,
        "report_id": "",
        "report_name": "n" * 257,
        "credits": 0,
        "created_by": 0,
        "idempotency_key": "k" * 129,
    }
    with pytest.raises(InvalidField) as caught:
        build(PurchaseRequest, values)
    assert caught.value.violations == violations(PurchaseRequest(**values))
    assert {one.field for one in caught.value.violations} == set(values)


@pytest.mark.parametrize("value", [-1, 2**32, 2**64])
def test_a_number_that_does_not_fit_the_wire_is_an_invalid_field_too(value: int) -> None:
    with pytest.raises(InvalidField, match=f"credits must be 1 to 4294967295, got {value}"):
        build(CreditRequest, VALID | {"credits": value})


@pytest.mark.parametrize("value", ["7", 7.0, True, b"7", None])
def test_a_value_of_another_type_is_not_converted(value: object) -> None:
    with pytest.raises(TypeError, match="credits must be int, not"):
        build(CreditRequest, VALID | {"credits": value})


def test_a_string_without_utf8_bytes_is_refused() -> None:
    with pytest.raises(InvalidField, match="idempotency_key must be valid Unicode text"):
        build(CreditRequest, VALID | {"idempotency_key": "\ud800"})


@pytest.mark.parametrize(
    ("key", "description"),
    [
        ("order-7\r", "must not begin or end with white space"),
        ("order-7\u00a0", "must not begin or end with white space"),
        ("order\u200b-7", "must not contain the character U+200B"),
        ("cafe\u0301", "must be in Unicode's normalization form C (NFC)"),
        ("order\udcff", "must be valid Unicode text"),
    ],
    ids=ascii,
)
def test_a_key_that_looks_like_another_one_is_refused_once_before_anything_is_sent(
    key: str, description: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        build(CreditRequest, VALID | {"idempotency_key": key})
    (found,) = caught.value.violations
    assert (found.field, found.description) == ("idempotency_key", description)


def test_without_a_name_each_call_has_its_own() -> None:
    assert current_request_id() != current_request_id()
    assert len(current_request_id()) == 32


async def test_a_name_belongs_to_the_block_and_its_task() -> None:
    async def other() -> str:
        with request_id("other"):
            await asyncio.sleep(0)
            return current_request_id()

    with request_id("outer"):
        with request_id("inner") as name:
            assert (current_request_id(), name) == ("inner", "inner")
        assert set(await asyncio.gather(other(), other())) == {"other"}
        assert current_request_id() == "outer"
    assert current_request_id() != "outer"


@pytest.mark.parametrize("name", ["", "a b", "a\r\nb", "ä", "x" * 129, "a/b"])
def test_what_the_server_would_not_take_over_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 128 letters"), request_id(name):
        pass


async def test_the_name_is_sent_and_comes_back_in_the_error() -> None:
    service = FakeCreditService()
    service.fail_next(ErrorReason.UNAUTHENTICATED, times=2)
    async with fake_credits(service) as client:
        with request_id("page-7"), pytest.raises(CreditError, match="page-7") as caught:
            await client.balance(app_id=1)
        assert caught.value.request_id == "page-7"
        with request_id("page-8"):
            messages = client.transactions(user_id=7)
        # The call was made inside of the block, though it is read here.
        with pytest.raises(CreditError) as later:
            await anext(messages)
    assert later.value.request_id == "page-8"


async def test_what_is_refused_before_it_is_sent_has_the_name_that_was_given_and_no_other() -> None:
    async with fake_credits(FakeCreditService()) as client:
        for refused in (
            client.balance(app_id=0),
            client.add(user_id=7, app_id=1, credits=1, created_by=1, idempotency_key=""),
            CreditClient("localhost:1").balance(app_id=1),
        ):
            with request_id("page-9"), pytest.raises(CreditError, match="page-9") as caught:
                await refused
            assert caught.value.request_id == "page-9"
        with pytest.raises(CreditError) as unnamed:
            await client.balance(app_id=0)
    assert unnamed.value.request_id is None


NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
GRANT: dict[str, Any] = {"user_id": 7, "app_id": 1, "credits": 5, "created_by": 1}


def test_every_kind_of_value_reaches_its_field() -> None:
    built = build(
        GrantCreditsRequest,
        {
            **GRANT,
            "expires_at": NOW,
            "priority": 0,
            "category": GrantCategory.PAID,
            "metadata": {"campaign": "spring"},
            "validate_only": True,
        },
    )
    assert (built.expires_at, built.priority, built.category) == (NOW, 0, GrantCategory.PAID)
    assert (built.metadata, built.validate_only) == ({"campaign": "spring"}, True)
    capped = build(
        SetSpendingCapRequest,
        {"user_id": 7, "app_id": 1, "created_by": 1, "caps": {"per_hour": None, "per_day": 9}},
    )
    assert capped.caps == SpendingCaps(per_day=9)
    assert build(AdjustBalanceRequest, ADJUSTMENT | {"delta": -5}).delta == -5


ADJUSTMENT: dict[str, Any] = {"user_id": 7, "app_id": 1, "created_by": 1, "note": "n", "delta": 1}


def test_a_duration_becomes_whole_seconds() -> None:
    built = build(GrantCreditsRequest, GRANT | {"expires_after": timedelta(days=30)})
    assert built.expires_after_seconds == 30 * 24 * 3600
    for duration in (timedelta(milliseconds=1500), timedelta(microseconds=1)):
        with pytest.raises(InvalidField, match="expires_after_seconds must be a whole number of"):
            build(GrantCreditsRequest, GRANT | {"expires_after": duration})
    with pytest.raises(InvalidField, match="expires_after_seconds must be 1 to"):
        build(GrantCreditsRequest, GRANT | {"expires_after": timedelta(seconds=-5)})


@pytest.mark.parametrize(
    ("moment", "description"),
    [
        (datetime(2026, 3, 1), "must have a time zone, as datetime.now(UTC) has"),  # noqa: DTZ001
        (
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
            "must be in the years 0001 to 9999",
        ),
    ],
)
def test_a_time_that_cannot_be_sent_is_an_invalid_field(moment: datetime, description: str) -> None:
    with pytest.raises(InvalidField) as caught:
        build(GrantCreditsRequest, GRANT | {"expires_at": moment})
    (found,) = caught.value.violations
    assert (found.field, found.description) == ("expires_at", description)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"expires_at": "2026-03-01"}, "expires_at must be datetime, not str"),
        ({"expires_after": 30}, "expires_after must be timedelta, not int"),
        ({"category": 1}, "category must be GrantCategory, not int"),
        ({"metadata": [("a", "b")]}, "metadata must be Mapping, not list"),
        ({"metadata": {"a": 1}}, "metadata must be a mapping of str to str"),
        ({"validate_only": 1}, "validate_only must be bool, not int"),
        ({"priority": True}, "priority must be int, not bool"),
        ({"colour": "red"}, "there is no argument colour"),
    ],
)
def test_the_wrong_type_of_a_new_argument_is_named(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        build(GrantCreditsRequest, GRANT | values)


def test_new_arguments_out_of_their_range_are_named_at_once() -> None:
    values = GRANT | {
        "priority": 1001,
        "min_available_after": 2**32,
        "expected_revision": -1,
        "metadata": {"": "x"},
        "note": "n\ud800",
    }
    with pytest.raises(InvalidField) as caught:
        build(GrantCreditsRequest, values)
    assert {one.field for one in caught.value.violations} == {
        "priority",
        "min_available_after",
        "expected_revision",
        "metadata",
        "note",
    }
    caps = {"user_id": 7, "app_id": 1, "created_by": 1, "caps": {"per_day": -1, "per_hour": 0}}
    with pytest.raises(InvalidField) as nested:
        build(SetSpendingCapRequest, caps)
    assert {one.field for one in nested.value.violations} == {"caps.per_day", "caps.per_hour"}


def test_the_sdk_has_every_call_of_the_contract_with_its_messages() -> None:
    ours = {
        each.path: (each.request_type.__name__, each.reply_type.__name__, each.writes)
        for each in vars(methods).values()
        if isinstance(each, Method)
    }
    no_side_effects = 1  # of google.protobuf.MethodOptions.IdempotencyLevel
    # It changes no balance, and its failure leaves no doubt about the write that needs the number.
    of_no_balance = {"/credit.v1.DirectoryService/ResolveUser"}
    assert ours == {
        method_path(method): (
            method.input_type.name,
            method.output_type.name,
            method.GetOptions().idempotency_level != no_side_effects
            and method_path(method) not in of_no_balance,
        )
        for service in SERVICES
        for method in service.methods
    }
