"""Reading extensions of descriptor options from a private descriptor pool."""

from typing import Any

from google.protobuf.descriptor import (
    EnumValueDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    OneofDescriptor,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

Described = FieldDescriptor | EnumValueDescriptor | MethodDescriptor | OneofDescriptor

_OPTIONS_MESSAGES: tuple[tuple[type, str], ...] = (
    (FieldDescriptor, "google.protobuf.FieldOptions"),
    (EnumValueDescriptor, "google.protobuf.EnumValueOptions"),
    (MethodDescriptor, "google.protobuf.MethodOptions"),
    (OneofDescriptor, "google.protobuf.OneofOptions"),
)


class Options:
    """The options of one contract."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    # Any: only the image knows the type of an extension's value.
    def read(self, descriptor: Described, extension: str) -> Any:
        """Reads one extension.

        Args:
            descriptor: What carries the option.
            extension: The option's full name.

        Returns:
            The value, a sequence where the option is repeated, or None where it is not set or the
            contract has no such option.
        """
        try:
            field: Any = self._pool.FindExtensionByName(extension)
            options_type = self._pool.FindMessageTypeByName(_options_message(descriptor))
        except KeyError:
            return None
        # Options of the default pool's class keep our extensions as unknown fields; the private
        # pool's class reads them.
        options = GetMessageClass(options_type).FromString(
            descriptor.GetOptions().SerializeToString()
        )
        if field.is_repeated:
            return options.Extensions[field] or None
        return options.Extensions[field] if options.HasExtension(field) else None


def _options_message(descriptor: Described) -> str:
    return next(name for kind, name in _OPTIONS_MESSAGES if isinstance(descriptor, kind))
