"""Converts Google's well-known types that betterproto2 represents as plain Python values.

The ranges come from `google/protobuf/timestamp.proto` and `duration.proto`. Python counts
microseconds, so reading truncates nanoseconds towards zero, as Google's own `ToDatetime` and
`ToTimedelta` do.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from credit_models.errors import Violation, WireError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP_SECONDS_MIN = -62_135_596_800  # 0001-01-01T00:00:00Z
_TIMESTAMP_SECONDS_MAX = 253_402_300_799  # 9999-12-31T23:59:59Z
_DURATION_SECONDS_MAX = 315_576_000_000  # about 10,000 years, in both directions
_NANOSECONDS_PER_SECOND = 1_000_000_000
_MICROSECOND = timedelta(microseconds=1)


class OutOfRange(WireError):
    """A Timestamp or Duration is outside its range."""


# Any: Google's classes exist only at run time, and a value's type depends on the message.
@dataclass(frozen=True, slots=True, kw_only=True)
class WellKnownType:
    """The conversion of one well-known type to a Python value and back."""

    read: Callable[[Any], Any]  # Google's message -> the value
    write: Callable[[Any, Any], None]  # the value, Google's empty message


def float32(value: float) -> float:
    """Check that a value fits a `float` field, and return it.

    Args:
        value: Any number; NaN and the infinities are valid.

    Returns:
        The same value; protobuf rounds it.

    Raises:
        OverflowError: The value is finite and outside the range of 32 bits, for which protobuf
            writes infinity without an error.
    """
    struct.pack("<f", value)
    return value


def _read_timestamp(source: Any) -> datetime:
    seconds, nanos = source.seconds, source.nanos
    if not (
        _TIMESTAMP_SECONDS_MIN <= seconds <= _TIMESTAMP_SECONDS_MAX
        and 0 <= nanos < _NANOSECONDS_PER_SECOND
    ):
        raise OutOfRange("A google.protobuf.Timestamp is outside the years 0001 to 9999.")
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)


def _write_timestamp(value: datetime, target: Any) -> None:
    # The value is not converted to UTC first, because that fails close to the years 1 and 9999.
    # The subtraction raises for a datetime without a time zone.
    offset = value - _EPOCH
    seconds = offset.days * 86_400 + offset.seconds
    if not _TIMESTAMP_SECONDS_MIN <= seconds <= _TIMESTAMP_SECONDS_MAX:
        raise ValueError("datetime outside the years 1 to 9999 in UTC")
    target.seconds = seconds
    target.nanos = offset.microseconds * 1000


def _read_duration(source: Any) -> timedelta:
    seconds, nanos = source.seconds, source.nanos
    signs_agree = seconds == 0 or nanos == 0 or (seconds < 0) == (nanos < 0)
    in_range = abs(seconds) <= _DURATION_SECONDS_MAX and abs(nanos) < _NANOSECONDS_PER_SECOND
    if not (signs_agree and in_range):
        raise OutOfRange("A google.protobuf.Duration is outside its range or has mixed signs.")
    microseconds = nanos // 1000 if nanos >= 0 else -(-nanos // 1000)
    return timedelta(seconds=seconds, microseconds=microseconds)


def _write_duration(value: timedelta, target: Any) -> None:
    seconds, microseconds = divmod(abs(value) // _MICROSECOND, 1_000_000)
    if seconds > _DURATION_SECONDS_MAX:
        raise ValueError("timedelta beyond 10,000 years")
    sign = -1 if value < timedelta(0) else 1
    target.seconds = sign * seconds
    target.nanos = sign * microseconds * 1000


def _read_value(source: Any) -> Any:
    return source.value


def _write_value(value: Any, target: Any) -> None:
    target.value = value


def _write_float32(value: float, target: Any) -> None:
    target.value = float32(value)


_PLAIN = WellKnownType(read=_read_value, write=_write_value)

# By the message's full name. The compiler converts the same set of types.
WELL_KNOWN_TYPES: Mapping[str, WellKnownType] = {
    "google.protobuf.Timestamp": WellKnownType(read=_read_timestamp, write=_write_timestamp),
    "google.protobuf.Duration": WellKnownType(read=_read_duration, write=_write_duration),
    "google.protobuf.FloatValue": WellKnownType(read=_read_value, write=_write_float32),
    "google.protobuf.DoubleValue": _PLAIN,
    "google.protobuf.Int32Value": _PLAIN,
    "google.protobuf.Int64Value": _PLAIN,
    "google.protobuf.UInt32Value": _PLAIN,
    "google.protobuf.UInt64Value": _PLAIN,
    "google.protobuf.BoolValue": _PLAIN,
    "google.protobuf.StringValue": _PLAIN,
    "google.protobuf.BytesValue": _PLAIN,
}

_RANGES = {
    "google.protobuf.Timestamp": "must be in the years 0001 to 9999",
    "google.protobuf.Duration": "must be within 10,000 years, with signs that agree",
}


def remove_out_of_range(message: Message, path: str = "") -> list[Violation]:
    """Remove the Timestamps and Durations outside their ranges from a message.

    Args:
        message: A message of Google's class.
        path: Where the message is in another one; it ends with a dot unless it is empty.

    Returns:
        The fields that were removed, in the message's order.
    """
    removed: list[Violation] = []
    for field, value in message.ListFields():
        nested = field.message_type
        if nested is None or nested.GetOptions().map_entry:
            continue
        items = value if field.is_repeated else [value]
        if nested.full_name in _RANGES:
            if any(_is_out_of_range(nested.full_name, item) for item in items):
                description = _RANGES[nested.full_name]
                removed.append(Violation(field=path + field.name, description=description))
                message.ClearField(field.name)
            continue
        for position, item in enumerate(items):
            index = f"[{position}]" if field.is_repeated else ""
            removed += remove_out_of_range(item, f"{path}{field.name}{index}.")
    return removed


def _is_out_of_range(full_name: str, value: Message) -> bool:
    try:
        WELL_KNOWN_TYPES[full_name].read(value)
    except OutOfRange:
        return True
    return False
