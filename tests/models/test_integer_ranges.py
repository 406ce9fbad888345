"""Integers that do not fit are rejected with their fields' names; all other bytes are read."""

import re
from typing import Any

import pytest
from credit_models import (
    BatchWriteRequest,
    CreditRequest,
    CreditTransaction,
    PurchaseRequest,
    UserCredits,
    UserId,
)
from credit_models.codec import WireError, decode, encode
from credit_models.errors import Violation
from credit_models.image import POOL, message_class
from credit_models.integer_ranges import VARINTS_MAX
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.models.plain_wire import VARINTS, misfits, read_varint, tag, varint
from tests.models.test_codec_converters import DEPTH_MAX, truncate_nanoseconds

INT32, INT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
UINT32, UINT64, BOOL = (0, 2**32 - 1), (0, 2**64 - 1), (0, 1)

# Each type's name in the test schema, its range, and bits that do not fit, with their values.
TYPES: dict[str, tuple[tuple[int, int], dict[int, int]]] = {
    "int32": (
        INT32,
        {
            2**31: 2**31,
            2**32 - 1: 2**32 - 1,  # -1, truncated to 32 bits
            2**32 + 5: 2**32 + 5,
            2**64 - 2**31 - 1: -(2**31) - 1,
            2**63: -(2**63),
            2**64 + 5: 2**64 + 5,
        },
    ),
    "int64": (INT64, {2**64: 2**64, 2**64 + 5: 2**64 + 5, 2**70 - 1: 2**70 - 1}),
    "uint32": (
        UINT32,
        {
            2**32: 2**32,
            2**32 + 5: 2**32 + 5,
            2**64 - 5: 2**64 - 5,  # -5 as an int64
            2**64 + 5: 2**64 + 5,
        },
    ),
    "uint64": (UINT64, {2**64: 2**64, 2**64 + 5: 2**64 + 5, 2**70 - 1: 2**70 - 1}),
    "sint32": (
        INT32,
        {2**32: 2**31, 2**32 + 1: -(2**31) - 1, 2**64 - 1: -(2**63), 2**64 + 2: 2**63 + 1},
    ),
    "sint64": (INT64, {2**64: 2**63, 2**64 + 1: -(2**63) - 1}),
    "bool": (BOOL, {2: 2, 128: 128, 2**32: 2**32, 2**64 - 1: 2**64 - 1, 2**64 + 1: 2**64 + 1}),
    "color": (INT32, {2**31: 2**31, 2**32 + 1: 2**32 + 1, 2**64 - 2**31 - 1: -(2**31) - 1}),
}
MISFITS = [
    pytest.param(name, bits, value, bounds, id=f"{name} of {bits:#x}")
    for name, (bounds, found) in TYPES.items()
    for bits, value in found.items()
]


def single(name: str) -> str:
    return f"an_{name}" if name in {"int32", "int64"} else f"a_{name}"


def number_of(everything: Any, message: str, field: str) -> int:
    number: int = everything.google(message).DESCRIPTOR.fields_by_name[field].number
    return number


def nested(number: int, content: bytes) -> bytes:
    return tag(number, 2) + varint(len(content)) + content


def rejected(everything: Any, name: str, data: bytes) -> tuple[Violation, ...]:
    # Google's parser accepts the bytes; that is why the check exists.
    everything.google(name).FromString(data)
    with pytest.raises(WireError) as caught:
        everything.decode(name, data)
    assert str(caught.value).startswith(f"everything.v1.{name}: ")
    return caught.value.violations


@pytest.mark.parametrize(("name", "bits", "value", "bounds"), MISFITS)
class TestEveryPositionOfAnInteger:
    def _description(self, value: int, bounds: tuple[int, int]) -> str:
        return f"must be {bounds[0]} to {bounds[1]}, got {value}"

    def test_an_integer_that_does_not_fit_is_rejected_with_its_fields_name(
        self, everything: Any, name: str, bits: int, value: int, bounds: tuple[int, int]
    ) -> None:
        field = single(name)
        data = tag(number_of(everything, "Singles", field), 0) + varint(bits)
        description = self._description(value, bounds)
        assert rejected(everything, "Singles", data) == (
            Violation(field=field, description=description),
        )

    def test_in_packed_and_unpacked_lists_it_is_reported_with_its_position(
        self, everything: Any, name: str, bits: int, value: int, bounds: tuple[int, int]
    ) -> None:
        number = number_of(everything, "Lists", f"{name}s")
        description = self._description(value, bounds)
        apart = (tag(number, 0) + varint(1)) * 2 + tag(number, 0) + varint(bits)
        expected = Violation(field=f"{name}s[2]", description=description)
        assert rejected(everything, "Lists", apart) == (expected,)
        packed = nested(number, varint(1) * 2 + varint(bits) + varint(1))
        assert rejected(everything, "Lists", packed) == (expected,)

    def test_in_a_nested_message_it_is_reported_with_its_path(
        self, everything: Any, name: str, bits: int, value: int, bounds: tuple[int, int]
    ) -> None:
        field = single(name)
        inner = tag(number_of(everything, "Singles", field), 0) + varint(bits)
        outer = number_of(everything, "Lists", "messages")
        data = nested(outer, b"") + nested(outer, inner)
        (found,) = rejected(everything, "Lists", data)
        assert found.field == f"messages[1].{field}"

    def test_it_is_rejected_even_if_a_later_record_replaces_it(
        self, everything: Any, name: str, bits: int, value: int, bounds: tuple[int, int]
    ) -> None:
        head = tag(number_of(everything, "Singles", single(name)), 0)
        data = head + varint(bits) + head + varint(1)
        assert [found.field for found in rejected(everything, "Singles", data)] == [single(name)]


