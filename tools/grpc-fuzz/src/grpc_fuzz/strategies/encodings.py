"""Other encodings of the same message, and the parts of protobuf's wire format."""

from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from grpc_fuzz.schema import descriptor_of
from grpc_fuzz.strategies.messages import serialize

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5

# The wire types of the field types that are not sent as varints.
WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: FIXED64,
    FieldDescriptor.TYPE_FIXED64: FIXED64,
    FieldDescriptor.TYPE_SFIXED64: FIXED64,
    FieldDescriptor.TYPE_FLOAT: FIXED32,
    FieldDescriptor.TYPE_FIXED32: FIXED32,
    FieldDescriptor.TYPE_SFIXED32: FIXED32,
    FieldDescriptor.TYPE_STRING: LENGTH_DELIMITED,
    FieldDescriptor.TYPE_BYTES: LENGTH_DELIMITED,
    FieldDescriptor.TYPE_MESSAGE: LENGTH_DELIMITED,
}
_ZEROS = {VARINT: b"\0", FIXED64: bytes(8), LENGTH_DELIMITED: b"\0", FIXED32: bytes(4)}
_NONZERO = {
    VARINT: b"\x96\x01",
    FIXED64: b"\1" * 8,
    LENGTH_DELIMITED: b"\3abc",
    FIXED32: b"\1" * 4,
}

# The range that is reserved for the implementation. The language accepts no such field numbers.
_RESERVED = range(19_000, 20_000)
_NUMBER_MAX = 2**29 - 1


def with_unknown_fields(message: Message) -> Iterator[tuple[str, bytes]]:
    """Yield the encodings of a message with one more field, which its type does not define.

    Yields:
        What was added, and the bytes.
    """
    data = serialize(message)
    taken = descriptor_of(message).fields_by_number
    near = max(taken, default=0) + 1
    numbers = [number for number in (near, _RESERVED.stop, _NUMBER_MAX) if number not in taken]
    for wire_type, content in _NONZERO.items():
        for number in numbers[:1] if wire_type != VARINT else numbers:
            yield (
                f"number {number}, wire type {wire_type}",
                data + tag(number, wire_type) + content,
            )
    yield "before all others", tag(near, VARINT) + _NONZERO[VARINT] + data


def explicit_zeros(message: Message) -> Iterator[tuple[FieldDescriptor, bytes, bytes]]:
    """Yield the encodings of a message with one field omitted, and with that field sent as zero.

    Fields with explicit presence are left out, because for them the two are not the same.

    Yields:
        The field, the bytes without it, and the bytes with its zero.
    """
    for field in descriptor_of(message).fields:
        if field.has_presence or field.is_repeated:
            continue
        without = type(message)()
        without.CopyFrom(message)
        without.ClearField(field.name)
        data = serialize(without)
        wire_type = WIRE_TYPES.get(field.type, VARINT)
        yield field, data, data + tag(field.number, wire_type) + _ZEROS[wire_type]


def tag(number: int, wire_type: int) -> bytes:
    """Return the tag before the value of a field."""
    return varint(number << 3 | wire_type)


def varint(value: int) -> bytes:
    """Return the varint of a value that is not negative."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
