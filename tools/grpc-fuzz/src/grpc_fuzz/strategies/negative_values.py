"""Strategies for values of one field that break one rule of its constraint."""

import math
from collections.abc import Iterator
from typing import cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from grpc_fuzz.constraint import TEXT_RULES, Constraint, Scalar, TextRule
from grpc_fuzz.strategies.edges import FLOATS, INTEGER_RANGES, integer_edges
from grpc_fuzz.strategies.scalars import CHARACTERS, LENGTH_MAX

_Values = Iterator[tuple[str, SearchStrategy[Scalar]]]

# Greater limits on length are not tested, because the strings would be too long.
_LENGTH_TESTED_MAX = 100_000


def negative_values(field: FieldDescriptor, constraint: Constraint) -> _Values:
    """Yield each rule of a constraint that the type of a field can break, with values that do.

    Args:
        field: A field that is not a message. Whether it is repeated does not matter.
        constraint: The constraint of a single value.
    """
    if field.type == FieldDescriptor.TYPE_ENUM:
        yield from _enum(field, constraint)
    elif field.type in INTEGER_RANGES:
        yield from _integer(field, constraint)
    elif field.type in FLOATS:
        yield from _float(constraint)
    elif field.type == FieldDescriptor.TYPE_STRING:
        yield from _text(constraint)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        yield from _octets(constraint)
    yield from _lists(field, constraint)


def _integer(field: FieldDescriptor, constraint: Constraint) -> _Values:
    low, high = INTEGER_RANGES[field.type]
    if constraint.minimum is not None and constraint.minimum > low:
        yield "minimum", _between(low, int(constraint.minimum) - 1)
    if constraint.maximum is not None and constraint.maximum < high:
        yield "maximum", _between(int(constraint.maximum) + 1, high)


def _between(low: int, high: int) -> SearchStrategy[int]:
    return st.one_of(st.sampled_from(integer_edges(low, high)), st.integers(low, high))


def _float(constraint: Constraint) -> _Values:
    if constraint.minimum is not None:
        below = math.nextafter(float(constraint.minimum), -math.inf)
        low = min(float(constraint.minimum) - 1, below)
        yield "minimum", st.sampled_from([low, -math.inf, math.nan])
    if constraint.maximum is not None:
        high = float(constraint.maximum) + max(1, abs(float(constraint.maximum)) * 1e-3)
        yield "maximum", st.sampled_from([high, math.inf, math.nan])


def _enum(field: FieldDescriptor, constraint: Constraint) -> _Values:
    enum = cast(EnumDescriptor, field.enum_type)
    if constraint.defined_only and not enum.is_closed:
        yield "defined_only", _unknown_numbers(enum)


def _unknown_numbers(enum: EnumDescriptor) -> SearchStrategy[int]:
    """Return numbers that the enum does not name, at bit edges and next to those that it names."""
    named = set(enum.values_by_number)
    low, high = INTEGER_RANGES[FieldDescriptor.TYPE_ENUM]
    near = [max(named) + 1, *integer_edges(low, high)]
    return st.sampled_from([number for number in near if number not in named and number <= high])


def _text(constraint: Constraint) -> _Values:
    if constraint.length_min:
        yield "length_min", st.text(CHARACTERS, max_size=constraint.length_min - 1)
    if constraint.length_max is not None and constraint.length_max < _LENGTH_TESTED_MAX:
        yield "length_max", _longer(constraint.length_max)
    if constraint.bytes_min:
        yield "bytes_min", st.text("ab", max_size=constraint.bytes_min - 1)
    if constraint.bytes_max is not None and constraint.bytes_max < _LENGTH_TESTED_MAX:
        yield "bytes_max", _longer(constraint.bytes_max)
    if constraint.pattern is not None:
        tried = st.text(CHARACTERS, min_size=constraint.length_min or 0, max_size=LENGTH_MAX)
        yield "pattern", tried.filter(lambda text: "pattern" in constraint.broken_by(text))
    if constraint.text is not None:
        yield from _negative_texts(constraint, TEXT_RULES[constraint.text])


def _negative_texts(constraint: Constraint, rule: TextRule) -> _Values:
    # The length of the strings is valid.
    length = constraint.length_min or 0
    texts = [text.replace("a", "a" * max(1, length - len(text) + 1)) for text in rule.violations]
    negative = [text for text in texts if constraint.broken_by(text) == ("text",)]
    if negative:
        yield "text", st.sampled_from(negative)


def _longer(length: int) -> SearchStrategy[str]:
    """Return longer strings. The first is one character too long, to find off-by-one errors."""
    extra = st.sampled_from([1, 2, length + 1])
    # Characters of several bytes distinguish a limit in code points from one in bytes.
    return st.builds(
        lambda character, more: character * (length + more), st.sampled_from("aé\U0001f600"), extra
    )


def _octets(constraint: Constraint) -> _Values:
    if constraint.bytes_min:
        yield "bytes_min", st.binary(max_size=constraint.bytes_min - 1)
    if constraint.bytes_max is not None and constraint.bytes_max < _LENGTH_TESTED_MAX:
        size = constraint.bytes_max
        yield (
            "bytes_max",
            st.sampled_from([1, 2, size + 1]).map(lambda more: b"\xff" * (size + more)),
        )


def _lists(field: FieldDescriptor, constraint: Constraint) -> _Values:
    if constraint.none_of:
        yield "none_of", st.sampled_from(constraint.none_of)
    if constraint.one_of is None:
        return
    others = _others(field, constraint.one_of)
    if others:
        yield "one_of", st.sampled_from(others)


def _others(field: FieldDescriptor, allowed: tuple[Scalar, ...]) -> list[Scalar]:
    candidates: list[Scalar]
    if field.type == FieldDescriptor.TYPE_STRING:
        candidates = ["", "?", *(f"{value}?" for value in allowed if isinstance(value, str))]
    elif field.type == FieldDescriptor.TYPE_BYTES:
        candidates = [b"", b"?"]
    elif field.type == FieldDescriptor.TYPE_BOOL:
        candidates = [False, True]
    elif field.type in FLOATS:
        candidates = [0.0, 1.5, -1.5]
    else:
        candidates = [*integer_edges(*INTEGER_RANGES[field.type])]
    return [value for value in candidates if value not in allowed]
