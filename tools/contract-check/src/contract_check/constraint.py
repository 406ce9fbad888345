"""What one field may hold, with every bound made explicit so that two can be compared."""

from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from contract_check.image import Image

OPTION = "credit.options.v1.constraint"

_UNSIGNED = {FieldDescriptor.CPPTYPE_UINT32: 32, FieldDescriptor.CPPTYPE_UINT64: 64}
_SIGNED = {FieldDescriptor.CPPTYPE_INT32: 31, FieldDescriptor.CPPTYPE_INT64: 63}
# A message of protobuf is below 2 GiB, and so is a string in it.
_LENGTH_MAX = 2**31


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """What one field may hold. Bounds are inclusive; where none is set, those of its type stand.

    Attributes:
        minimum: The least integer.
        maximum: The greatest integer.
        length_min: The least number of characters.
        length_max: The greatest number of characters.
        pattern: What a whole string must match; empty where there is none.
        required: Whether the field must be set.
        text: The rule on the characters of a string; empty where there is none.
    """

    minimum: int
    maximum: int
    length_min: int
    length_max: int
    pattern: str
    required: bool
    text: str


def constraint_of(image: Image, field: FieldDescriptor) -> Constraint:
    """Reads a field's constraint; without one, it takes any value of its type."""
    least, greatest = _type_bounds(field)
    found = image.option(field, OPTION)
    if found is None:
        return Constraint(
            minimum=least,
            maximum=greatest,
            length_min=0,
            length_max=_LENGTH_MAX,
            pattern="",
            required=False,
            text="",
        )
    return Constraint(
        minimum=max(least, found.minimum) if found.HasField("minimum") else least,
        maximum=min(greatest, found.maximum) if found.HasField("maximum") else greatest,
        length_min=found.length_min,
        length_max=found.length_max if found.HasField("length_max") else _LENGTH_MAX,
        pattern=found.pattern,
        required=found.required,
        text=text_of(found),
    )


# Any: only the image knows the type of the option's value.
def text_of(option: Any) -> str:
    """Return the name of the rule on a string's characters, such as `TEXT_NAME`.

    Args:
        option: The value of the option `OPTION`.

    Returns:
        The name; empty where there is no rule, or where the image is older than the rules.
    """
    rules = option.DESCRIPTOR.fields_by_name.get("text")
    if rules is None or not option.text:
        return ""
    name: str = rules.enum_type.values_by_number[option.text].name
    return name


def refuses_unset(field: FieldDescriptor, constraint: Constraint) -> bool:
    """Whether a message is refused that says nothing of the field."""
    if constraint.required:
        return True
    if field.has_presence or field.is_repeated:
        return False
    # Without explicit presence, unset means the zero value. Of a pattern it is not tried whether
    # it matches the empty string: RE2 is not Python's.
    return constraint.minimum > 0 or constraint.length_min > 0 or constraint.pattern != ""


def _type_bounds(field: FieldDescriptor) -> tuple[int, int]:
    if field.cpp_type in _UNSIGNED:
        return 0, 2 ** _UNSIGNED[field.cpp_type] - 1
    bits = _SIGNED.get(field.cpp_type, 63)
    return -(2**bits), 2**bits - 1
