"""The boundary values of each field of a message."""

from collections.abc import Iterator
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from grpc_fuzz.constraint import NONE, Constraint, Scalar
from grpc_fuzz.schema import Schema, descriptor_of, is_map
from grpc_fuzz.strategies.edges import FLOATS, INTEGER_RANGES, float_edges, integer_edges
from grpc_fuzz.strategies.scalars import AWKWARD, integer_range, length_range

# The field, the value and its description. Any: the type of the field decides.
Boundary = tuple[FieldDescriptor, Any, str]


def boundary_values(schema: Schema, plain: Message) -> Iterator[Boundary]:
    """Yield the boundary values of one field at a time.

    Args:
        schema: The contract.
        plain: A valid message.

    Yields:
        The field, a value that its own constraint allows, and a description of the value.
    """
    for field in descriptor_of(plain).fields:
        constraint = schema.constraint(field)
        if field.is_repeated:
            yield from _entries(plain, field, constraint)
        elif field.message_type is not None:
            yield from _message(field)
        else:
            for value in scalar_values(field, constraint):
                yield field, value, repr(value)[:40]


def scalar_values(field: FieldDescriptor, constraint: Constraint) -> Iterator[Scalar]:
    """Yield the boundary values of a field that is not a message that its constraint allows."""
    for value in _candidates(field, constraint):
        if not constraint.broken_by(value):
            yield value


def _candidates(field: FieldDescriptor, constraint: Constraint) -> Iterator[Scalar]:
    if constraint.one_of is not None:
        yield from constraint.one_of
    elif field.type == FieldDescriptor.TYPE_BOOL:
        yield from (False, True)
    elif field.enum_type is not None:
        yield from sorted(field.enum_type.values_by_number)
    elif field.type in INTEGER_RANGES:
        yield from integer_edges(*integer_range(field, constraint))
    elif field.type in FLOATS:
        yield from float_edges(None, None, single=field.type == FieldDescriptor.TYPE_FLOAT)
    elif field.type == FieldDescriptor.TYPE_STRING:
        low, high = length_range(constraint)
        for character in ("a", "\U0001f600"):
            yield from (character * length for length in sorted({low, low + 1, high - 1, high}))
        yield from (character * max(1, low) for character in AWKWARD)
    else:
        yield from (b"", b"\0", b"\xff" * 16)
        yield b"\xff" * (constraint.bytes_max or 256)


def _entries(plain: Message, field: FieldDescriptor, constraint: Constraint) -> Iterator[Boundary]:
    if is_map(field):
        return
    values: list[Any] = []
    if field.message_type is not None:
        values = [GetMessageClass(field.message_type)()]
    else:
        values = list(scalar_values(field, constraint.item or NONE))
    for value in values:
        yield field, [value], f"one entry, {str(value)[:40]!r}"
    sizes = {0, 1, 2, 100, constraint.items_min or 0, constraint.items_max or 0}
    entries = list(getattr(plain, field.name)) or values[:1]
    if constraint.unique or not entries:
        return
    for size in sorted(sizes):
        within = constraint.items_max is None or size <= constraint.items_max
        if within and size >= (constraint.items_min or 0):
            yield field, [entries[0]] * size, f"{size} entries"


def _message(field: FieldDescriptor) -> Iterator[Boundary]:
    descriptor = cast(Descriptor, field.message_type)
    make = GetMessageClass(descriptor)
    yield field, make(), "present and empty"
    # Deep enough to find a recursive parser that fails early, and within the limit of protobuf.
    recursive = next(
        (inner for inner in descriptor.fields if inner.message_type is descriptor), None
    )
    if recursive is not None and not recursive.is_repeated:
        deep = make()
        innermost = deep
        for _ in range(_DEPTH):
            innermost = getattr(innermost, recursive.name)
            innermost.SetInParent()
        yield field, deep, f"nested {_DEPTH} deep"


# Protobuf parsers stop at 100 levels.
_DEPTH = 90
