"""The contract's descriptors and options, from the image that `buf build` makes.

The descriptor pool is private. Google's default pool belongs to the whole process, and a user who
has compiled `credit.proto` with protoc as well could then not import both.
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
    """Makes a pool of its own from an image.

    Args:
        files: The files, each after the files that it imports, as `buf build` orders them.

    Returns:
        A pool that knows these files and no others.
    """
    pool = DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def full_names(messages: betterproto2.MessagePool) -> dict[type[betterproto2.Message], str]:
    """Pairs betterproto2's classes with the names by which descriptors are found.

    Args:
        messages: The classes, as the compiler registers them.

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


def message_class(full_name: str) -> type[Message]:
    """Gives Google's class for a message of the image.

    Args:
        full_name: The message's name with its package, such as `credit.v1.UserId`.

    Raises:
        KeyError: The image has no such message.
    """
    return GetMessageClass(POOL.FindMessageTypeByName(full_name))


_Carrier = FieldDescriptor | EnumValueDescriptor | MethodDescriptor | ServiceDescriptor
"""What carries options of the contract's own."""

_OPTIONS: dict[type[_Carrier], type[Message]] = {
    EnumValueDescriptor: message_class("google.protobuf.EnumValueOptions"),
    FieldDescriptor: message_class("google.protobuf.FieldOptions"),
    MethodDescriptor: message_class("google.protobuf.MethodOptions"),
    ServiceDescriptor: message_class("google.protobuf.ServiceOptions"),
}


# Any: only the descriptors know the type of an extension's value.
def option(descriptor: _Carrier, extension_name: str) -> Any:
    """Reads one of the contract's own options.

    Args:
        descriptor: The field, enum value, method or service of `POOL` that carries the option.
        extension_name: The option's full name, such as `credit.options.v1.constraint`.

    Returns:
        The option's value, a sequence where the option is repeated, or None where it is not set.

    Raises:
        KeyError: The image has no such extension.
    """
    extension: Any = POOL.FindExtensionByName(extension_name)
    # `GetOptions` is of the default pool's class, to which our extensions are unknown fields.
    serialized = descriptor.GetOptions().SerializeToString()
    # Not by `type(descriptor)`: these are classes of the C implementation, behind `isinstance`.
    options_class = next(found for kind, found in _OPTIONS.items() if isinstance(descriptor, kind))
    options: Any = options_class.FromString(serialized)
    if extension.is_repeated:
        values: Sequence[Any] = options.Extensions[extension]
        return values or None
    return options.Extensions[extension] if options.HasExtension(extension) else None
