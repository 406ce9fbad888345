"""Links between calls: which request field takes which values of earlier calls."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from grpc_fuzz.model import Method
from grpc_fuzz.schema import is_map
from grpc_fuzz.settings import Link

# Deeper levels repeat the message, or hold what no request needs.
_DEPTH_MAX = 4
# The first entries represent all entries of a long list.
_ENTRIES_MAX = 3

_KINDS = {
    FieldDescriptor.CPPTYPE_INT32: "integer",
    FieldDescriptor.CPPTYPE_INT64: "integer",
    FieldDescriptor.CPPTYPE_UINT32: "integer",
    FieldDescriptor.CPPTYPE_UINT64: "integer",
    FieldDescriptor.CPPTYPE_STRING: "text",
}
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What a value and a field must share to be linked.

    Attributes:
        name: The name of the field, prefixed with the name of its message if it is "id"; for a
            declared link, its source.
        kind: "integer", "text" or "bytes"; "declared" for a declared link.
    """

    name: str
    kind: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkTarget:
    """A request field that may take a value of an earlier call.

    Attributes:
        path: The path of the field in the request, such as "order.user_id".
        field: The descriptor of the field.
        keys: The keys of the values that it may take.
    """

    path: str
    field: FieldDescriptor
    keys: frozenset[Key]


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkSource:
    """A value in a message that a later request may take.

    Attributes:
        path: The path of the value in the message, such as "lines[0].id".
        key: The key that a target must have.
        value: The value, which is never the zero value.
    """

    path: str
    key: Key
    value: int | str | bytes


def targets(method: Method, declared: Sequence[Link] = ()) -> tuple[LinkTarget, ...]:
    """Return the request fields of a method that may take values of earlier calls.

    Args:
        method: The method.
        declared: The declared links of all methods.
    """
    return tuple(_targets(method, method.input, "", declared, _DEPTH_MAX))


def sources(
    method: Method, message: Message, declared: Sequence[Link] = (), *, response: bool
) -> tuple[LinkSource, ...]:
    """Return the values of a request or a response that later requests may take."""
    found = tuple(
        _sources(message, "", _owner(method, cast(Descriptor, message.DESCRIPTOR)), _DEPTH_MAX)
    )
    declared_sources = {link.source for link in declared} if response else set()
    named = [
        LinkSource(path=entry.path, key=Key(name=source, kind="declared"), value=entry.value)
        for entry in found
        if (source := f"{method.path}:{_without_indices(entry.path)}") in declared_sources
    ]
    return (*found, *named)


def _targets(
    method: Method, descriptor: Descriptor, prefix: str, declared: Sequence[Link], depth: int
) -> Iterator[LinkTarget]:
    for field in _fields(descriptor):
        if field.is_repeated:
            continue
        path = prefix + field.name
        if field.message_type is not None:
            if depth > 0 and not _is_well_known(field.message_type):
                yield from _targets(method, field.message_type, f"{path}.", declared, depth - 1)
            continue
        key = _key(field, _owner(method, descriptor))
        if key is not None:
            target = f"{method.path}:{path}"
            named = {
                Key(name=link.source, kind="declared") for link in declared if link.target == target
            }
            yield LinkTarget(path=path, field=field, keys=frozenset({key, *named}))


def _sources(message: Message, prefix: str, owner: str, depth: int) -> Iterator[LinkSource]:
    for field, value in message.ListFields():
        if field.is_extension or is_map(field):
            continue
        entries = value[:_ENTRIES_MAX] if field.is_repeated else [value]
        for position, entry in enumerate(entries):
            path = f"{prefix}{field.name}" + (f"[{position}]" if field.is_repeated else "")
            if field.message_type is not None:
                if depth > 0 and not _is_well_known(field.message_type):
                    inner = field.message_type.name
                    yield from _sources(entry, f"{path}.", inner, depth - 1)
            elif (key := _key(field, owner)) is not None and entry:
                yield LinkSource(path=path, key=key, value=entry)


def _is_well_known(descriptor: Descriptor) -> bool:
    """Return whether the fields of a type mean nothing alone, such as the nanos of a time."""
    return str(descriptor.file.package) == "google.protobuf"


def _key(field: FieldDescriptor, owner: str) -> Key | None:
    kind = _KINDS.get(field.cpp_type)
    if kind is None:
        return None
    if field.type == FieldDescriptor.TYPE_BYTES:
        kind = "bytes"
    name = f"{_snake(owner)}_id" if field.name == "id" else field.name
    return Key(name=name, kind=kind)


def _owner(method: Method, descriptor: Descriptor) -> str:
    """Return the message that an "id" belongs to; in a request, the type of the response."""
    is_request = descriptor.full_name == method.input.full_name
    return str(method.output.name if is_request else descriptor.name)


def _snake(name: str) -> str:
    return _WORD_START.sub("_", name).lower()


def _without_indices(path: str) -> str:
    return re.sub(r"\[\d+\]", "", path)


def _fields(descriptor: Descriptor) -> list[FieldDescriptor]:
    return list(cast("list[FieldDescriptor]", descriptor.fields))
