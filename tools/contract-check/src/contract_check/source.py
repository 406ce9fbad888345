"""Positions and comments of the elements of a file, from the source info of an image."""

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
)

_Path = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One element in its source.

    Attributes:
        text: Such as `contracts/credit/v1/credit.proto:208:3`; lines and columns count from 1.
        comment: The comment before it, without its slashes; empty if there is none.
    """

    text: str
    comment: str


def places(file: FileDescriptorProto) -> dict[str, Place]:
    """Return the places of the elements of a file.

    Args:
        file: The file, with its source info.

    Returns:
        Places by full name, the package's own included; none without source info.
    """
    names = dict(_elements(file))
    return {
        names[tuple(location.path)]: Place(
            text=f"contracts/{file.name}:{location.span[0] + 1}:{location.span[1] + 1}",
            comment=_comment(location.leading_comments),
        )
        for location in file.source_code_info.location
        if tuple(location.path) in names
    }


def _comment(text: str) -> str:
    return "\n".join(line.removeprefix(" ").rstrip() for line in text.strip("\n").split("\n"))


def _elements(file: FileDescriptorProto) -> Iterator[tuple[_Path, str]]:
    """Yield the path of each element, as descriptor.proto defines paths, and its full name."""
    of = FileDescriptorProto
    yield (of.PACKAGE_FIELD_NUMBER,), file.package
    for index, message in enumerate(file.message_type):
        yield from _message((of.MESSAGE_TYPE_FIELD_NUMBER, index), file.package, message)
    for index, enum in enumerate(file.enum_type):
        yield from _enum((of.ENUM_TYPE_FIELD_NUMBER, index), file.package, enum)
    for index, service in enumerate(file.service):
        path, name = (of.SERVICE_FIELD_NUMBER, index), f"{file.package}.{service.name}"
        yield path, name
        for position, method in enumerate(service.method):
            # 2: ServiceDescriptorProto.method
            yield (*path, 2, position), f"{name}.{method.name}"


def _message(path: _Path, scope: str, message: DescriptorProto) -> Iterator[tuple[_Path, str]]:
    of, name = DescriptorProto, f"{scope}.{message.name}"
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, of.FIELD_FIELD_NUMBER, index), f"{name}.{field.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _message((*path, of.NESTED_TYPE_FIELD_NUMBER, index), name, nested)
    for index, enum in enumerate(message.enum_type):
        yield from _enum((*path, of.ENUM_TYPE_FIELD_NUMBER, index), name, enum)


def _enum(path: _Path, scope: str, enum: EnumDescriptorProto) -> Iterator[tuple[_Path, str]]:
    name = f"{scope}.{enum.name}"
    yield path, name
    for index, value in enumerate(enum.value):
        # 2: EnumDescriptorProto.value. Values are unique only in their enum.
        yield (*path, 2, index), f"{name}.{value.name}"
