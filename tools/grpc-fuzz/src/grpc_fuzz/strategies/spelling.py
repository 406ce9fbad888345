"""Other bytes for the same message."""

from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from grpc_fuzz.schema import descriptor_of
from grpc_fuzz.strategies.messages import serialize

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5

_WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_SFIXED32: _FIXED32,
    FieldDescriptor.TYPE_STRING: _LENGTH_DELIMITED,
    FieldDescriptor.TYPE_BYTES: _LENGTH_DELIMITED,
}
_ZEROS = {_VARINT: b"\0", _FIXED64: bytes(8), _LENGTH_DELIMITED: b"\0", _FIXED32: bytes(4)}
_SOMETHING = {
    _VARINT: b"\x96\x01",
    _FIXED64: b"\1" * 8,
    _LENGTH_DELIMITED: b"\3abc",
    _FIXED32: b"\1" * 4,
}

# The range that the implementation reserves; the language takes no fields with these numbers.
_RESERVED = range(19_000, 20_000)
_NUMBER_MAX = 2**29 - 1


def with_unknown_fields(message: Message) -> Iterator[tuple[str, bytes]]:
    """The message with one field added that its type does not have.

    Yields:
        What was added, and the bytes.
    """
    data = serialize(message)
    taken = descriptor_of(message).fields_by_number
    near = max(taken, default=0) + 1
    numbers = [number for number in (near, _RESERVED.stop, _NUMBER_MAX) if number not in taken]
    for wire_type, content in _SOMETHING.items():
        for number in numbers[:1] if wire_type != _VARINT else numbers:
            yield (
                f"number {number}, wire type {wire_type}",
                data + _tag(number, wire_type) + content,
            )
    yield "before all others", _tag(near, _VARINT) + _SOMETHING[_VARINT] + data


def spelled_out_zeros(message: Message) -> Iterator[tuple[FieldDescriptor, bytes, bytes]]:
    """The message with one field left out, and with the same field sent as zero.

    Only fields without explicit presence are tried: for the others the two are not the same.

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
        wire_type = _WIRE_TYPES.get(field.type, _VARINT)
        yield field, data, data + _tag(field.number, wire_type) + _ZEROS[wire_type]


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def varint(value: int) -> bytes:
    """A varint of protobuf; the value is not negative."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
