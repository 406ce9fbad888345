"""Find numbers and names that are reused, or could be.

This applies to retired releases too: bytes with the old meaning remain in files, queues and SDKs,
and a reader would take them for the new one without an error.
"""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto

from contract_check.image import Image
from contract_check.violation import Violation


def reuse_violations(before: Image, after: Image) -> Iterator[Violation]:
    """Compare the numbers and names of fields and enum values with those of an earlier image."""
    for name, old in before.messages.items():
        if name in after.messages:
            yield from _fields(after, old, after.messages[name])
    for name, old_enum in before.enums.items():
        if name in after.enums:
            yield from _values(after, old_enum, after.enums[name])


def _fields(after: Image, old: Descriptor, new: Descriptor) -> Iterator[Violation]:
    proto = DescriptorProto()
    new.CopyToProto(proto)
    # The end of a range is exclusive in messages.
    ranges = [range(reserved.start, reserved.end) for reserved in proto.reserved_range]
    for field in old.fields:
        heir = new.fields_by_number.get(field.number)
        namesake = new.fields_by_name.get(field.name)
        if heir is not None and _meaning(heir) != _meaning(field):
            yield _second_meaning("FIELD", after, heir.full_name, field.number, field.name)
        elif namesake is not None and namesake.number != field.number:
            yield _second_meaning("FIELD", after, namesake.full_name, field.number, field.name)
        elif heir is None and not (
            any(field.number in numbers for numbers in ranges) and field.name in proto.reserved_name
        ):
            yield _not_reserved("FIELD", after, new.full_name, field.number, field.name)


def _meaning(field: FieldDescriptor) -> tuple[str, int, str | None]:
    message = field.message_type
    return field.name, field.type, None if message is None else message.full_name


def _values(after: Image, old: EnumDescriptor, new: EnumDescriptor) -> Iterator[Violation]:
    proto = EnumDescriptorProto()
    new.CopyToProto(proto)
    # The end of a range is inclusive in enums.
    ranges = [range(reserved.start, reserved.end + 1) for reserved in proto.reserved_range]
    for value in old.values:
        heir = new.values_by_number.get(value.number)
        namesake = new.values_by_name.get(value.name)
        if heir is not None and heir.name != value.name:
            named = f"{new.full_name}.{heir.name}"
            yield _second_meaning("ENUM_VALUE", after, named, value.number, value.name)
        elif namesake is not None and namesake.number != value.number:
            named = f"{new.full_name}.{namesake.name}"
            yield _second_meaning("ENUM_VALUE", after, named, value.number, value.name)
        elif heir is None and not (
            any(value.number in numbers for numbers in ranges) and value.name in proto.reserved_name
        ):
            yield _not_reserved("ENUM_VALUE", after, new.full_name, value.number, value.name)


def _second_meaning(kind: str, after: Image, element: str, number: int, name: str) -> Violation:
    return Violation(
        rule=f"{kind}_REUSED",
        where=after.where(element),
        message=f'Number {number} or name "{name}" is reused with another meaning.',
    )


def _not_reserved(kind: str, after: Image, owner: str, number: int, name: str) -> Violation:
    return Violation(
        rule=f"{kind}_NOT_RESERVED",
        where=after.where(owner),
        message=f'Number {number} and name "{name}" of "{owner}" were removed and not reserved.',
    )
