"""A contract's descriptors, with the values of its options and their places in the sources.

Each image has a descriptor pool of its own, so that two versions of one contract can be compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    EnumValueDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from contract_check.errors import CheckError
from contract_check.source import Place, places

# Files of protobuf itself.
_FOREIGN = "google/"


class Image:
    """The output of `buf build` for a contract.

    Attributes:
        data: The image's bytes.

    Raises:
        CheckError: The bytes are not an image.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pool = DescriptorPool()
        try:
            # An image is a FileDescriptorSet with additional fields of buf, which stay unknown.
            files = FileDescriptorSet.FromString(data).file
            for file in files:
                self.pool.AddSerializedFile(file.SerializeToString())
        except (DecodeError, TypeError) as error:
            raise CheckError(f"this is not an image of buf: {error}") from error
        self.files: tuple[FileDescriptorProto, ...] = tuple(
            file for file in files if not file.name.startswith(_FOREIGN)
        )

    @cached_property
    def messages(self) -> dict[str, Descriptor]:
        """All messages by full name; nested ones follow the messages that contain them."""
        return {
            message.full_name: message
            for file in self.files
            for top in self.pool.FindFileByName(file.name).message_types_by_name.values()
            for message in _with_nested(top)
        }

    @cached_property
    def enums(self) -> dict[str, EnumDescriptor]:
        """All enums by full name."""
        nested = (enum for message in self.messages.values() for enum in message.enum_types)
        top = (
            enum
            for file in self.files
            for enum in self.pool.FindFileByName(file.name).enum_types_by_name.values()
        )
        return {enum.full_name: enum for enum in (*top, *nested)}

    @cached_property
    def services(self) -> dict[str, ServiceDescriptor]:
        """All services by full name."""
        return {
            service.full_name: service
            for file in self.files
            for service in self.pool.FindFileByName(file.name).services_by_name.values()
        }

    @cached_property
    def methods(self) -> dict[str, MethodDescriptor]:
        """All calls by full name, such as `credit.v1.CreditService.AddCredits`."""
        return {
            method.full_name: method
            for service in self.services.values()
            for method in service.methods
        }

    @cached_property
    def places(self) -> dict[str, Place]:
        """The place of each element by full name; empty for an image without source info.

        The place of a package is the file whose comment describes it.
        """
        found: dict[str, Place] = {}
        for file in self.files:
            for name, place in places(file).items():
                if place.comment or name not in found:
                    found[name] = place
        return found

    @cached_property
    def reach(self) -> "Reach":
        """The messages that clients write, and those that they read."""
        methods = self.methods.values()
        requests = _reachable(method.input_type for method in methods)
        answers = _reachable(method.output_type for method in methods)
        return Reach(requests=requests, answers=answers | (self.messages.keys() - requests))

    def where(self, full_name: str) -> str:
        """Return the place of an element in the sources, or its name if it has none."""
        place = self.places.get(full_name)
        return full_name if place is None else place.text

    # Any: only the image knows the type of an extension's value.
    def option(
        self,
        element: FieldDescriptor | EnumValueDescriptor | MethodDescriptor | ServiceDescriptor,
        extension: str,
    ) -> Any:
        """Return one of the contract's options.

        Args:
            element: A field, an enum value, a call or a service of this image.
            extension: The option's full name, such as `credit.options.v1.constraint`.

        Returns:
            The option's value; None if it is not set, or if the image does not define it.
        """
        try:
            found: Any = self.pool.FindExtensionByName(extension)
        except KeyError:
            return None
        # `GetOptions` is of the default pool's class, to which our extensions are unknown fields.
        options = self._options_class(element).FromString(element.GetOptions().SerializeToString())
        if found.is_repeated:
            return tuple(options.Extensions[found]) or None
        return options.Extensions[found] if options.HasExtension(found) else None

    def message_class(self, full_name: str) -> type[Message]:
        """Return the protobuf class of a message of this image.

        Raises:
            KeyError: The image has no such message.
        """
        return GetMessageClass(self.pool.FindMessageTypeByName(full_name))

    def _options_class(
        self,
        element: FieldDescriptor | EnumValueDescriptor | MethodDescriptor | ServiceDescriptor,
    ) -> type[Message]:
        match element:
            case FieldDescriptor():
                name = "FieldOptions"
            case EnumValueDescriptor():
                name = "EnumValueOptions"
            case ServiceDescriptor():
                name = "ServiceOptions"
            case _:
                name = "MethodOptions"
        return self.message_class(f"google.protobuf.{name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """The full names of the messages of each direction; some are in both.

    A message that no call takes is written by the server, even if no call returns it: the server
    sends it in metadata, and it counts as an answer.
    """

    requests: frozenset[str]
    answers: frozenset[str]


def _with_nested(message: Descriptor) -> Iterator[Descriptor]:
    """Yield a message and those nested in it, except the entries of maps: no source has them."""
    yield message
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            yield from _with_nested(nested)


def _reachable(roots: Iterator[Descriptor]) -> frozenset[str]:
    waiting, seen = list(roots), set()
    while waiting:
        message = waiting.pop()
        if message.full_name not in seen:
            seen.add(message.full_name)
            waiting += [field.message_type for field in message.fields if field.message_type]
    return frozenset(seen)
