"""Copies the fields of a message between a betterproto2 dataclass and Google's message.

A field has an element (a scalar or a message) and a shape around it (single, repeated or map). Each
combination has one reader and one writer. `state_reader` and `state_writer` combine those of all
fields of a message.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import betterproto2
from google.protobuf.descriptor import FieldDescriptor

from credit_models.well_known import float32

# Any, in this file: Google's classes exist only at run time, and each field's values have a type
# of their own.
Convert = Callable[[Any], Any]
Read = Callable[[Any], Any]  # Google's message -> the field's Python value
Write = Callable[[Any, Any], None]  # the field's Python value, Google's message


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """An element that is a number, a string, bytes or an enum. None means no conversion."""

    read: Convert | None = None
    write: Convert | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """An element that is a message."""

    read: Convert  # Google's message -> the value
    write: Write  # the value, Google's empty message


Element = Scalar | Composite


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldConverter:
    """The reader and writer of one field."""

    name: str  # in the dataclass
    wire_name: str  # in Google's message
    read: Read  # of a field with explicit presence only if it is set
    write: Write
    unset: Callable[[], Any]  # makes the value of a field that is not set
    has_presence: bool
    # Whether `state_reader` or `state_writer` copies the field by an assignment, without a call of
    # `read` or `write`.
    is_read_copy: bool
    is_write_copy: bool
    convert: Convert | None  # what `state_reader` applies to a copied value


def map_value(field: FieldDescriptor) -> FieldDescriptor | None:
    """Return the value field of a map's entry, or None where the field is not a map.

    Descriptors represent a map as a repeated message with the option `map_entry`.
    """
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return None
    return entry.fields_by_name["value"]


def scalar(field: FieldDescriptor, enum_type: type[betterproto2.Enum] | None) -> Scalar:
    """Return the element of a field that contains no messages.

    Args:
        field: The field, or the value field of a map's entry.
        enum_type: The class of the field's values, or None where the field is not an enum.
    """
    if enum_type is not None:
        return Scalar(read=_Members(enum_type).__getitem__)
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return Scalar(write=float32)
    return Scalar()


class _Members(dict[int, betterproto2.Enum]):
    """The members of an enum by number, which is faster than calling the enum.

    Unknown numbers are not kept, because a peer can send arbitrarily many different ones.
    """

    def __init__(self, enum_type: type[betterproto2.Enum]) -> None:
        super().__init__({member.value: member for member in enum_type})
        self._enum_type = enum_type

    def __missing__(self, number: int) -> betterproto2.Enum:
        return self._enum_type(number)


def field_converter(field: FieldDescriptor, name: str, element: Element) -> FieldConverter:
    """Build the reader and the writer of a field.

    Args:
        field: The field.
        name: Its name in the dataclass, which differs where the name is a keyword of Python.
        element: What the field contains; the values where the field is a map.
    """
    is_single = False
    unset: Callable[[], Any]
    if map_value(field) is not None:
        read, write = _map_reader(field.name, element.read), _map_writer(field.name, element)
        unset = dict
    elif field.is_repeated:
        read, write = _list_reader(field.name, element.read), _list_writer(field.name, element)
        unset = list
    else:
        read, write = _single_reader(field.name, element.read), _single_writer(field, element)
        is_single = field.name == name
        unset = _unset_value(field, element.read)
    return FieldConverter(
        name=name,
        wire_name=field.name,
        read=read,
        write=write,
        unset=unset,
        has_presence=field.has_presence,
        is_read_copy=is_single,
        is_write_copy=is_single
        and not field.has_presence
        and isinstance(element, Scalar)
        and element.write is None,
        convert=element.read,
    )


def _unset_value(field: FieldDescriptor, convert: Convert | None) -> Callable[[], Any]:
    default = None if field.has_presence else field.default_value
    value = default if default is None or convert is None else convert(default)
    return lambda: value


def _single_reader(name: str, convert: Convert | None) -> Read:
    if convert is None:
        return attrgetter(name)
    convert_value = convert

    def read(source: Any) -> Any:
        return convert_value(getattr(source, name))

    return read


def _list_reader(name: str, convert: Convert | None) -> Read:
    def read(source: Any) -> list[Any]:
        values = getattr(source, name)
        if not values:  # the next line takes 5 times as long for an empty field
            return []
        return list(values) if convert is None else [convert(value) for value in values]

    return read


def _map_reader(name: str, convert: Convert | None) -> Read:
    def read(source: Any) -> dict[Any, Any]:
        values = getattr(source, name)
        if not values:  # the next lines take 5 times as long for an empty field
            return {}
        items = values.items()
        return dict(items) if convert is None else {key: convert(value) for key, value in items}

    return read


def _single_writer(field: FieldDescriptor, element: Element) -> Write:
    write = (
        _message_writer(field.name, element)
        if isinstance(element, Composite)
        else _scalar_writer(field.name, element)
    )

    def write_present(value: Any, target: Any) -> None:
        if value is not None:
            write(value, target)

    return write_present if field.has_presence else write


def _scalar_writer(name: str, element: Scalar) -> Write:
    convert = element.write

    def write(value: Any, target: Any) -> None:
        setattr(target, name, value if convert is None else convert(value))

    return write


def _message_writer(name: str, element: Composite) -> Write:
    def write(value: Any, target: Any) -> None:
        child = getattr(target, name)
        child.SetInParent()  # an empty message is set as well
        element.write(value, child)

    return write


def _list_writer(name: str, element: Element) -> Write:
    if isinstance(element, Composite):

        def write_messages(values: Any, target: Any) -> None:
            container = getattr(target, name)
            for value in values:
                element.write(value, container.add())

        return write_messages

    convert = element.write

    def write_scalars(values: Any, target: Any) -> None:
        getattr(target, name).extend(values if convert is None else map(convert, values))

    return write_scalars


def _map_writer(name: str, element: Element) -> Write:
    if isinstance(element, Composite):

        def write_messages(values: Any, target: Any) -> None:
            container = getattr(target, name)
            for key, value in values.items():
                element.write(value, container[key])

        return write_messages

    convert = element.write

    def write_scalars(values: Any, target: Any) -> None:
        container = getattr(target, name)
        for key, value in values.items():
            container[key] = value if convert is None else convert(value)

    return write_scalars


def state_reader(
    fields: tuple[FieldConverter, ...], oneofs: Mapping[str, Sequence[FieldConverter]]
) -> Read:
    """Return a function that returns the attributes of a dataclass for Google's message.

    The function is compiled from source, as `dataclasses` does: one dictionary of attributes reads
    a `CreditRequest` in half the time of a loop over its fields. A field that is not set costs one
    call of `HasField`, and a oneof one call of `WhichOneof`: an `Operation` has 12 fields in one.

    Args:
        fields: All fields.
        oneofs: The fields of each oneof, by its name.
    """
    members = {field.name for oneof in oneofs.values() for field in oneof}
    names: dict[str, Any] = {}
    parts = ["'_unknown_fields': b''"]
    for number, field in enumerate(fields):
        names |= {f"read_{number}": field.read, f"convert_{number}": field.convert}
        value = f"source.{field.name}" if field.is_read_copy else f"read_{number}(source)"
        if field.is_read_copy and field.convert is not None:
            value = f"convert_{number}({value})"
        if field.name in members:
            value = "None"
        elif field.has_presence:
            value = f"{value} if is_set({field.wire_name!r}) else None"
        parts.append(f"{field.name!r}: {value}")
    lines = ["def convert(source):", "    is_set = source.HasField"]
    lines.append(f"    state = {{{', '.join(parts)}}}")
    for number, (oneof, group) in enumerate(oneofs.items()):
        names[f"members_{number}"] = {field.wire_name: (field.name, field.read) for field in group}
        lines.append(f"    member = source.WhichOneof({oneof!r})")
        lines.append("    if member is not None:")
        lines.append(f"        name, read = members_{number}[member]")
        lines.append("        state[name] = read(source)")
    lines.append("    return state")
    convert: Read = _compiled("\n".join(lines), names)
    return convert


def state_writer(fields: tuple[FieldConverter, ...]) -> Write:
    """Return a function that sets the fields of Google's empty message from a dataclass.

    It is compiled as in `state_reader`. A value that is not set is skipped. Single values are
    compared with the unset value by identity, so that -0.0 is written, and an equal value of
    another type is rejected.
    """
    names: dict[str, Any] = {}
    lines = ["def convert(message, target):", "    pass"]
    for number, field in enumerate(fields):
        unset = field.unset()
        names |= {f"write_{number}": field.write, f"unset_{number}": unset}
        differs = "!=" if isinstance(unset, list | dict) else "is not"
        target = f"target.{field.name} = value"
        write = target if field.is_write_copy else f"write_{number}(value, target)"
        lines.append(f"    value = message.{field.name}")
        lines.append(f"    if value {differs} unset_{number}: {write}")
    convert: Write = _compiled("\n".join(lines), names)
    return convert


# Any: the source decides the type of the function.
def _compiled(source: str, names: dict[str, Any]) -> Any:
    # The source consists of the names of fields, which are identifiers.
    exec(source, names)  # noqa: S102
    return names["convert"]
