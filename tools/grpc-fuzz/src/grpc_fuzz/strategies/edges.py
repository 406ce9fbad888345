"""Numbers at the edges of bit widths and ranges, where bugs are likely."""

import math
import struct

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

INTEGER_RANGES: dict[int, tuple[int, int]] = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
}
FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)

# A varint grows by a byte at every 7 bits. The others are machine widths.
_BITS = (7, 8, 14, 15, 16, 21, 24, 28, 31, 32, 35, 42, 49, 53, 56, 63, 64)

# How far an unknown number is from the highest number of its enum.
_ENUM_STEP = 1_000

_FLOAT_EDGES = (
    0.0, -0.0, 1.0, -1.0, 0.1, 2.0**24 + 1, 2.0**53 + 1, 1.1754943508222875e-38, 5e-324,
    3.4028234663852886e38, 1.7976931348623157e308, math.inf, -math.inf, math.nan,
)  # fmt: skip


def integer_edges(low: int, high: int) -> tuple[int, ...]:
    """Return the edge cases of a range of integers: its ends, and around powers of two.

    Returns:
        At least one value, the smallest in magnitude first.
    """
    around = {edge + step for edge in (low, high, 0) for step in (-1, 0, 1)}
    for bits in _BITS:
        around |= {sign * 2**bits + step for sign in (1, -1) for step in (-1, 0, 1)}
    return tuple(sorted((value for value in around if low <= value <= high), key=_magnitude))


def float_edges(low: float | None, high: float | None, *, single: bool) -> tuple[float, ...]:
    """Return the edge cases of floating-point numbers within bounds.

    Args:
        low: The least value, or None. NaN and infinities are among the values only without bounds.
        high: The greatest value, or None.
        single: Whether the numbers have 32 bits.
    """
    ends = [bound for bound in (low, high) if bound is not None]
    values = [narrow(value) if single else value for value in (*_FLOAT_EDGES, *ends)]
    return tuple(
        value
        for value in values
        if (low is None or value >= low) and (high is None or value <= high)
    )


def narrow(value: float) -> float:
    """Return the nearest number of 32 bits, which is infinity beyond their range."""
    try:
        narrowed: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return narrowed


def unknown_numbers(enum: EnumDescriptor) -> tuple[int, ...]:
    """Return the unknown numbers that are sent for an enum; none if it is closed.

    Protobuf parses unknown numbers. A server may store one and return it later, so the numbers
    are few and far from those that a server makes: an unknown number in a response that is none of
    these comes from the server itself.
    """
    if enum.is_closed:
        return ()
    named = enum.values_by_number
    low, high = INTEGER_RANGES[FieldDescriptor.TYPE_ENUM]
    numbers = (min(max(named) + _ENUM_STEP, high - 1), high, low)
    return tuple(number for number in numbers if number not in named)


def _magnitude(value: int) -> tuple[int, bool]:
    return abs(value), value < 0
