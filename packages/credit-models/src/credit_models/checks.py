"""Builds the check of one field from its constraint."""

import re
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from credit_models.text import Text, text_check

# Any, in this file: a value has the type of its field.
# A check returns None for a valid value, otherwise what the field accepts. It quotes at most one
# character of a string: one that is not allowed.
Check = Callable[[Any], str | None]

# A protobuf message is smaller than 2 GiB.
_SIZE_MAX = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """The bounds of one field; None means no bound. See `credit.options.v1.Constraint`."""

    minimum: int | None = None  # inclusive
    maximum: int | None = None  # inclusive
    length_min: int | None = None  # Unicode code points, inclusive
    length_max: int | None = None  # Unicode code points, inclusive
    pattern: str | None = None  # RE2's and Python's common syntax; for the whole string
    required: bool = False
    text: Text = Text.UNSPECIFIED
    items_min: int | None = None  # of a repeated field or a map, inclusive
    items_max: int | None = None  # of a repeated field or a map, inclusive
    keys: "Constraint | None" = None  # of a map
    values: "Constraint | None" = None  # of a map


def is_integer(constraint: Constraint) -> bool:
    """Return whether a constraint has bounds for an integer."""
    return constraint.minimum is not None or constraint.maximum is not None


def bounds_of(constraint: Constraint) -> tuple[int, int]:
    """Return the least and the greatest value of an integer, or length of a string or bytes."""
    if not is_integer(constraint):
        length_max = constraint.length_max
        return constraint.length_min or 0, _SIZE_MAX if length_max is None else length_max
    # The defaults are the bounds of all of protobuf's integer types.
    return (
        -(2**63) if constraint.minimum is None else constraint.minimum,
        2**64 - 1 if constraint.maximum is None else constraint.maximum,
    )


def field_check(constraint: Constraint, *, zero: object, explicit: bool) -> Check:
    """Build the check of one field.

    Args:
        constraint: What the field may contain.
        zero: The zero value of the field's type.
        explicit: Whether the field has explicit presence; an unset field is then None.
    """
    bounds = _bounds_check(constraint)
    required = "must be set" if constraint.required else None
    if required is not None and not explicit and is_integer(constraint):
        required = "must not be 0"

    def check_explicit(value: Any) -> str | None:
        return required if value is None else bounds(value)

    def check_implicit(value: Any) -> str | None:
        # The bounds give more detail than `required`, so they come first.
        return bounds(value) or (required if value == zero else None)

    if explicit:
        return check_explicit
    # Most bounds reject the zero value. Then no other check is needed.
    return bounds if required is None or bounds(zero) is not None else check_implicit


def size_check(constraint: Constraint) -> Check:
    """Build the check of the number of items of a repeated field or a map."""
    return _sizes_check(constraint.items_min, constraint.items_max, " items")


def map_check(constraint: Constraint) -> Check:
    """Build the check of a map: first the number of its items, then every key and value."""
    size = size_check(constraint)
    key = _bounds_check(constraint.keys or Constraint())
    value = _bounds_check(constraint.values or Constraint())

    def check(items: Mapping[Any, Any]) -> str | None:
        if (broken := size(items)) is not None:
            return broken
        for each in items:
            if (broken := key(each)) is not None:
                return f"keys {broken}"
        for each in items.values():
            if (broken := value(each)) is not None:
                return f"values {broken}"
        return None

    return check


def _bounds_check(constraint: Constraint) -> Check:
    if is_integer(constraint):
        return _integer_check(constraint)
    if constraint.items_min is not None or constraint.items_max is not None:
        return size_check(constraint)
    further = [
        check
        for check in (text_check(constraint.text), _pattern_check(constraint.pattern))
        if check is not None
    ]
    return _sizes_check(constraint.length_min, constraint.length_max, " characters", *further)


def _integer_check(constraint: Constraint) -> Check:
    least, greatest = bounds_of(constraint)
    accepted = _range(constraint.minimum, constraint.maximum, "")

    def check(value: int) -> str | None:
        return None if least <= value <= greatest else f"must be {accepted}, got {value}"

    return check


def _sizes_check(size_min: int | None, size_max: int | None, unit: str, *further: Check) -> Check:
    if size_min is None and size_max is None and not further:
        return lambda _value: None
    least, greatest = size_min or 0, _SIZE_MAX if size_max is None else size_max
    accepted = _range(size_min, size_max, unit)

    def check(value: Sized) -> str | None:
        # The size comes first: it bounds the cost of the other checks.
        size = len(value)
        if not least <= size <= greatest:
            return f"must be {accepted}, got {size}"
        for check_further in further:
            if (broken := check_further(value)) is not None:
                return broken
        return None

    return check


def _range(least: int | None, greatest: int | None, unit: str) -> str:
    if least is None:
        return f"at most {greatest}{unit}"
    if greatest is None:
        return f"at least {least}{unit}"
    return f"{least} to {greatest}{unit}"


def _pattern_check(pattern: str | None) -> Check | None:
    if pattern is None:
        return None
    # RE2's \d, \s and \w match ASCII only.
    expression = re.compile(pattern, re.ASCII)

    def check(value: str) -> str | None:
        return None if expression.fullmatch(value) else f"must match the pattern {pattern}"

    return check
