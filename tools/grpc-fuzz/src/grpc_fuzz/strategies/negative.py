"""Strategies for messages that break exactly one constraint, which is known."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from grpc_fuzz.constraint import NONE, Constraint
from grpc_fuzz.model import BrokenRule
from grpc_fuzz.schema import Schema, is_map
from grpc_fuzz.strategies.edges import unknown_numbers
from grpc_fuzz.strategies.messages import is_synthetic, map_fields, messages, set_field
from grpc_fuzz.strategies.negative_values import negative_values
from grpc_fuzz.strategies.scalars import scalars
from grpc_fuzz.strategies.well_known import out_of_range

# The limit on nested levels. Deeper constraints are broken in other messages that hold them.
_LEVELS = 3

# The path to a message: one field per level.
_Path = tuple[FieldDescriptor, ...]
# Puts an invalid value into the message that holds the field. Any: the type of the field decides.
_Break = Callable[[Message, Any], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Negative:
    """One constraint of a message type, and messages in which it alone is broken.

    Attributes:
        broken: The constraint.
        strategy: Messages that break it.
        each: Messages with each of the values that break it, if these are few.
    """

    broken: BrokenRule
    strategy: SearchStrategy[Message]
    each: tuple[SearchStrategy[Message], ...] = ()


def negatives(schema: Schema, descriptor: Descriptor) -> tuple[Negative, ...]:
    """Return all constraints of a message type, and of nested messages, that can be broken.

    The documented ranges of Timestamp and Duration are constraints, too: the rule "range".
    """
    return _found(schema, descriptor, _constraints)


def unknown_enums(schema: Schema, descriptor: Descriptor) -> tuple[Negative, ...]:
    """Return messages with an unknown number in one enum, at any level, if the contract allows it.

    A server may reject such a number or keep it. It must not fail on it.
    """
    return _found(schema, descriptor, _open_enums)


# All invalid values, or a strategy for them. Any: the type of the field decides.
_Invalid = SearchStrategy[Any] | tuple[Any, ...]
# The field or oneof, the rule, how to break it, and with which values.
_Rule = tuple[str, str, _Break, _Invalid]
# Yields the rules of the fields of one message type.
_Rules = Callable[[Schema, Descriptor], Iterator[_Rule]]


def _found(schema: Schema, descriptor: Descriptor, rules: _Rules) -> tuple[Negative, ...]:
    return tuple(_walk(schema, descriptor, descriptor, (), rules))


def _walk(
    schema: Schema, root: Descriptor, descriptor: Descriptor, path: _Path, rules: _Rules
) -> Iterator[Negative]:
    prefix = "".join(f"{field.name}{_index(field)}." for field in path)
    for name, rule, change, invalid in rules(schema, descriptor):
        values = invalid if isinstance(invalid, tuple) else ()
        some = st.sampled_from(invalid) if isinstance(invalid, tuple) else invalid
        yield Negative(
            broken=BrokenRule(field=f"{prefix}{name}", rule=rule),
            strategy=_broken_message(schema, root, path, change, some),
            each=tuple(
                _broken_message(schema, root, path, change, st.just(value)) for value in values
            ),
        )
    for field in descriptor.fields:
        inner = _inner(field, path)
        if inner is not None:
            yield from _walk(schema, root, inner, (*path, field), rules)


def _index(field: FieldDescriptor) -> str:
    """Return the index of the entry that is broken. In a map, its key is a random one."""
    return "[]" if is_map(field) else "[0]" * field.is_repeated


def _inner(field: FieldDescriptor, path: _Path) -> Descriptor | None:
    """Return the type of the messages in a field, or None if the walk ends there."""
    inner = (map_fields(field)[1] if is_map(field) else field).message_type
    if inner is None or len(path) >= _LEVELS or inner.file.package == _GOOGLE or field in path:
        return None
    return inner


_GOOGLE = "google.protobuf"


# Any: the type of the field decides.
@st.composite
def _broken_message(
    draw: DrawFn,
    schema: Schema,
    descriptor: Descriptor,
    path: _Path,
    change: _Break,
    invalid: SearchStrategy[Any],
) -> Message:
    message = draw(messages(schema, descriptor))
    holder = message
    for field in path:
        holder = _enter(draw, schema, holder, field)
    change(holder, draw(invalid))
    return message


def _enter(draw: DrawFn, schema: Schema, message: Message, field: FieldDescriptor) -> Message:
    """Return the message in a field, and put a valid one there if it is empty."""
    if is_map(field):
        entries = getattr(message, field.name)
        key, value = map_fields(field)
        if not entries:
            name = draw(scalars(key, schema.constraint(field).key or NONE))
            entries[name].CopyFrom(draw(messages(schema, cast(Descriptor, value.message_type))))
        return cast(Message, entries[min(entries)])
    inner = cast(Descriptor, field.message_type)
    if field.is_repeated:
        entries = getattr(message, field.name)
        if not entries:
            entries.add().CopyFrom(draw(messages(schema, inner)))
        return cast(Message, entries[0])
    member: Message = getattr(message, field.name)
    if not message.HasField(field.name):
        member.CopyFrom(draw(messages(schema, inner)))
        member.SetInParent()
    return member


def _constraints(schema: Schema, descriptor: Descriptor) -> Iterator[_Rule]:
    for field in descriptor.fields:
        for rule, change, invalid in _field_rules(field, schema.constraint(field)):
            yield field.name, rule, change, invalid
    for oneof in descriptor.oneofs:
        if not is_synthetic(oneof) and schema.oneof_required(oneof):
            yield oneof.name, "required", _clear(oneof), st.none()


def _open_enums(schema: Schema, descriptor: Descriptor) -> Iterator[_Rule]:
    for field in descriptor.fields:
        constraint = schema.constraint(field)
        if is_map(field):
            entry, change = map_fields(field)[1], _set_entry(field)
        else:
            entry, change = field, _append(field) if field.is_repeated else _set(field)
        held = (constraint.item or NONE) if field.is_repeated else constraint
        if entry.enum_type is None or held.defined_only or held.one_of is not None:
            continue
        numbers = unknown_numbers(entry.enum_type)
        if numbers:
            yield field.name, KNOWN_ENUM, change, numbers


KNOWN_ENUM, RANGE = "known_enum", "range"


def _field_rules(
    field: FieldDescriptor, constraint: Constraint
) -> Iterator[tuple[str, _Break, _Invalid]]:
    if constraint.required:
        yield "required", _clear(field), st.none()
    if is_map(field):
        if times := _times(map_fields(field)[1]):
            yield RANGE, _set_entry(field), times
        return
    if field.is_repeated:
        yield from _list_rules(field, constraint)
    elif field.message_type is None:
        for rule, invalid in negative_values(field, constraint):
            yield rule, _set(field), invalid
    elif times := _times(field):
        yield RANGE, _set(field), times


def _times(field: FieldDescriptor) -> tuple[Message, ...]:
    return () if field.message_type is None else out_of_range(field.message_type)


def _list_rules(
    field: FieldDescriptor, constraint: Constraint
) -> Iterator[tuple[str, _Break, _Invalid]]:
    if (constraint.items_min or 0) > int(constraint.required):
        yield "items_min", _clear(field), st.none()
    if constraint.items_max is not None and constraint.items_max < _GROWTH_MAX:
        yield "items_max", _grow(field, constraint.items_max + 1), st.none()
    if constraint.unique:
        yield "unique", _duplicate(field), st.none()
    if field.message_type is None:
        for rule, invalid in negative_values(field, constraint.item or NONE):
            yield f"item.{rule}", _append(field), invalid
    elif times := _times(field):
        yield RANGE, _append(field), times


# Limits on the size of messages bound longer lists.
_GROWTH_MAX = 10_000


def _set(field: FieldDescriptor) -> _Break:
    return lambda message, value: set_field(message, field, value)


def _clear(member: FieldDescriptor | OneofDescriptor) -> _Break:
    return lambda message, _: message.ClearField(member.name)


def _append(field: FieldDescriptor) -> _Break:
    def change(message: Message, value: Any) -> None:
        entries = getattr(message, field.name)
        if entries:
            # In place of an entry, so the number of entries stays valid.
            set_field(message, field, [value, *list(entries)[1:]])
        else:
            entries.append(value)

    return change


def _set_entry(field: FieldDescriptor) -> _Break:
    def change(message: Message, value: Any) -> None:
        entries = getattr(message, field.name)
        # In place of an entry, so the number of entries stays valid.
        key = min(entries) if entries else map_fields(field)[0].default_value
        set_field(message, field, {**entries, key: value})

    return change


def _grow(field: FieldDescriptor, size: int) -> _Break:
    def change(message: Message, _: Any) -> None:
        entries = getattr(message, field.name)
        if not entries:
            _add_zero(entries, field)
        while len(entries) < size:
            entries.extend([entries[0]])

    return change


def _duplicate(field: FieldDescriptor) -> _Break:
    def change(message: Message, _: Any) -> None:
        entries = getattr(message, field.name)
        if not entries:
            _add_zero(entries, field)
        entries.extend([entries[0]])

    return change


# Any: the stubs of protobuf have no name for a repeated field of unknown type.
def _add_zero(entries: Any, field: FieldDescriptor) -> None:
    if field.message_type is not None:
        entries.add()
    else:
        entries.append(_ZEROS.get(field.cpp_type, 0))


_ZEROS: dict[int, Any] = {
    FieldDescriptor.CPPTYPE_STRING: "",
    FieldDescriptor.CPPTYPE_BOOL: False,
}