@pytest.mark.parametrize("name", list(TYPES))
@pytest.mark.parametrize("length", [1, 2, 6, 10])
def test_the_least_and_greatest_values_fit_at_every_length_of_their_encoding(
    everything: Any, name: str, length: int
) -> None:
    field = everything.google("Singles").DESCRIPTOR.fields_by_name[single(name)]
    head = tag(field.number, 0)
    for value in (*TYPES[name][0], 1):
        written = everything.google("Singles")(**{field.name: value}).SerializeToString()
        bits = read_varint(written[len(head) :] or b"\0")[0]
        padded = head + varint(bits, length=length)
        assert int(getattr(everything.decode("Singles", padded), field.name)) == value


WIDE = varint(2**32 + 5)


@pytest.mark.parametrize(
    ("name", "data", "fields"),
    [
        ("WellKnown", nested(8, b"\x08" + WIDE), ["uint32_value.value"]),
        ("WellKnown", nested(7, b"\x08" + varint(2**32 - 1)), ["int32_value.value"]),
        ("WellKnown", nested(9, b"\x08\x02"), ["bool_value.value"]),
        ("WellKnown", nested(6, b"\x08" + varint(2**64)), ["uint64_value.value"]),
        ("WellKnown", nested(1, b"\x10" + WIDE), ["timestamp.nanos"]),
        ("WellKnown", nested(1, b"\x08" + varint(2**64)), ["timestamp.seconds"]),
        ("WellKnown", nested(2, b"\x10" + WIDE), ["duration.nanos"]),
        (
            "WellKnown",
            nested(12, nested(1, nested(1, b"k") + nested(2, b"\x08" + WIDE))),
            ["struct.fields[0].value.null_value"],
        ),
        ("Maps", nested(3, b"\x08" + WIDE + b"\x10\x01"), ["by_uint32[0].key"]),
        ("Maps", nested(3, b"\x10" + WIDE + b"\x08\x01"), ["by_uint32[0].value"]),
        ("Maps", nested(13, b"\x08\x01") + nested(13, b"\x08\x02"), ["by_bool[1].key"]),
        ("Maps", nested(8, b"\x09" + bytes(8) + b"\x10\x07"), ["by_fixed64[0].value"]),
        ("Maps", nested(12, nested(2, b"\x28" + WIDE)), ["by_string[0].value.a_uint32"]),
        ("Choice", b"\x08" + WIDE, ["a_uint32"]),
        ("Choice", b"\x08" + WIDE + nested(3, b"x"), ["a_uint32"]),
        ("Choice", nested(6, b"\x08" + WIDE), ["a_single.only"]),
        ("Optionals", b"\x68\x02\x18" + WIDE, ["a_bool", "an_int32"]),
        ("Unpacked", nested(1, b"\x01" + WIDE), ["numbers[1]"]),
        ("Tree", nested(1, nested(2, nested(4, b"\x08" + WIDE))), ["left.branches[0].leaf.color"]),
        # In the second part of a split message, and after an unknown group.
        ("Choice", nested(6, b"") + nested(6, b"\x08" + WIDE), ["a_single.only"]),
        ("Single", b"\xa3\x06\x08\x02\xa4\x06\x08" + WIDE, ["only"]),
        # A tag that is longer than necessary.
        ("Single", b"\x88\x80\x00" + WIDE, ["only"]),
    ],
)
def test_integers_are_checked_everywhere(
    everything: Any, name: str, data: bytes, fields: list[str]
) -> None:
    assert [found.field for found in rejected(everything, name, data)] == fields


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xb8\x06" + varint(2**69), id="an unknown field"),
        pytest.param(b"\xa3\x06\x08" + WIDE + b"\xa4\x06", id="in an unknown group"),
        pytest.param(nested(1, WIDE), id="a string of bytes instead of a number"),
        pytest.param(b"\x0b\x08" + WIDE + b"\x0c", id="a group instead of a number"),
    ],
)
def test_records_of_unknown_fields_are_not_checked(everything: Any, data: bytes) -> None:
    assert everything.decode("Single", data + b"\x08\x07").only == 7


