"""Turns betterproto2's dataclasses into bytes and back, through protobuf's C parser (upb).

For each message type, Google's class is made from the descriptors and a reader and a writer are put
together for each field, all once. Writing sets the fields of Google's message in place: nested
messages need no copy then, and it was 1.2 times as fast as giving them to the constructor.
"""

from operator import attrgetter
from typing import Any, TypeVar

import betterproto2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from credit_models.errors import WireError
from credit_models.fields import (
    Composite,
    Element,
    FieldConverter,
    Read,
    field_converter,
    map_value,
    scalar,
)
from credit_models.image import full_names
from credit_models.widths import Widths
from credit_models.wrapped import WRAPPINGS

MessageType = TypeVar("MessageType", bound=betterproto2.Message)

# What upb and the conversions raise for a value that a field cannot take.
_REFUSALS = (TypeError, ValueError, OverflowError, AttributeError)


class Converter:
    """Reads and writes one message type.

    Args:
        message_type: betterproto2's class.
        descriptor: The message's descriptor.
    """

    def __init__(self, message_type: type[betterproto2.Message], descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.google_class = GetMessageClass(descriptor)
        self.message_type = message_type
        self._copied_names: tuple[str, ...] = ()
        self._copied_values: Read = lambda _source: ()
        self._others: tuple[FieldConverter, ...] = ()
        self._choices: tuple[tuple[str, ...], ...] = ()

    def set_fields(
        self, fields: tuple[FieldConverter, ...], choices: tuple[tuple[str, ...], ...]
    ) -> None:
        """Says how the fields are converted; a step of its own, as message types can be recursive.

        Args:
            fields: All fields.
            choices: For each oneof the names of its fields.
        """
        copied = tuple(field.name for field in fields if field.is_copy)
        if len(copied) > 1:  # of a single name, attrgetter would not make a tuple
            self._copied_names = copied
            self._copied_values = attrgetter(*copied)
        self._others = tuple(field for field in fields if field.name not in self._copied_names)
        self._choices = choices

    def read(self, source: Message) -> betterproto2.Message:
        """Makes a dataclass from Google's message.

        Raises:
            WireError: A Timestamp or Duration is out of its range.
        """
        # Past pydantic's constructor, which would check once more what upb has checked. All that it
        # and betterproto2 leave in an instance are the fields and `_unknown_fields`.
        message = object.__new__(self.message_type)
        state = message.__dict__
        state["_unknown_fields"] = b""
        state.update(zip(self._copied_names, self._copied_values(source), strict=True))
        for field in self._others:
            state[field.name] = field.read(source)
        return message

    def write(self, message: betterproto2.Message, target: Message) -> None:
        """Sets the fields of Google's empty message from a dataclass.

        Raises:
            WireError: A field has a value that its type cannot take, or a oneof has several.
            TypeError: The message is of another type.
        """
        if type(message) is not self.message_type:
            raise TypeError(f"{type(message).__name__} is not {self.message_type.__name__}")
        for choice in self._choices:
            if sum(getattr(message, name) is not None for name in choice) > 1:
                raise WireError(f"{self.descriptor.full_name} takes one of {', '.join(choice)}.")
        values = self._copied_values(message)
        name = ""
        try:
            for name, value in zip(self._copied_names, values, strict=True):
                setattr(target, name, value)
            for field in self._others:
                name = field.name
                field.write(getattr(message, name), target)
        except WireError:  # of a nested message, which is named already
            raise
        except _REFUSALS as error:
            path = f"{self.descriptor.full_name}.{name}"
            raise WireError(f"{path} has a value that its type cannot take.") from error


class Converters:
    """The codec of one schema: everything that protobuf's syntax "proto3" offers.

    Enums are open: an unknown number becomes a nameless member. Unknown fields are dropped.
    Reading ends at upb's limit of 100 nested messages, writing at Python's own limit of recursion.
    A datetime must have a time zone.

    Args:
        descriptors: The pool that holds the schema.
        messages: betterproto2's classes of the same schema, as the compiler registers them.

    Raises:
        KeyError: The pool lacks a message or a field: image and generated code are of different
            builds.
    """

    def __init__(self, descriptors: DescriptorPool, messages: betterproto2.MessagePool) -> None:
        self._by_type = {
            message_type: Converter(message_type, descriptors.FindMessageTypeByName(name))
            for message_type, name in full_names(messages).items()
        }
        self._by_name = {
            converter.descriptor.full_name: converter for converter in self._by_type.values()
        }
        self._widths = Widths()
        for converter in self._by_type.values():
            self._set_fields(converter)

    def encode(self, message: betterproto2.Message) -> bytes:
        """Writes a message as bytes.

        Raises:
            WireError: A field has a value that its type cannot take, a oneof has several values, or
                messages are nested too deeply.
            TypeError: The message is not of this schema.
        """
        converter = self._converter(type(message))
        target = converter.google_class()
        try:
            converter.write(message, target)
            return target.SerializeToString()
        except (EncodeError, RecursionError) as error:
            raise WireError(f"{converter.descriptor.full_name} is nested too deeply.") from error

    def decode(self, message_type: type[MessageType], data: bytes) -> MessageType:
        """Reads a message from bytes.

        Raises:
            WireError: The bytes are not a valid message of this type, or an integer does not fit
                its field.
            TypeError: The type is not of this schema.
        """
        converter = self._converter(message_type)
        try:
            source = converter.google_class.FromString(data)
        except DecodeError as error:
            name = converter.descriptor.full_name
            raise WireError(f"The bytes are not a valid {name}.") from error
        # Nothing was cut where protobuf writes the same bytes again, unknown fields included. That
        # is nearly always so, and adds 10 to 19 % to a read. A scan takes as long as six reads.
        if source.SerializeToString() != data:
            self._widths.check(converter.descriptor, data)
        return converter.read(source)  # type: ignore[return-value]  # `_by_type` pairs the two

    def _converter(self, message_type: type[betterproto2.Message]) -> Converter:
        converter = self._by_type.get(message_type)
        if converter is None:
            raise TypeError(f"{message_type.__name__} is not a message of this schema")
        return converter

    def _set_fields(self, converter: Converter) -> None:
        # Private, but it alone has betterproto2's lazy type hints resolved. Fields are matched by
        # number, as the compiler keeps names out of Python's way ("from" becomes "from_").
        # Any: mypy cannot bind betterproto2's kind of class property.
        message_type: Any = converter.message_type
        metadata = message_type._betterproto  # noqa: SLF001
        names = metadata.field_name_by_number
        fields = []
        for field in converter.descriptor.fields:
            name = names[field.number]
            value = map_value(field)
            if value is None:
                element = self._element(field, metadata.cls_by_field[name])
            else:
                element = self._element(value, metadata.cls_by_field[f"{name}.value"])
            fields.append(field_converter(field, name, element))
        choices = tuple(
            tuple(names[field.number] for field in oneof.fields)
            for oneof in converter.descriptor.oneofs
            if len(oneof.fields) > 1  # `optional` is a oneof of one field
        )
        converter.set_fields(tuple(fields), choices)

    def _element(self, field: FieldDescriptor, value_type: type) -> Element:
        if field.message_type is None:
            return scalar(field, value_type if issubclass(value_type, betterproto2.Enum) else None)
        name = field.message_type.full_name
        wrapping = WRAPPINGS.get(name)
        if wrapping is not None:
            return Composite(read=wrapping.read, write=wrapping.write)
        nested = self._by_name[name]
        return Composite(read=nested.read, write=nested.write)
