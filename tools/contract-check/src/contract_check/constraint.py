"""The constraint of a field, with every bound explicit so that two can be compared."""

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from contract_check.image import Image

OPTION = "credit.options.v1.constraint"

_UNSIGNED = {FieldDescriptor.CPPTYPE_UINT32: 32, FieldDescriptor.CPPTYPE_UINT64: 64}
_SIGNED = {FieldDescriptor.CPPTYPE_INT32: 31, FieldDescriptor.CPPTYPE_INT64: 63}
# A protobuf message is smaller than 2 GiB, so a string or a repeated field is smaller too.
_SIZE_MAX = 2**31


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """The values that a field may hold. Bounds are inclusive; unset ones are those of the type.

    Attributes:
        minimum: The least integer.
        maximum: The greatest integer.
        length_min: The least number of characters.
        length_max: The greatest number of characters.
        pattern: The pattern that a whole string must match; empty if there is none.
        required: Whether the field must be set.
        text: The rule on the characters of a string; empty if there is none.
        items_min: The least number of items of a repeated field or a map.
        items_max: The greatest number of items of a repeated field or a map.
        keys: The constraint of a map's keys; None if the field is not a map.
        values: The constraint of a map's values; None if the field is not a map.
    """

    minimum: int
    maximum: int
    length_min: int
    length_max: int
    pattern: str
    required: bool
    text: str
    items_min: int = 0
    items_max: int = _SIZE_MAX
    keys: "Constraint | None" = None
    values: "Constraint | None" = None


def constraint_of(image: Image, field: FieldDescriptor) -> Constraint:
    """Return a field's constraint; without the option, any value of its type is valid."""
    found = image.option(field, OPTION)
    constraint = _constraint(field, found)
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return constraint
    key, value = (entry.fields_by_name[name] for name in ("key", "value"))
    return replace(
        constraint,
        keys=_constraint(key, _defined(found, "keys", None)),
        values=_constraint(value, _defined(found, "values", None)),
    )


# Any: only the image knows the type of the option's value.
def _constraint(field: FieldDescriptor, found: Any) -> Constraint:
    least, greatest = _type_bounds(field)
    if found is None:
        return Constraint(
            minimum=least,
            maximum=greatest,
            length_min=0,
            length_max=_SIZE_MAX,
            pattern="",
            required=False,
            text="",
        )
    return Constraint(
        minimum=max(least, _defined(found, "signed_minimum", _defined(found, "minimum", least))),
        maximum=min(
            greatest, _defined(found, "signed_maximum", _defined(found, "maximum", greatest))
        ),
        length_min=found.length_min,
        length_max=found.length_max if found.HasField("length_max") else _SIZE_MAX,
        pattern=found.pattern,
        required=found.required,
        text=text_of(found),
        items_min=_defined(found, "items_min", 0),
        items_max=_defined(found, "items_max", _SIZE_MAX),
    )


# Any: only the image knows the type of the option's value.
def _defined(option: Any, name: str, otherwise: Any) -> Any:
    """Return a part of the option that is set, or else another value.

    Images of earlier releases do not define all parts.
    """
    if option is None or name not in option.DESCRIPTOR.fields_by_name:
        return otherwise
    return getattr(option, name) if option.HasField(name) else otherwise


# Any: only the image knows the type of the option's value.
def text_of(option: Any) -> str:
    """Return the name of the rule on a string's characters, such as `TEXT_NAME`.

    Args:
        option: The value of the option `OPTION`.

    Returns:
        The name; empty if there is no rule, or if the image is older than the rules.
    """
    rules = option.DESCRIPTOR.fields_by_name.get("text")
    if rules is None or not option.text:
        return ""
    name: str = rules.enum_type.values_by_number[option.text].name
    return name


def rejects_unset(field: FieldDescriptor, constraint: Constraint) -> bool:
    """Return whether a message that leaves the field unset is rejected."""
    if constraint.required:
        return True
    if field.is_repeated:
        return constraint.items_min > 0
    if field.has_presence:
        return False
    # Without explicit presence, unset means the zero value. Whether a pattern matches the empty
    # string is not tried, because RE2 differs from Python's `re`.
    return constraint.minimum > 0 or constraint.length_min > 0 or constraint.pattern != ""


def _type_bounds(field: FieldDescriptor) -> tuple[int, int]:
    if field.cpp_type in _UNSIGNED:
        return 0, 2 ** _UNSIGNED[field.cpp_type] - 1
    bits = _SIGNED.get(field.cpp_type, 63)
    return -(2**bits), 2**bits - 1
