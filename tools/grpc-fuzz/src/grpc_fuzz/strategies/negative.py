"""Messages that break exactly one constraint, and know which."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from grpc_fuzz.constraint import NONE, Constraint
from grpc_fuzz.model import BrokenRule
from grpc_fuzz.schema import Schema
from grpc_fuzz.strategies.messages import (
    is_map,
    is_synthetic,
    messages,
    real_oneof,
    set_field,
)
from grpc_fuzz.strategies.wrong_values import wrong_values

# Constraints deeper than this are found by fuzzing the message that holds them.
_LEVELS = 3

# How the path to a message is walked: one field name per level, "[0]" where it is a list.
_Path = tuple[FieldDescriptor, ...]
# Puts a wrong value into the message that holds the field.
_Break = Callable[[Message, Any], None]  # Any: a field takes whatever its type says


@dataclass(frozen=True, kw_only=True, slots=True)
class Negative:
    """One constraint of a message type, and messages in which it alone is broken."""

    broken: BrokenRule
    strategy: SearchStrategy[Message]


def negatives(schema: Schema, descriptor: Descriptor) -> tuple[Negative, ...]:
    """All constraints of a message type that can be broken, those of the messages within it too."""
    valid = messages(schema, descriptor)
    return tuple(
        Negative(broken=broken, strategy=_apply(valid, path, change, wrong))
        for path, broken, change, wrong in _walk(schema, descriptor, ())
    )


def _apply(
    valid: SearchStrategy[Message], path: _Path, change: _Break, wrong: SearchStrategy[Any]
) -> SearchStrategy[Message]:
    """Any: a field takes whatever its type says."""

    def spoil(message: Message, value: Any) -> Message:
        holder = message
        for field in path:
            holder = _enter(holder, field)
        change(holder, value)
        return message

    return st.builds(spoil, valid, wrong)


def _enter(message: Message, field: FieldDescriptor) -> Message:
    if field.is_repeated:
        entries = getattr(message, field.name)
        return cast(Message, entries[0] if entries else entries.add())
    member: Message = getattr(message, field.name)
    member.SetInParent()
    return member


_Found = tuple[_Path, BrokenRule, _Break, SearchStrategy[Any]]


def _walk(schema: Schema, descriptor: Descriptor, path: _Path) -> Iterator[_Found]:
    prefix = "".join(f"{field.name}{'[0]' * field.is_repeated}." for field in path)
    for field in descriptor.fields:
        name = f"{prefix}{field.name}"
        for rule, change, wrong in _field_rules(field, schema.constraint(field)):
            yield path, BrokenRule(field=name, rule=rule), change, wrong
        if _can_enter(schema, field, path):
            yield from _walk(schema, cast(Descriptor, field.message_type), (*path, field))
    for oneof in descriptor.oneofs:
        if not is_synthetic(oneof) and schema.oneof_required(oneof):
            broken = BrokenRule(field=f"{prefix}{oneof.name}", rule="required")
            yield path, broken, _clearing(oneof), st.none()


def _can_enter(schema: Schema, field: FieldDescriptor, path: _Path) -> bool:
    """Whether the constraints within the field's message can be broken without breaking others.

    A message that is optional, or empty, must be one that keeps its constraints otherwise: `_enter`
    makes an empty one, which does so only where none of its fields is held to more than zero.
    """
    inner = field.message_type
    if inner is None or is_map(field) or len(path) >= _LEVELS or inner.file.package == _GOOGLE:
        return False
    if field in path or real_oneof(field) is not None:
        return False
    constraint = schema.constraint(field)
    return constraint.required or field.is_required or _zero_is_valid(schema, inner)


_GOOGLE = "google.protobuf"


def _zero_is_valid(schema: Schema, descriptor: Descriptor) -> bool:
    for field in descriptor.fields:
        constraint = schema.constraint(field)
        if constraint.required or field.is_required or (constraint.items_min or 0) > 0:
            return False
        plain = not field.has_presence and not field.is_repeated
        if plain and constraint.broken_by(field.default_value):
            return False
    return not any(schema.oneof_required(oneof) for oneof in descriptor.oneofs)


def _field_rules(
    field: FieldDescriptor, constraint: Constraint
) -> Iterator[tuple[str, _Break, SearchStrategy[Any]]]:
    if constraint.required:
        yield "required", _clear(field), st.none()
    if is_map(field):
        return
    if field.is_repeated:
        yield from _list_rules(field, constraint)
    elif field.message_type is None:
        for rule, wrong in wrong_values(field, constraint):
            yield rule, _set(field), wrong


def _list_rules(
    field: FieldDescriptor, constraint: Constraint
) -> Iterator[tuple[str, _Break, SearchStrategy[Any]]]:
    if (constraint.items_min or 0) > int(constraint.required):
        yield "items_min", _clear(field), st.none()
    if constraint.items_max is not None and constraint.items_max < _GROWTH_MAX:
        yield "items_max", _grow(field, constraint.items_max + 1), st.none()
    if constraint.unique:
        yield "unique", _double(field), st.none()
    if field.message_type is None:
        for rule, wrong in wrong_values(field, constraint.item or NONE):
            yield f"item.{rule}", _append(field), wrong


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