# Bytes from observed faults that a ledger must not read as credits or as a user.
@pytest.mark.parametrize(
    ("message_type", "data", "field", "got"),
    [
        (CreditRequest, "0807 1001 188580808010 2009", "credits", 2**32 + 5),
        (CreditRequest, "0807 1001 18fbffffffffffffffff01 2009", "credits", 2**64 - 5),
        (CreditRequest, "08d48f808010 1001 1805 2009", "user_id", 2**32 + 2004),
        (CreditRequest, "0807 1081808080808080808002 1805 2009", "app_id", 2**64 + 1),
        (PurchaseRequest, "0807 1001 1a0172 220152 288180808010 3009", "credits", 2**32 + 1),
        (UserId, "08d48f808010", "user_id", 2**32 + 2004),
        (UserId, "0807 1080808080808080808002", "after_sequence", 2**64),
        (UserCredits, "1007 1a0408011002 1a0808011085808080 10", "balances[1].balance", 2**32 + 5),
        (CreditTransaction, "388280808010", "type", 2**32 + 2),
        (CreditTransaction, "2a0610ffffffff1f", "created_at.nanos", 2**33 - 1),
    ],
)
def test_numbers_that_do_not_fit_are_never_read_as_credits_or_users(
    message_type: Any, data: str, field: str, got: int
) -> None:
    with pytest.raises(WireError) as caught:
        decode(message_type, bytes.fromhex(data))
    (found,) = caught.value.violations
    assert (found.field, found.description.rpartition(", ")[2]) == (field, f"got {got}")
    assert str(caught.value) == f"credit.v1.{message_type.__name__}: {field} {found.description}."


def test_each_field_that_does_not_fit_is_named_once_and_at_most_sixteen_are_named() -> None:
    request = b"".join(bytes([number << 3]) + WIDE for number in (4, 1, 4, 2))
    with pytest.raises(WireError) as caught:
        decode(CreditRequest, request)
    assert [one.field for one in caught.value.violations] == ["created_by", "user_id", "app_id"]
    with pytest.raises(WireError) as many:
        decode(UserCredits, nested(3, b"\x08" + WIDE) * 100)
    assert len(many.value.violations) == 16


def test_malformed_bytes_are_rejected_without_a_field_name() -> None:
    with pytest.raises(WireError, match="not a valid") as caught:
        decode(CreditRequest, b"\x18" + WIDE + b"\x08")
    assert caught.value.violations == ()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x12\x85" + b"\x80" * 8 + b"\x02" + b"\x08" + WIDE, id="a length"),
        pytest.param(b"\x88\x80\x80\x80\x10\x01", id="a tag"),
    ],
)
def test_a_length_or_tag_that_parsers_may_truncate_is_rejected(
    everything: Any, data: bytes
) -> None:
    with pytest.raises(WireError):
        everything.decode("Single", data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x08\x01" * VARINTS_MAX, id="numbers"),
        pytest.param(nested(5, b"") * VARINTS_MAX, id="strings"),
        pytest.param(b"\xa3\x06\xa4\x06" * VARINTS_MAX + b"\x08\x01\x08\x01", id="groups"),
    ],
)
def test_the_cost_of_a_scan_is_bounded(data: bytes) -> None:
    with pytest.raises(WireError, match="more than 65000 varints"):
        decode(CreditRequest, data)


KINDS = [field.name for field in POOL.FindMessageTypeByName("credit.v1.Operation").fields]


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_batch_is_read_whatever_the_order_of_its_metadata(kind: str) -> None:
    # Any: Google's classes exist only at run time.
    google: Any = message_class("credit.v1.BatchWriteRequest")()
    filled = getattr(google.operations.add(), kind)
    for field in filled.DESCRIPTOR.fields:
        _set_greatest(filled, field)
    google.operations.extend([google.operations[0]] * 999)
    data = google.SerializeToString(deterministic=True)
    read = decode(BatchWriteRequest, data)
    assert len(read.operations) == 1000
    assert message_class("credit.v1.BatchWriteRequest").FromString(encode(read)) == google


