"""Strategies for messages that keep every constraint."""

from functools import lru_cache
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from grpc_fuzz.constraint import NONE, Constraint
from grpc_fuzz.model import Method
from grpc_fuzz.schema import Schema, is_map
from grpc_fuzz.strategies.scalars import scalars
from grpc_fuzz.strategies.well_known import well_known

DEPTH_MAX = 3
ENTRIES_MAX = 4
STREAM_MAX = 5


def requests(schema: Schema, method: Method) -> SearchStrategy[tuple[bytes, ...]]:
    """Return the requests of one call: one message, or up to five if the client streams."""
    one = messages(schema, method.input).map(serialize)
    if not method.client_streaming:
        return st.tuples(one)
    return st.lists(one, max_size=STREAM_MAX).map(tuple)


def serialize(message: Message) -> bytes:
    """Return the bytes of a message, which are the same for equal messages."""
    return message.SerializeToString(deterministic=True)


@lru_cache(maxsize=256)
def messages(
    schema: Schema, descriptor: Descriptor, depth: int = DEPTH_MAX
) -> SearchStrategy[Message]:
    """Return messages of a type that keep all constraints that can be evaluated.

    Args:
        schema: The contract.
        descriptor: The type.
        depth: The limit on nested levels of messages, where recursion ends.
    """
    special = well_known(descriptor)
    return special if special is not None else _messages(schema, descriptor, depth)


@st.composite
def _messages(draw: DrawFn, schema: Schema, descriptor: Descriptor, depth: int) -> Message:
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if real_oneof(field) is None:
            fill(draw, schema, message, field, depth)
    for oneof in descriptor.oneofs:
        if not is_synthetic(oneof):
            _fill_oneof(draw, schema, message, oneof, depth)
    return message


def real_oneof(field: FieldDescriptor) -> OneofDescriptor | None:
    """Return the oneof of a field, or None; the synthetic one of `optional` does not count."""
    oneof = field.containing_oneof
    return None if oneof is None or is_synthetic(oneof) else oneof


def is_synthetic(oneof: OneofDescriptor) -> bool:
    """Return whether a oneof represents `optional` of proto3, by its name in descriptor.proto."""
    return len(oneof.fields) == 1 and oneof.name == f"_{oneof.fields[0].name.lstrip('_')}"


def fill(
    draw: DrawFn, schema: Schema, message: Message, field: FieldDescriptor, depth: int
) -> None:
    """Draw a value for a field, or leave it unset if the contract allows that."""
    constraint = schema.constraint(field)
    if field.is_repeated:
        set_field(message, field, draw(_entries(schema, field, depth)))
    elif field.has_presence and not (constraint.required or field.is_required):
        if (depth > 0 or field.message_type is None) and draw(st.booleans()):
            set_field(message, field, draw(_values(schema, field, constraint, depth)))
    else:
        set_field(message, field, draw(_values(schema, field, constraint, depth)))


def _fill_oneof(
    draw: DrawFn, schema: Schema, message: Message, oneof: OneofDescriptor, depth: int
) -> None:
    members: list[FieldDescriptor | None] = [
        field for field in oneof.fields if depth > 0 or field.message_type is None
    ]
    if not schema.oneof_required(oneof):
        members.insert(0, None)
    field = draw(st.sampled_from(members or [*oneof.fields]))
    if field is not None:
        set_field(message, field, draw(_values(schema, field, schema.constraint(field), depth)))


# The same few strategies are used all the time, and making one takes longer than drawing from it.
# Any: the type of the field decides.
@lru_cache(maxsize=2048)
def _entries(schema: Schema, field: FieldDescriptor, depth: int) -> SearchStrategy[Any]:
    """Return the entries of a list or of a map."""
    constraint = schema.constraint(field)
    value = map_fields(field)[1] if is_map(field) else field
    low, high = entry_range(constraint, depth if value.message_type is not None else ENTRIES_MAX)
    values = _values(schema, value, constraint.item or NONE, depth)
    if is_map(field):
        keys = scalars(map_fields(field)[0], constraint.key or NONE)
        return st.dictionaries(keys, values, min_size=low, max_size=high)
    unique_by = _identity if constraint.unique else None
    return st.lists(values, min_size=low, max_size=high, unique_by=unique_by)


def map_fields(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    """Return the fields of the keys and values of a map."""
    entry = cast(Descriptor, field.message_type)
    return entry.fields_by_name["key"], entry.fields_by_name["value"]


def entry_range(constraint: Constraint, depth: int) -> tuple[int, int]:
    """Return the numbers of entries of a list or map: fewer on deeper levels, to bound trees."""
    low = max(constraint.items_min or 0, int(constraint.required))
    bound = low + min(ENTRIES_MAX, max(depth, 0))
    return low, bound if constraint.items_max is None else min(bound, constraint.items_max)


# Any: the type of the field decides.
@lru_cache(maxsize=2048)
def _values(
    schema: Schema, field: FieldDescriptor, constraint: Constraint, depth: int
) -> SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(schema, field.message_type, depth - 1)
    return scalars(field, constraint)


# Any: the type of the field decides.
def set_field(message: Message, field: FieldDescriptor, value: Any) -> None:
    """Set a field of any kind, also to an empty message or list."""
    if is_map(field):
        _set_map(message, field, value)
    elif field.is_repeated:
        message.ClearField(field.name)
        getattr(message, field.name).extend(value)
    elif field.message_type is not None:
        member = getattr(message, field.name)
        member.CopyFrom(value)
        member.SetInParent()
    else:
        setattr(message, field.name, value)


def _set_map(message: Message, field: FieldDescriptor, value: dict[Any, Any]) -> None:
    message.ClearField(field.name)
    entries = getattr(message, field.name)
    _, value_field = map_fields(field)
    for key, entry in value.items():
        if value_field.message_type is not None:
            entries[key].CopyFrom(entry)
        else:
            entries[key] = entry


def _identity(value: object) -> object:
    return serialize(value) if isinstance(value, Message) else value
