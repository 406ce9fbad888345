"""The contract's descriptors and options, from the image that `buf build` makes.

The descriptor pool is private. Google's default pool belongs to the whole process, and a user who
has compiled `credit.proto` with protoc as well could then not import both.
"""

from collections.abc import Sequence
from importlib import resources
from typing import Any

import betterproto2
from google.protobuf.descriptor import EnumValueDescriptor, FieldDescriptor, MethodDescriptor
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


_FIELD_OPTIONS = message_class("google.protobuf.FieldOptions")
_ENUM_VALUE_OPTIONS = message_class("google.protobuf.EnumValueOptions")
_METHOD_OPTIONS = message_class("google.protobuf.MethodOptions")


def _options_class(
    descriptor: FieldDescriptor | EnumValueDescriptor | MethodDescriptor,
) -> type[Message]:
    if isinstance(descriptor, FieldDescriptor):
        return _FIELD_OPTIONS
    if isinstance(descriptor, EnumValueDescriptor):
        return _ENUM_VALUE_OPTIONS
    return _METHOD_OPTIONS


# Any: only the descriptors know the type of an extension's value.
def option(
    descriptor: FieldDescriptor | EnumValueDescriptor | MethodDescriptor, extension_name: str
) -> Any:
    """Reads one of the contract's own options.

    Args:
        descriptor: The field, enum value or method of `POOL` that carries the option.
        extension_name: The option's full name, such as `credit.options.v1.constraint`.

    Returns:
        The option's value, a sequence where the option is repeated, or None where it is not set.

    Raises:
        KeyError: The image has no such extension.
    """
    extension: Any = POOL.FindExtensionByName(extension_name)
    # `GetOptions` is of the default pool's class, to which our extensions are unknown fields.
    serialized = descriptor.GetOptions().SerializeToString()
    options = _options_class(descriptor).FromString(serialized)
    if extension.is_repeated:
        values: Sequence[Any] = options.Extensions[extension]
        return values or None
    return options.Extensions[extension] if options.HasExtension(extension) else None
