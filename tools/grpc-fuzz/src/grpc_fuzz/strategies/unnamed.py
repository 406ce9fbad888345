"""Values that travel as any other, but that their type gives no meaning.

Protobuf takes unknown numbers for enums, and any seconds and nanos for times. A server may store
such a value and answer it later, so the values are few, and far from those that a server makes up:
an unknown value in a response that is none of these comes from the server itself.
"""

from google.protobuf.descriptor import EnumDescriptor

# 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z; google/protobuf/timestamp.proto.
TIMESTAMP_SECONDS = (-62_135_596_800, 253_402_300_799)
# Ten thousand years; google/protobuf/duration.proto.
DURATION_SECONDS = 315_576_000_000
NANOS_MAX = 999_999_999

_INT32, _INT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
_STEP = 1_000

# Seconds and nanos. Each has one thing wrong.
TIMES_OUT_OF_RANGE: dict[str, tuple[tuple[int, int], ...]] = {
    "google.protobuf.Timestamp": (
        (TIMESTAMP_SECONDS[1] + 1, 0),
        (TIMESTAMP_SECONDS[0] - 1, 0),
        (0, NANOS_MAX + 1),
        (0, -1),
        *((seconds, 0) for seconds in _INT64),
        *((0, nanos) for nanos in _INT32),
    ),
    "google.protobuf.Duration": (
        (DURATION_SECONDS + 1, 0),
        (-DURATION_SECONDS - 1, 0),
        (0, NANOS_MAX + 1),
        (0, -NANOS_MAX - 1),
        (1, -1),
        (-1, 1),
        *((seconds, 0) for seconds in _INT64),
        *((0, nanos) for nanos in _INT32),
    ),
}


def unknown_numbers(enum: EnumDescriptor) -> tuple[int, ...]:
    """Return the numbers without a name that are sent for an enum; none where it is closed."""
    if enum.is_closed:
        return ()
    named = enum.values_by_number
    numbers = (min(max(named) + _STEP, _INT32[1] - 1), *reversed(_INT32))
    return tuple(number for number in numbers if number not in named)
