"""Wire cases whose messages are not valid protobuf, or not of the right type."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from grpc_fuzz.model import Case, Method
from grpc_fuzz.strategies.encodings import (
    FIXED32,
    FIXED64,
    LENGTH_DELIMITED,
    VARINT,
    WIRE_TYPES,
    tag,
    varint,
)
from grpc_fuzz.wire.script import SERVICE_STATUSES, UNKNOWN_FIELD, prefixed, valid_call, wire_case

# statuscodes: "Error parsing request proto".
UNPARSABLE = frozenset({"INTERNAL"})
# Parsers differ in what they accept here. What they reject, they reject with INTERNAL.
EITHER = SERVICE_STATUSES | UNPARSABLE
_MUTATIONS = 8
_NESTING = 5000
_GROUP_START, _GROUP_END = 3, 4

# A value of each wire type, by the type's number.
_VALUES = {
    VARINT: b"\x2a",
    FIXED64: b"\x2a" * 8,
    LENGTH_DELIMITED: b"\x02\xff\x2a",
    FIXED32: b"\x2a" * 4,
}
_NOT_UTF8 = {
    "a lone continuation byte": b"\x80",
    "an overlong slash": b"\xc0\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "a truncated character": b"ab\xe2\x82",
    "a code point past U+10FFFF": b"\xf4\x90\x80\x80",
}


def protobuf_cases(method: Method, request: bytes, random: Random) -> Iterator[Case]:
    """Yield the cases of one method, made from one request that keeps the contract."""
    for description, tail in _MALFORMED.items():
        yield _case(method, description, request + tail, UNPARSABLE)
    yield from _bad_utf8(method, request)
    yield from _confused_types(method, request)
    yield from _unknown_fields(method, request)
    yield from _mutated(method, request, random)


_MALFORMED = {
    "a field numbered 0": b"\x00\x00",
    "a truncated tag": b"\x80",
    "a tag of six bytes": b"\x80\x80\x80\x80\x80\x01\x00",
    "a varint of eleven bytes": tag(UNKNOWN_FIELD, 0) + b"\xff" * 10 + b"\x01",
    "a truncated varint": tag(UNKNOWN_FIELD, 0) + b"\x80",
    "a truncated fixed64": tag(UNKNOWN_FIELD, 1) + b"\x00" * 7,
    "a truncated fixed32": tag(UNKNOWN_FIELD, 5) + b"\x00" * 3,
    "a length beyond the end": tag(UNKNOWN_FIELD, 2) + b"\x7f\x00",
    "a length of 2^31 - 1": tag(UNKNOWN_FIELD, 2) + varint(2**31 - 1),
    "a length of 2^64 - 1": tag(UNKNOWN_FIELD, 2) + varint(2**64 - 1),
    "a group that never ends": tag(UNKNOWN_FIELD, _GROUP_START),
    "a group that never starts": tag(UNKNOWN_FIELD, _GROUP_END),
    "wire type 6": tag(UNKNOWN_FIELD, 6) + b"\x00",
    "wire type 7": tag(UNKNOWN_FIELD, 7) + b"\x00",
}


def _case(method: Method, description: str, message: bytes, expected: frozenset[str]) -> Case:
    return wire_case(method, description, *valid_call(method, prefixed(message)), expected=expected)


def _bad_utf8(method: Method, request: bytes) -> Iterator[Case]:
    for field in _fields(method.input):
        if field.type != FieldDescriptor.TYPE_STRING:
            continue
        for name, octets in _NOT_UTF8.items():
            body = request + tag(field.number, 2) + varint(len(octets)) + octets
            # The error of the parser or, if the parser accepts the bytes, of the service.
            expected = UNPARSABLE | {"INVALID_ARGUMENT"}
            yield _case(method, f"'{field.name}' holds {name}", body, expected)


def _confused_types(method: Method, request: bytes) -> Iterator[Case]:
    for field in _fields(method.input):
        for wire_type, value in _VALUES.items():
            if wire_type != WIRE_TYPES.get(field.type, VARINT):
                body = request + tag(field.number, wire_type) + value
                # In quotation marks, because a parser behaves the same for every field.
                yield _case(method, f"'{field.name}' with wire type {wire_type}", body, EITHER)


def _unknown_fields(method: Method, request: bytes) -> Iterator[Case]:
    for wire_type, value in _VALUES.items():
        body = request + tag(UNKNOWN_FIELD, wire_type) + value
        yield _case(method, f"an unknown field of wire type {wire_type}", body, SERVICE_STATUSES)
    group = tag(UNKNOWN_FIELD, _GROUP_START) + tag(UNKNOWN_FIELD, _GROUP_END)
    yield _case(method, "an unknown group", request + group, SERVICE_STATUSES)
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
            # The method gets an ordinary request. If the call fails, the method fails.
            case = replace(case, about="method", expected=SERVICE_STATUSES)
        yield case


def _is_plain(method: Method, data: bytes) -> bool:
    """Return whether every parser accepts the bytes and reads the same message."""
    try:
        message = GetMessageClass(method.input).FromString(data)
    except DecodeError:
        return False
    message.DiscardUnknownFields()
    return message.SerializePartialToString(deterministic=True) == data


def _fields(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    return tuple(cast("list[FieldDescriptor]", descriptor.fields))
