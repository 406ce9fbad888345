"""Messages that break exactly one constraint, and know which."""

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
from grpc_fuzz.strategies.messages import is_synthetic, map_fields, messages, set_field
from grpc_fuzz.strategies.scalars import scalars
from grpc_fuzz.strategies.unnamed import unknown_numbers
from grpc_fuzz.strategies.well_known import out_of_range
from grpc_fuzz.strategies.wrong_values import wrong_values

# Constraints deeper than this are found by fuzzing the message that holds them.
_LEVELS = 3

# How the path to a message is walked: one field per level.
_Path = tuple[FieldDescriptor, ...]
# Puts a wrong value into the message that holds the field.
_Break = Callable[[Message, Any], None]  # Any: a field takes whatever its type says


@dataclass(frozen=True, kw_only=True, slots=True)
class Negative:
    """One constraint of a message type, and messages in which it alone is broken.

    Attributes:
        broken: The constraint.
        strategy: Messages that break it.
        each: Where few values break it, messages with each of them.
    """

    broken: BrokenRule
    strategy: SearchStrategy[Message]
    each: tuple[SearchStrategy[Message], ...] = ()


def negatives(schema: Schema, descriptor: Descriptor) -> tuple[Negative, ...]:
    """All constraints of a message type that can be broken, those of the messages within it too.

    The documented ranges of Timestamp and Duration are constraints, too: the rule "range".
    """
    return _found(schema, descriptor, _constraints)


def unknown_enums(schema: Schema, descriptor: Descriptor) -> tuple[Negative, ...]:
    """Messages with an unknown number in one enum, at any level, where the contract allows it.

    A server may refuse such a number, and may keep it. It must not fail on it.
    """
    return _found(schema, descriptor, _open_enums)


# All values that are wrong, or a strategy for them. Any: a field takes whatever its type says.
_Wrong = SearchStrategy[Any] | tuple[Any, ...]
# The field or oneof, what is wrong with it, and how to make it so.
_Rule = tuple[str, str, _Break, _Wrong]
# Yields what can be wrong with the fields of one message type.
_Rules = Callable[[Schema, Descriptor], Iterator[_Rule]]


def _found(schema: Schema, descriptor: Descriptor, rules: _Rules) -> tuple[Negative, ...]:
    return tuple(_walk(schema, descriptor, descriptor, (), rules))


def _walk(
    schema: Schema, root: Descriptor, descriptor: Descriptor, path: _Path, rules: _Rules
) -> Iterator[Negative]:
    prefix = "".join(f"{field.name}{_index(field)}." for field in path)
    for name, rule, change, wrong in rules(schema, descriptor):
        values = wrong if isinstance(wrong, tuple) else ()
        some = st.sampled_from(wrong) if isinstance(wrong, tuple) else wrong
        yield Negative(
            broken=BrokenRule(field=f"{prefix}{name}", rule=rule),
            strategy=_spoiled(schema, root, path, change, some),
            each=tuple(_spoiled(schema, root, path, change, st.just(value)) for value in values),
        )
    for field in descriptor.fields:
        inner = _inner(field, path)
        if inner is not None:
            yield from _walk(schema, root, inner, (*path, field), rules)


def _index(field: FieldDescriptor) -> str:
    """Which entry is spoiled; that of a map has a random key."""
    return "[]" if is_map(field) else "[0]" * field.is_repeated


def _inner(field: FieldDescriptor, path: _Path) -> Descriptor | None:
    """The type of the messages in a field, where the walk goes on in them."""
    inner = (map_fields(field)[1] if is_map(field) else field).message_type
    if inner is None or len(path) >= _LEVELS or inner.file.package == _GOOGLE or field in path:
        return None
    return inner


_GOOGLE = "google.protobuf"


@st.composite
def _spoiled(
    draw: DrawFn,
    schema: Schema,
    descriptor: Descriptor,
    path: _Path,
    change: _Break,
    wrong: SearchStrategy[Any],
) -> Message:
    """Any: a field takes whatever its type says."""
    message = draw(messages(schema, descriptor))
    holder = message
    for field in path:
        holder = _enter(draw, schema, holder, field)
    change(holder, draw(wrong))
    return message


def _enter(draw: DrawFn, schema: Schema, message: Message, field: FieldDescriptor) -> Message:
    """The message in a field; where there is none, a valid one is put there."""
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
        for rule, change, wrong in _field_rules(field, schema.constraint(field)):
            yield field.name, rule, change, wrong
    for oneof in descriptor.oneofs:
        if not is_synthetic(oneof) and schema.oneof_required(oneof):
            yield oneof.name, "required", _clearing(oneof), st.none()


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
) -> Iterator[tuple[str, _Break, _Wrong]]:
    if constraint.required:
        yield "required", _clear(field), st.none()
    if is_map(field):
        if times := _times(map_fields(field)[1]):
            yield RANGE, _set_entry(field), times
        return
    if field.is_repeated:
        yield from _list_rules(field, constraint)
    elif field.message_type is None:
        for rule, wrong in wrong_values(field, constraint):
            yield rule, _set(field), wrong
    elif times := _times(field):
        yield RANGE, _set(field), times


def _times(field: FieldDescriptor) -> tuple[Message, ...]:
    return () if field.message_type is None else out_of_range(field.message_type)


def _list_rules(
    field: FieldDescriptor, constraint: Constraint
) -> Iterator[tuple[str, _Break, _Wrong]]:
    if (constraint.items_min or 0) > int(constraint.required):
        yield "items_min", _clear(field), st.none()
    if constraint.items_max is not None and constraint.items_max < _GROWTH_MAX:
        yield "items_max", _grow(field, constraint.items_max + 1), st.none()
    if constraint.unique:
        yield "unique", _double(field), st.none()
    if field.message_type is None:
        for rule, wrong in wrong_values(field, constraint.item or NONE):
            yield f"item.{rule}", _append(field), wrong
    elif times := _times(field):
        yield RANGE, _append(field), times


# Longer lists are the business of the limits on messages.
_GROWTH_MAX = 10_000


def _set(field: FieldDescriptor) -> _Break:
    return lambda message, value: set_field(message, field, value)


def _clear(field: FieldDescriptor) -> _Break:
    return lambda message, _: message.ClearField(field.name)


def _clearing(oneof: OneofDescriptor) -> _Break:
    return lambda message, _: message.ClearField(oneof.name)


def _append(field: FieldDescriptor) -> _Break:
    def change(message: Message, value: Any) -> None:
        entries = getattr(message, field.name)
        if entries:
            # In place of an entry, so that the number of entries stays right.
            set_field(message, field, [value, *list(entries)[1:]])
        else:
            entries.append(value)

    return change


def _set_entry(field: FieldDescriptor) -> _Break:
    def change(message: Message, value: Any) -> None:
        entries = getattr(message, field.name)
        # In place of an entry, so that the number of entries stays right.
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


def _double(field: FieldDescriptor) -> _Break:
    def change(message: Message, _: Any) -> None:
        entries = getattr(message, field.name)
        if not entries:
            _add_zero(entries, field)
        entries.extend([entries[0]])

    return change


def _add_zero(entries: Any, field: FieldDescriptor) -> None:
    """Any: the stubs of protobuf have no name for a repeated field of unknown type."""
    if field.message_type is not None:
        entries.add()
    else:
        entries.append(_ZEROS.get(field.cpp_type, 0))


_ZEROS: dict[int, Any] = {
    FieldDescriptor.CPPTYPE_STRING: "",
    FieldDescriptor.CPPTYPE_BOOL: False,
}
