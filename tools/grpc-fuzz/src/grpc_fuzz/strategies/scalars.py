"""Strategies for values of one field that is not a message, within its constraint."""

from dataclasses import replace
from typing import cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from grpc_fuzz.constraint import TEXT_RULES, Constraint, Scalar
from grpc_fuzz.strategies.edges import (
    FLOATS,
    INTEGER_RANGES,
    float_edges,
    integer_edges,
    narrow,
)

# Limits on the size of messages bound longer values.
LENGTH_MAX = 300
# How many integers at the start of a range are drawn often, so calls share users and keys.
_FIRST_INTEGERS = 3

# UTF-8 cannot encode surrogates. A string may hold everything else, NUL too.
CHARACTERS = st.characters(exclude_categories=["Cs"])
# NUL, a line feed, a space, composed and combining, invisible, right to left, a byte order mark,
# a noncharacter, three and four bytes of UTF-8.
AWKWARD = "\x00\n é\u0301\u200b\u202e\ufeff\uffff漢\U0001f600"


def scalars(field: FieldDescriptor, constraint: Constraint) -> SearchStrategy[Scalar]:
    """Return values of the field's type that keep the constraint.

    Args:
        field: A field that is not a message.
        constraint: The constraint of a single value. `required` excludes the zero value if the
            field has no explicit presence.
    """
    if constraint.one_of is not None:
        return st.sampled_from(
            [value for value in constraint.one_of if _allowed(value, constraint)]
        )
    values = _unrestricted(field, constraint)
    if constraint.none_of:
        values = values.filter(lambda value: value not in constraint.none_of)
    if constraint.required and not field.is_repeated and not field.has_presence:
        values = values.filter(lambda value: value != field.default_value)
    return values


def _allowed(value: Scalar, constraint: Constraint) -> bool:
    return not constraint.broken_by(value)


def _unrestricted(field: FieldDescriptor, constraint: Constraint) -> SearchStrategy[Scalar]:
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_ENUM:
        enum = cast(EnumDescriptor, field.enum_type)
        return st.sampled_from(sorted(enum.values_by_number, key=abs))
    if field.type in INTEGER_RANGES:
        return integers(field, constraint)
    if field.type in FLOATS:
        return floats(field, constraint)
    if field.type == FieldDescriptor.TYPE_STRING:
        return texts(constraint)
    return octets(constraint)


def integer_range(field: FieldDescriptor, constraint: Constraint) -> tuple[int, int]:
    """Return the range of the type, narrowed by the constraint."""
    low, high = INTEGER_RANGES[field.type]
    if constraint.minimum is not None:
        low = max(low, int(constraint.minimum))
    if constraint.maximum is not None:
        high = min(high, int(constraint.maximum))
    return low, high


def integers(field: FieldDescriptor, constraint: Constraint) -> SearchStrategy[int]:
    """Return integers, clustered near the start of the range and at bit edges."""
    low, high = integer_range(field, constraint)
    first = max(low, min(high, 0))
    few = st.integers(first, min(first + _FIRST_INTEGERS, high))
    return st.one_of(few, st.sampled_from(integer_edges(low, high)), st.integers(low, high))


def floats(field: FieldDescriptor, constraint: Constraint) -> SearchStrategy[float]:
    """Return floating-point numbers, clustered at edges. NaN is among them only without bounds."""
    low = None if constraint.minimum is None else float(constraint.minimum)
    high = None if constraint.maximum is None else float(constraint.maximum)
    single = field.type == FieldDescriptor.TYPE_FLOAT
    anything = st.floats(low, high)
    if single:
        # Rounding to 32 bits may exceed a bound.
        anything = anything.map(narrow).filter(lambda value: not constraint.broken_by(value))
    edges = float_edges(low, high, single=single)
    return st.one_of(st.sampled_from(edges), anything) if edges else anything


def texts(constraint: Constraint) -> SearchStrategy[str]:
    """Return strings, some with awkward characters, with lengths clustered at their bounds."""
    if constraint.text is not None:
        # Characters that break the rule are removed. A filter would discard too many strings.
        repaired = texts(replace(constraint, text=None)).map(TEXT_RULES[constraint.text].repair)
        return repaired.filter(lambda text: not constraint.broken_by(text))
    pattern = constraint.pattern or constraint.format_pattern
    if pattern is not None:
        matching = st.from_regex(pattern, fullmatch=True)
        return matching.filter(lambda text: not constraint.broken_by(text))
    low, high = length_range(constraint)
    anything = st.text(
        st.one_of(CHARACTERS, st.sampled_from(AWKWARD)), min_size=low, max_size=min(high, low + 40)
    )
    few = st.text("ab", min_size=low, max_size=min(high, low + 1))
    ends = st.sampled_from(sorted({low, high})).flatmap(_of_length)
    strings = st.one_of(few, anything, ends)
    if constraint.bytes_min is None and constraint.bytes_max is None:
        return strings
    return strings.filter(lambda text: not constraint.broken_by(text))


def _of_length(length: int) -> SearchStrategy[str]:
    return st.sampled_from("aé漢\U0001f600").map(lambda character: character * length)


def length_range(constraint: Constraint) -> tuple[int, int]:
    """Return the range of lengths of a string in code points, at most `LENGTH_MAX` if unbounded."""
    low = constraint.length_min or 0
    if constraint.bytes_min is not None:
        low = max(low, -(-constraint.bytes_min // 4))
    bounds = [bound for bound in (constraint.length_max, constraint.bytes_max) if bound is not None]
    return low, max(low, min(bounds, default=max(LENGTH_MAX, low)))


def octets(constraint: Constraint) -> SearchStrategy[bytes]:
    """Return byte strings, with lengths clustered at their bounds."""
    low = constraint.bytes_min or 0
    high = LENGTH_MAX if constraint.bytes_max is None else constraint.bytes_max
    high = max(low, high)
    ends = st.sampled_from(sorted({low, high})).flatmap(lambda size: st.just(b"\xff" * size))
    return st.one_of(st.binary(min_size=low, max_size=min(high, low + 40)), ends)
