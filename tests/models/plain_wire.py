"""The tests' oracle: a plain reader of protobuf's encoding that finds integers that do not fit.

It shares no code with the codec. It splits a message by the published wire format, parses each
integer alone with Google's parser, and compares the bits that Google's serializer writes.
"""

from collections.abc import Iterator
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

VARINTS = {
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_ENUM,
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT32,
    FieldDescriptor.TYPE_SINT64,
}


def varint(number: int, length: int = 1) -> bytes:
    """Write a varint of at least `length` bytes. More than ten are not valid."""
    data = bytearray()
    while number > 127 or len(data) < length - 1:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def read_varint(data: bytes) -> tuple[int, bytes]:
    """Read a varint of any length; return it and the rest of the bytes."""
    size = next(position for position, byte in enumerate(data) if byte < 128) + 1
    number = sum((byte & 127) << 7 * position for position, byte in enumerate(data[:size]))
    return number, data[size:]


def records(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, wire type and content of each record outside groups."""
    open_groups = 0
    while data:
        head, data = read_varint(data)
        number, wire_type = head >> 3, head & 7
        if wire_type == 3:
            open_groups += 1
            continue
        if wire_type == 4:
            open_groups -= 1
            continue
        if wire_type == 0:
            rest = read_varint(data)[1]
            content = data[: len(data) - len(rest)]
        elif wire_type == 2:
            size, data = read_varint(data)
            content, rest = data[:size], data[size:]
        else:
            size = 8 if wire_type == 1 else 4
            content, rest = data[:size], data[size:]
        data = rest
        if open_groups == 0:
            yield number, wire_type, content


def misfits(descriptor: Descriptor, data: bytes) -> set[str]:
    """Return the names of the fields with an integer that does not fit, without list positions."""
    found = set()
    for number, wire_type, content in records(data):
        field = descriptor.fields_by_number.get(number)
        if field is None:
            continue
        if field.message_type is not None and wire_type == 2:
            found |= {f"{field.name}.{name}" for name in misfits(field.message_type, content)}
        elif field.type in VARINTS and (wire_type == 0 or (wire_type == 2 and field.is_repeated)):
            found |= {field.name for number in numbers(content) if not fits(field, number)}
    return found


def numbers(packed: bytes) -> Iterator[int]:
    while packed:
        number, packed = read_varint(packed)
        yield number


def fits(field: FieldDescriptor, number: int) -> bool:
    """Return whether the number is unchanged after Google's parser and serializer."""
    # Any: Google's classes exist only at run time.
    google: Any = GetMessageClass(cast(Descriptor, field.containing_type))
    lone = google.FromString(tag(field.number, 0) + varint(number))
    written = {
        found: content for found, _, content in records(lone.SerializeToString(deterministic=True))
    }
    again = written.get(field.number, b"\0")  # a zero is not written
    return read_varint(again)[0] == number
