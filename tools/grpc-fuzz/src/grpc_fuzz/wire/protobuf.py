"""Wire cases whose messages are not protobuf, or not of the type that they should be."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from grpc_fuzz.model import Case, Method
from grpc_fuzz.wire.script import CHOSEN, UNKNOWN_FIELD, prefixed, sound, varint, wire_case

# statuscodes: "Error parsing request proto".
UNPARSABLE = frozenset({"INTERNAL"})
# Parsers differ in what they take here; what they refuse, they refuse with INTERNAL.
EITHER = CHOSEN | UNPARSABLE
_MUTATIONS = 8
_NESTING = 5000
_GROUP_START, _GROUP_END, _LENGTH_DELIMITED = 3, 4, 2

# A value of each wire type, by the type's number.
_VALUES = {0: b"\x2a", 1: b"\x2a" * 8, 2: b"\x02\xff\x2a", 5: b"\x2a" * 4}
_WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: 1,
    FieldDescriptor.TYPE_FIXED64: 1,
    FieldDescriptor.TYPE_SFIXED64: 1,
    FieldDescriptor.TYPE_STRING: _LENGTH_DELIMITED,
    FieldDescriptor.TYPE_BYTES: _LENGTH_DELIMITED,
    FieldDescriptor.TYPE_MESSAGE: _LENGTH_DELIMITED,
    FieldDescriptor.TYPE_FLOAT: 5,
    FieldDescriptor.TYPE_FIXED32: 5,
    FieldDescriptor.TYPE_SFIXED32: 5,
}
_NOT_UTF8 = {
    "a lone continuation byte": b"\x80",
    "an overlong slash": b"\xc0\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "a character cut in two": b"ab\xe2\x82",
    "a code point past U+10FFFF": b"\xf4\x90\x80\x80",
}


def protobuf_cases(method: Method, request: bytes, random: Random) -> Iterator[Case]:
    """Yields the cases of one method, made from one request that keeps the contract."""
    for description, tail in _MALFORMED.items():
        yield _case(method, description, request + tail, UNPARSABLE)
    yield from _bad_utf8(method, request)
    yield from _confused_types(method, request)
    yield from _unknown_fields(method, request)
    yield from _mutated(method, request, random)


def tag(number: int, wire_type: int) -> bytes:
    """The tag before a field's value."""
    return varint(number << 3 | wire_type)


_MALFORMED = {
    "a field numbered 0": b"\x00\x00",
    "a tag cut in two": b"\x80",
    "a tag of six bytes": b"\x80\x80\x80\x80\x80\x01\x00",
    "a varint of eleven bytes": tag(UNKNOWN_FIELD, 0) + b"\xff" * 10 + b"\x01",
    "a varint cut in two": tag(UNKNOWN_FIELD, 0) + b"\x80",
    "a fixed64 cut in two": tag(UNKNOWN_FIELD, 1) + b"\x00" * 7,
    "a fixed32 cut in two": tag(UNKNOWN_FIELD, 5) + b"\x00" * 3,
    "a length beyond the end": tag(UNKNOWN_FIELD, 2) + b"\x7f\x00",
    "a length of 2^31 - 1": tag(UNKNOWN_FIELD, 2) + varint(2**31 - 1),
    "a length of 2^64 - 1": tag(UNKNOWN_FIELD, 2) + varint(2**64 - 1),
    "a group that never ends": tag(UNKNOWN_FIELD, _GROUP_START),
    "a group that never began": tag(UNKNOWN_FIELD, _GROUP_END),
    "wire type 6": tag(UNKNOWN_FIELD, 6) + b"\x00",
    "wire type 7": tag(UNKNOWN_FIELD, 7) + b"\x00",
}


def _case(method: Method, description: str, message: bytes, expected: frozenset[str]) -> Case:
    return wire_case(method, description, *sound(method, prefixed(message)), expected=expected)


def _bad_utf8(method: Method, request: bytes) -> Iterator[Case]:
    for field in _fields(method.input):
        if field.type != FieldDescriptor.TYPE_STRING:
            continue
        for name, octets in _NOT_UTF8.items():
            body = request + tag(field.number, 2) + varint(len(octets)) + octets
            # The parser's error or, where it lets the bytes pass, the service's own.
            expected = UNPARSABLE | {"INVALID_ARGUMENT"}
            yield _case(method, f"'{field.name}' holds {name}", body, expected)


def _confused_types(method: Method, request: bytes) -> Iterator[Case]:
    for field in _fields(method.input):
        for wire_type, value in _VALUES.items():
            if wire_type != _WIRE_TYPES.get(field.type, 0):
                body = request + tag(field.number, wire_type) + value
                # In quotation marks: what a parser does is the same for every field.
                yield _case(method, f"'{field.name}' with wire type {wire_type}", body, EITHER)


def _unknown_fields(method: Method, request: bytes) -> Iterator[Case]:
    for wire_type, value in _VALUES.items():
        body = request + tag(UNKNOWN_FIELD, wire_type) + value
        yield _case(method, f"an unknown field of wire type {wire_type}", body, CHOSEN)
    group = tag(UNKNOWN_FIELD, _GROUP_START) + tag(UNKNOWN_FIELD, _GROUP_END)
    yield _case(method, "an unknown group", request + group, CHOSEN)
    start, end = tag(UNKNOWN_FIELD, _GROUP_START), tag(UNKNOWN_FIELD, _GROUP_END)
    nested = request + start * _NESTING + end * _NESTING
    yield _case(method, f"{_NESTING} nested unknown groups", nested, EITHER)


def _mutated(method: Method, request: bytes, random: Random) -> Iterator[Case]:
    for number in range(_MUTATIONS if request else 0):
        body = bytearray(request)
        for _ in range(random.randint(1, 4)):
            body[random.randrange(len(body))] ^= 1 << random.randrange(8)
        case = _case(method, f"flipped bits, variant {number + 1}", bytes(body), EITHER)
        if _is_plain(method, bytes(body)):
            # The method gets a request as any other: if that fails, the method has failed.
            case = replace(case, about="method", expected=CHOSEN)
        yield case


def _is_plain(method: Method, data: bytes) -> bool:
    """Whether every parser takes the bytes, and all read the same message."""
    try:
        message = GetMessageClass(method.input).FromString(data)
    except DecodeError:
        return False
    message.DiscardUnknownFields()
    return message.SerializePartialToString(deterministic=True) == data


def _fields(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    return tuple(cast("list[FieldDescriptor]", descriptor.fields))
