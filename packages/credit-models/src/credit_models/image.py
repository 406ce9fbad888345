"""The contract's descriptors and options, read from the image that `buf build` writes.

The descriptor pool is private. Google's default pool is shared by the whole process: with it, a
program that also compiles `credit.proto` with protoc could not import both.
"""

from collections.abc import Sequence
from importlib import resources
from typing import Any

import betterproto2
from google.protobuf.descriptor import (
    EnumValueDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

IMAGE_RESOURCE = "_generated/image.binpb"


def descriptor_pool(files: FileDescriptorSet) -> DescriptorPool:
    """Return a new pool with the files of an image.

    Args:
        files: The files, each after the files that it imports, as `buf build` orders them.

    Returns:
        A pool that contains these files and no others.
    """
    pool = DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def full_names(messages: betterproto2.MessagePool) -> dict[type[betterproto2.Message], str]:
    """Return the name under which the descriptor of each class is found.

    Args:
        messages: betterproto2's classes, as registered by the compiler.

    Returns:
        Each message's name with its package, such as `credit.v1.UserId`, by class.
    """
    return {
        message_type: url.removeprefix("type.googleapis.com/")
        for url, message_type in messages.url_to_type.items()
    }


# The contract with all its imports, without comments.
FILE_DESCRIPTOR_SET = FileDescriptorSet.FromString(
    resources.files(__package__).joinpath(IMAGE_RESOURCE).read_bytes()
)
POOL = descriptor_pool(FILE_DESCRIPTOR_SET)

# The services of the contract. No dependency of the contract defines a service.
SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    POOL.FindServiceByName(f"{file.package}.{service.name}")
    for file in FILE_DESCRIPTOR_SET.file
    for service in file.service
)


def message_class(full_name: str) -> type[Message]:
    """Return Google's class for a message of the image.

    Args:
        full_name: The message's name with its package, such as `credit.v1.UserId`.

    Raises:
        KeyError: The image has no such message.
    """
    return GetMessageClass(POOL.FindMessageTypeByName(full_name))


def method_path(method: MethodDescriptor) -> str:
    """Return the path of a method, such as `/credit.v1.CreditService/AddCredits`."""
    return f"/{method.containing_service.full_name}/{method.name}"


# The kinds of descriptors on which the contract sets its own options.
_Descriptor = FieldDescriptor | EnumValueDescriptor | MethodDescriptor | ServiceDescriptor

_OPTIONS: dict[type[_Descriptor], type[Message]] = {
    EnumValueDescriptor: message_class("google.protobuf.EnumValueOptions"),
    FieldDescriptor: message_class("google.protobuf.FieldOptions"),
    MethodDescriptor: message_class("google.protobuf.MethodOptions"),
    ServiceDescriptor: message_class("google.protobuf.ServiceOptions"),
}


# Any: the type of an extension's value is defined only in the descriptors.
def option(descriptor: _Descriptor, extension_name: str) -> Any:
    """Return the value of one of the contract's own options.

    Args:
        descriptor: The field, enum value, method or service of `POOL` that has the option.
        extension_name: The option's full name, such as `credit.options.v1.constraint`.

    Returns:
        The option's value, a sequence where the option is repeated, or None where it is not set.

    Raises:
        KeyError: The image has no such extension.
    """
    extension: Any = POOL.FindExtensionByName(extension_name)
    # `GetOptions` returns a class of the default pool, where our extensions are unknown fields.
    serialized = descriptor.GetOptions().SerializeToString()
    # `type(descriptor)` is a class of the C implementation; only `isinstance` recognizes the kinds.
    options_class = next(found for kind, found in _OPTIONS.items() if isinstance(descriptor, kind))
    options: Any = options_class.FromString(serialized)
    if extension.is_repeated:
        values: Sequence[Any] = options.Extensions[extension]
        return values or None
    return options.Extensions[extension] if options.HasExtension(extension) else None
