"""Whether a message conforms to the contract."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from grpc_fuzz.constraint import NONE, Constraint, Scalar
from grpc_fuzz.model import BrokenRule
from grpc_fuzz.schema import Schema, descriptor_of, is_map
from grpc_fuzz.strategies.edges import unknown_numbers
from grpc_fuzz.strategies.messages import is_synthetic, map_fields
from grpc_fuzz.strategies.well_known import (
    DURATION_SECONDS,
    NANOS_MAX,
    TIMES_OUT_OF_RANGE,
    TIMESTAMP_SECONDS,
)


def violations(
    schema: Schema, message: Message, prefix: str = "", *, allow_sent: bool = False
) -> Iterator[BrokenRule]:
    """Yield all rules that a message breaks.

    Args:
        schema: The contract.
        message: A message of one of the contract's types.
        prefix: The path of the message within a larger one, with a final dot.
        allow_sent: Whether to leave out enum values and times that a request of this run may have
            sent, because a server that stores them may return them at any later time.

    Yields:
        Constraints that are broken, unknown enum values ("known_enum"), fields that the contract
        does not define ("known_field"), and times out of range ("range").
    """
    descriptor = descriptor_of(message)
    if not (allow_sent and _is_sent_time(schema, message)):
        yield from _of_well_known(message, prefix)
    if len(UnknownFieldSet(message)):
        yield BrokenRule(field=prefix.rstrip(".") or descriptor.name, rule=KNOWN_FIELD)
    for field in descriptor.fields:
        for rule, path in _of_field(schema, message, field, f"{prefix}{field.name}", allow_sent):
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
    schema: Schema, message: Message, field: FieldDescriptor, path: str, allow_sent: bool
) -> _Broken:
    constraint = schema.constraint(field)
    value = getattr(message, field.name)
    if field.is_repeated:
        if constraint.required and not value:
            yield "required", path
        yield from _of_entries(schema, field, constraint, value, path, allow_sent)
        return
    if field.has_presence:
        if message.HasField(field.name):
            yield from _of_value(schema, field, constraint, value, path, allow_sent)
        elif constraint.required:
            yield "required", path
        return
    if constraint.required and value == field.default_value:
        yield "required", path
    yield from _of_value(schema, field, constraint, value, path, allow_sent)


# Any: a list of values of the field's type, or a map.
def _of_entries(
    schema: Schema,
    field: FieldDescriptor,
    constraint: Constraint,
    entries: Any,
    path: str,
    allow_sent: bool,
) -> _Broken:
    if constraint.items_min is not None and len(entries) < constraint.items_min:
        yield "items_min", path
    if constraint.items_max is not None and len(entries) > constraint.items_max:
        yield "items_max", path
    if is_map(field):
        key, value = map_fields(field)
        for name in entries:
            yield from _of_value(schema, key, constraint.key or NONE, name, f"{path}[]", allow_sent)
            yield from _of_value(
                schema, value, constraint.item or NONE, entries[name], f"{path}[]", allow_sent
            )
        return
    if constraint.unique and any(entry in entries[:index] for index, entry in enumerate(entries)):
        yield "unique", path
    for entry in entries:
        # All entries have the same path, so failures do not differ by the index of an entry.
        yield from _of_value(schema, field, constraint.item or NONE, entry, f"{path}[]", allow_sent)


def _of_value(
    schema: Schema,
    field: FieldDescriptor,
    constraint: Constraint,
    value: Scalar | Message,
    path: str,
    allow_sent: bool,
) -> _Broken:
    if isinstance(value, Message):
        for broken in violations(schema, value, f"{path}.", allow_sent=allow_sent):
            yield broken.rule, broken.field
        return
    for rule in constraint.broken_by(value):
        yield rule, path
    enum = field.enum_type
    if enum is None or value in enum.values_by_number:
        return
    sent = enum.full_name in schema.request_types and value in unknown_numbers(enum)
    if not (allow_sent and sent):
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


def can_be_judged(schema: Schema, descriptor: Descriptor) -> bool:
    """Return whether all constraints of a message type and its nested types can be evaluated."""
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
