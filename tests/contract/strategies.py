"""Hypothesis strategies for messages of any image; values cluster at the edges of their types."""

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

_BITS = {
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
}
# The range of google.protobuf.Timestamp and of Python's datetime: the years 1 to 9999.
_SECONDS = (-62_135_596_800, 253_402_300_799)
_UNKNOWN_NUMBERS = st.integers(min_value=1000, max_value=2**31 - 1)


@cache  # a strategy that is built again for each example takes most of a test's time
def messages(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """Draw messages with any subset of their fields set."""
    if descriptor.full_name == "google.protobuf.Timestamp":
        return st.builds(
            GetMessageClass(descriptor),
            seconds=st.integers(*_SECONDS),
            # Whole microseconds, the resolution of Python's datetime.
            nanos=st.integers(0, 999_999).map(lambda micros: micros * 1000),
        )
    # A dictionary of optional keys omits a field as often as it sets it.
    return st.fixed_dictionaries(
        {}, optional={field.name: _values(field) for field in descriptor.fields}
    ).map(lambda fields: GetMessageClass(descriptor)(**fields))


# Any: a value has the type of its field.
def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if not field.is_repeated:
        return _value(field)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = (entry.fields_by_name[name] for name in ("key", "value"))
        return st.dictionaries(_value(key), _value(value), max_size=3)
    return st.lists(_value(field), max_size=3)


def _value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values]) | (
            _UNKNOWN_NUMBERS
        )
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=20)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return st.text(max_size=20)
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case _:
            return _integers(*_BITS[field.cpp_type])


@cache
def _integers(least: int, greatest: int) -> st.SearchStrategy[int]:
    edges = {sign * 2**bit + by for bit in range(64) for by in (-1, 0, 1) for sign in (-1, 1)}
    inside = sorted(edge for edge in edges if least <= edge <= greatest)
    return st.sampled_from(inside) | st.integers(least, greatest)