# Any: Google's classes exist only at run time.
def _set_greatest(message: Any, field: FieldDescriptor) -> None:
    """Set a field of a request, with as many varints as the contract allows."""
    if field.name == "metadata":
        message.metadata.update({f"key {number}": "value" for number in range(16)})
    elif field.message_type is None:
        setattr(message, field.name, "x" if field.cpp_type == field.CPPTYPE_STRING else 1)
    elif field.message_type.name == "Timestamp":
        getattr(message, field.name).FromMilliseconds(1)
    else:
        for nested in field.message_type.fields:
            _set_greatest(getattr(message, field.name), nested)


def test_a_message_in_protobufs_own_form_may_have_any_length(everything: Any) -> None:
    lists = everything.ours("Lists")(uint32s=[2**32 - 1] * (VARINTS_MAX + 1))
    assert everything.decode("Lists", everything.encode(lists)) == lists


FIXED = {
    FieldDescriptor.TYPE_FIXED32: 5,
    FieldDescriptor.TYPE_SFIXED32: 5,
    FieldDescriptor.TYPE_FLOAT: 5,
    FieldDescriptor.TYPE_FIXED64: 1,
    FieldDescriptor.TYPE_SFIXED64: 1,
    FieldDescriptor.TYPE_DOUBLE: 1,
}
EDGES = [
    side + by for bit in (7, 31, 32, 63, 64, 70) for side in (2**bit,) for by in (-2, -1, 0, 5)
]
BITS = (
    st.sampled_from([0, 1, 2, *(edge for edge in EDGES if edge < 2**70)])
    | st.integers(0, 2**70 - 1)
    | st.integers(1, 2**32).map(lambda number: 2**64 - number)
)
ANY_VARINT = st.builds(varint, BITS, length=st.sampled_from([1, 1, 1, 5, 10]))
UNKNOWN = st.one_of(
    ANY_VARINT.map(lambda content: tag(1000, 0) + content),
    st.binary(max_size=4).map(lambda content: nested(1000, content)),
    ANY_VARINT.map(lambda content: tag(1001, 3) + tag(3, 0) + content + tag(1001, 4)),
)


def wire_messages(descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[bytes]:
    """Draw records of a message's fields, in any order and any number of each."""
    fields = [
        field for field in descriptor.fields if field.message_type is None or depth < DEPTH_MAX
    ]
    record = UNKNOWN
    if fields:
        record |= st.sampled_from(fields).flatmap(lambda field: wire_records(field, depth))
    return st.lists(record, max_size=4).map(b"".join)


def wire_records(field: FieldDescriptor, depth: int) -> st.SearchStrategy[bytes]:
    number = field.number
    if field.type in VARINTS:
        alone = ANY_VARINT.map(lambda content: tag(number, 0) + content)
        packed = st.lists(ANY_VARINT, max_size=3).map(b"".join)
        return alone | packed.map(lambda content: nested(number, content))
    if field.type in FIXED:
        wire_type = FIXED[field.type]
        size = 4 if wire_type == 5 else 8
        return st.binary(min_size=size, max_size=size).map(
            lambda content: tag(number, wire_type) + content
        )
    if field.message_type is not None:
        return wire_messages(field.message_type, depth + 1).map(
            lambda content: nested(number, content)
        )
    return st.text(max_size=3).map(lambda text: nested(number, text.encode()))


@pytest.mark.parametrize(
    "name", ["Singles", "Optionals", "Lists", "Unpacked", "Maps", "Choice", "Tree", "WellKnown"]
)
def test_integers_that_do_not_fit_are_rejected_and_all_else_agrees_with_google(
    everything: Any, name: str
) -> None:
    google = everything.google(name)

    @hypothesis_settings(max_examples=200, deadline=None)
    @given(wire_messages(google.DESCRIPTOR))
    def verdicts_agree(data: bytes) -> None:
        try:
            understood = google.FromString(data)
        except DecodeError:
            with pytest.raises(WireError):
                everything.decode(name, data)
            return
        expected = misfits(google.DESCRIPTOR, data)
        try:
            message = everything.decode(name, data)
        except WireError as error:
            if not expected:
                assert "Timestamp" in str(error) or "Duration" in str(error)  # noqa: PT017
                return
            found = {re.sub(r"\[\d+\]", "", violation.field) for violation in error.violations}
            assert found == expected
            return
        assert not expected
        understood.DiscardUnknownFields()
        truncate_nanoseconds(understood)
        again = google.FromString(everything.encode(message))
        assert again.SerializeToString(deterministic=True) == understood.SerializeToString(
            deterministic=True
        )

    verdicts_agree()
