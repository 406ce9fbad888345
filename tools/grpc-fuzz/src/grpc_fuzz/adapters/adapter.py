"""The interface of an adapter, and the reader of options that adapters use."""

from typing import Any, Protocol

from google.protobuf.descriptor import (
    EnumValueDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    OneofDescriptor,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from grpc_fuzz.constraint import Constraint
from grpc_fuzz.model import DeclaredError

Descriptor = FieldDescriptor | EnumValueDescriptor | MethodDescriptor | OneofDescriptor

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
    def read(self, descriptor: Descriptor, extension: str) -> Any:
        """Read one extension.

        Args:
            descriptor: What carries the option.
            extension: The full name of the option.

        Returns:
            The value, which is a sequence for a repeated option; None if the option is not set or
            the contract does not define it.
        """
        try:
            field: Any = self._pool.FindExtensionByName(extension)
            options_type = self._pool.FindMessageTypeByName(_options_message(descriptor))
        except KeyError:
            return None
        # The options class of the default pool keeps the contract's extensions as unknown fields.
        # The class of the contract's own pool reads them.
        options = GetMessageClass(options_type).FromString(
            descriptor.GetOptions().SerializeToString()
        )
        if field.is_repeated:
            return options.Extensions[field] or None
        return options.Extensions[field] if options.HasExtension(field) else None


def _options_message(descriptor: Descriptor) -> str:
    return next(name for kind, name in _OPTIONS_MESSAGES if isinstance(descriptor, kind))


class Adapter(Protocol):
    """Reads one family of options. Without such options it returns None or False."""

    def constraint(self, field: FieldDescriptor, options: Options) -> Constraint | None:
        """Return the constraint of a field."""

    def oneof_required(self, oneof: OneofDescriptor, options: Options) -> bool:
        """Return whether one of the members must be set."""

    def errors(
        self, method: MethodDescriptor, options: Options
    ) -> tuple[DeclaredError, ...] | None:
        """Return the errors that a method declares."""
