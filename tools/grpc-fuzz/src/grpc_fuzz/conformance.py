"""Whether a message is one that the contract allows."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from grpc_fuzz.constraint import NONE, Constraint, Scalar
from grpc_fuzz.model import BrokenRule
from grpc_fuzz.schema import Schema, descriptor_of, is_map
from grpc_fuzz.strategies.messages import is_synthetic, map_fields
from grpc_fuzz.strategies.unnamed import (
    DURATION_SECONDS,
    NANOS_MAX,
    TIMES_OUT_OF_RANGE,
    TIMESTAMP_SECONDS,
    unknown_numbers,
)


def violations(
    schema: Schema, message: Message, prefix: str = "", *, echoes: bool = False
) -> Iterator[BrokenRule]:
    """All rules that a message breaks.

    Args:
        schema: The contract.
        message: Of one of the contract's types.
        prefix: Where the message stands within a larger one, with its final dot.
        echoes: Whether to leave out enum values and times that a request of this run may have
            brought into the server; a server that stores them answers them at any later time.

    Yields:
        Constraints that are broken, enum values without a name ("known_enum"), fields that the
        contract does not know ("known_field"), and times out of range ("range").
    """
    descriptor = descriptor_of(message)
    if not (echoes and _is_sent_time(schema, message)):
        yield from _of_well_known(message, prefix)
    if len(UnknownFieldSet(message)):
        yield BrokenRule(field=prefix.rstrip(".") or descriptor.name, rule=KNOWN_FIELD)
    for field in descriptor.fields:
        for rule, path in _of_field(schema, message, field, f"{prefix}{field.name}", echoes):
            yield BrokenRule(field=path, rule=rule)
    for oneof in descriptor.oneofs:
        missing = schema.oneof_required(oneof) and message.WhichOneof(oneof.name) is None
        if missing and not is_synthetic(oneof):
            yield BrokenRule(field=f"{prefix}{oneof.name}", rule="required")


_Broken = Iterator[tuple[str, str]]
KNOWN_FIELD = "known_field"


def _is_sent_time(schema: Schema, message: Message) -> bool:
    name = message.DESCRIPTOR.full_name
    if name not in TIMES_OUT_OF_RANGE or name not in schema.request_types:
        return False
    fields = {field.name: value for field, value in message.ListFields()}
    return (fields.get("seconds", 0), fields.get("nanos", 0)) in TIMES_OUT_OF_RANGE[name]


def _of_field(
    schema: Schema, message: Message, field: FieldDescriptor, path: str, echoes: bool
) -> _Broken:
    constraint = schema.constraint(field)
    value = getattr(message, field.name)
    if field.is_repeated:
        if constraint.required and not value:
            yield "required", path
        yield from _of_entries(schema, field, constraint, value, path, echoes)
        return
    if field.has_presence:
        if message.HasField(field.name):
            yield from _of_value(schema, field, constraint, value, path, echoes)
        elif constraint.required:
            yield "required", path
        return
    if constraint.required and value == field.default_value:
        yield "required", path
    yield from _of_value(schema, field, constraint, value, path, echoes)


# Any: a list of whatever the field's type says, or a map.
def _of_entries(
    schema: Schema,
    field: FieldDescriptor,
    constraint: Constraint,
    entries: Any,
    path: str,
    echoes: bool,
) -> _Broken:
    if constraint.items_min is not None and len(entries) < constraint.items_min:
        yield "items_min", path
    if constraint.items_max is not None and len(entries) > constraint.items_max:
        yield "items_max", path
    if is_map(field):
        key, value = map_fields(field)
        for name in entries:
            yield from _of_value(schema, key, constraint.key or NONE, name, f"{path}[]", echoes)
            yield from _of_value(
                schema, value, constraint.item or NONE, entries[name], f"{path}[]", echoes
            )
        return
    if constraint.unique and any(entry in entries[:index] for index, entry in enumerate(entries)):
        yield "unique", path
    for entry in entries:
        # Every entry's path is the same, so that failures do not differ by the entry's number.
        yield from _of_value(schema, field, constraint.item or NONE, entry, f"{path}[]", echoes)


def _of_value(
    schema: Schema,
    field: FieldDescriptor,
    constraint: Constraint,
    value: Scalar | Message,
    path: str,
    echoes: bool,
) -> _Broken:
    if isinstance(value, Message):
        for broken in violations(schema, value, f"{path}.", echoes=echoes):
            yield broken.rule, broken.field
        return
    for rule in constraint.broken_by(value):
        yield rule, path
    enum = field.enum_type
    if enum is None or value in enum.values_by_number:
        return
    sent = enum.full_name in schema.request_types and value in unknown_numbers(enum)
    if not (echoes and sent):
        yield "known_enum", path


def _of_well_known(message: Message, prefix: str) -> Iterator[BrokenRule]:
    name = message.DESCRIPTOR.full_name
    if name not in {"google.protobuf.Timestamp", "google.protobuf.Duration"}:
        return
    fields = {field.name: value for field, value in message.ListFields()}
    seconds, nanos = fields.get("seconds", 0), fields.get("nanos", 0)
    if name == "google.protobuf.Timestamp":
        in_range = TIMESTAMP_SECONDS[0] <= seconds <= TIMESTAMP_SECONDS[1] and nanos >= 0
    else:
        in_range = abs(seconds) <= DURATION_SECONDS and seconds * nanos >= 0
    if not in_range or abs(nanos) > NANOS_MAX:
        yield BrokenRule(field=prefix.rstrip(".") or name, rule="range")


def judgeable(schema: Schema, descriptor: Descriptor) -> bool:
    """Whether all constraints of a message type, and of those within it, can be evaluated."""
    return not _is_opaque(schema, descriptor, set())


def _is_opaque(schema: Schema, descriptor: Descriptor, seen: set[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        if schema.constraint(field).opaque:
            return True
        if field.message_type is not None and _is_opaque(schema, field.message_type, seen):
            return True
    return False
