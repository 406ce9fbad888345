"""Finds integers on the wire that are outside the range of their fields' types.

protobuf's parsers truncate such integers without an error: a `uint32` of 2**32 + 5 is read as 5,
and a -5 that was written as an `int64` is read by a `uint32` as 4294967291. A ledger must not take
the result for an amount of credits or for a user's id. The check therefore runs before values are
read.

An integer fits if a conforming encoder writes it for some value of the type
(https://protobuf.dev/programming-guides/encoding/):

- `uint32` and, in zigzag, `sint32`: 32 bits
- `int32` and enums: 0 to 2**31 - 1, or the sign-extended 64 bits of a negative number
- `bool`: 0 or 1
- all others: 64 bits

An `int32` of 2**31 to 2**32 - 1 therefore does not fit: some parsers read it as a negative number,
and a parser of `int64` does not. An encoding that is longer than necessary fits if its value fits.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from credit_models.errors import Violation, WireError

# The maximum number of varints that a scan of one message reads: up to 40 ms of one core, whatever
# a client sends. The largest message of the contract, `BatchWriteRequest` with 1000 operations, has
# 64,002 with `CaptureHoldRequest`s: tag and length of each operation, of its request and of 16
# entries of `metadata`, tag and value or length of 14 fields. A message in the form that protobuf
# itself writes is not scanned and may have any number. Messages with several entries in a map are
# scanned: protobuf writes these in any order.
VARINTS_MAX = 65_000

# The maximum number of fields that one error names.
_NAMED_MAX = 16

# The encoding's wire types; the last one is 5, FIXED32.
_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END = range(5)

_VARINT_BYTES_MAX = 10
_TAGS = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Integer:
    """An integer type: the value that a varint's bits represent, and the range of values."""

    value: Callable[[int], int]
    least: int
    greatest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """A field that contains integers, or a message that contains them at any depth."""

    name: str
    is_repeated: bool
    integer: _Integer | None
    message: Descriptor | None


def _unsigned(bits: int) -> int:
    return bits


def _signed(bits: int) -> int:
    return bits - 2**64 if 2**63 <= bits < 2**64 else bits


def _zigzag(bits: int) -> int:
    return (bits >> 1) ^ -(bits & 1)


_INT32 = _Integer(value=_signed, least=-(2**31), greatest=2**31 - 1)
_INTEGERS = {
    FieldDescriptor.TYPE_BOOL: _Integer(value=_unsigned, least=0, greatest=1),
    FieldDescriptor.TYPE_ENUM: _INT32,
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_INT64: _Integer(value=_signed, least=-(2**63), greatest=2**63 - 1),
    FieldDescriptor.TYPE_UINT32: _Integer(value=_unsigned, least=0, greatest=2**32 - 1),
    FieldDescriptor.TYPE_UINT64: _Integer(value=_unsigned, least=0, greatest=2**64 - 1),
    FieldDescriptor.TYPE_SINT32: _Integer(value=_zigzag, least=-(2**31), greatest=2**31 - 1),
    FieldDescriptor.TYPE_SINT64: _Integer(value=_zigzag, least=-(2**63), greatest=2**63 - 1),
}


class IntegerRanges:
    """The check of all message types of a schema; it caches which fields contain integers."""

    def __init__(self) -> None:
        self._fields: dict[Descriptor, dict[int, _Field]] = {}

    def check(self, descriptor: Descriptor, data: bytes) -> None:
        """Reject a message with an integer that does not fit its field.

        Every record of a field is checked, even if a later record of the same field replaces it.

        Args:
            descriptor: The message's type.
            data: Bytes of the message that protobuf's parser has accepted.

        Raises:
            WireError: An integer does not fit its field, which `violations` names; the message has
                more than `VARINTS_MAX` varints; or its bytes are ambiguous to other parsers.
        """
        violations = self.violations(descriptor, data)[:_NAMED_MAX]
        if violations:
            named = "; ".join(f"{one.field} {one.description}" for one in violations)
            raise WireError(f"{descriptor.full_name}: {named}.", violations=violations)

    def violations(self, descriptor: Descriptor, data: bytes) -> tuple[Violation, ...]:
        """Return all integers of a message that do not fit their fields.

        Args:
            descriptor: The message's type.
            data: Bytes of the message that protobuf's parser has accepted.

        Raises:
            WireError: As in `check`, except for integers that do not fit.
        """
        scan = _Scan(self, descriptor.full_name, data)
        scan.message(descriptor, 0, len(data), "")
        return tuple(
            Violation(field=field, description=description)
            for field, description in scan.found.items()
        )

    def fields_of(self, descriptor: Descriptor) -> dict[int, _Field]:
        """Return the fields of a message type that contain integers at any depth, by number."""
        found = self._fields.get(descriptor)
        if found is None:
            found = self._fields[descriptor] = {
                field.number: _Field(
                    name=field.name,
                    is_repeated=field.is_repeated,
                    integer=_INTEGERS.get(field.type),
                    message=field.message_type,
                )
                for field in descriptor.fields
                if field.type in _INTEGERS
                or (field.message_type is not None and _contains_integers(field.message_type))
            }
        return found


def _contains_integers(descriptor: Descriptor) -> bool:
    """Return whether a message type, or one nested in it at any depth, has a field of integers."""
    waiting, seen = [descriptor], {descriptor}
    while waiting:
        for field in waiting.pop().fields:
            if field.type in _INTEGERS:
                return True
            nested = field.message_type
            if nested is not None and nested not in seen:
                seen.add(nested)
                waiting.append(nested)
    return False


def _name(path: str, field: _Field, counts: Counter[str]) -> str:
    """Return the name of a field's next value, such as `balances[1]`, and count the value."""
    if not field.is_repeated:
        return path + field.name
    counts[field.name] += 1
    return f"{path}{field.name}[{counts[field.name] - 1}]"


class _Scan:
    """One pass over the bytes of a message.

    Attributes:
        found: The names of the fields with an integer that does not fit, each with its range.
    """

    def __init__(self, ranges: IntegerRanges, full_name: str, data: bytes) -> None:
        self.found: dict[str, str] = {}
        self._ranges = ranges
        self._full_name = full_name
        self._data = data
        self._varints = 0

    def message(self, descriptor: Descriptor, start: int, end: int, path: str) -> None:
        """Check the fields of a message, which may be nested in the one that was sent."""
        fields = self._ranges.fields_of(descriptor)
        counts: Counter[str] = Counter()
        for number, wire_type, bits, first, last in self._records(start, end):
            field = fields.get(number)
            if field is None:
                continue
            if field.message is not None and wire_type == _LENGTH:
                self.message(field.message, first, last, f"{_name(path, field, counts)}.")
            elif field.integer is not None and wire_type == _VARINT:
                self._integer(field.integer, bits, _name(path, field, counts))
            elif field.integer is not None and wire_type == _LENGTH and field.is_repeated:
                position = first
                while position < last:
                    item, position = self._varint(position, last)
                    self._integer(field.integer, item, _name(path, field, counts))

    def _integer(self, integer: _Integer, bits: int, name: str) -> None:
        value = integer.value(bits)
        if not integer.least <= value <= integer.greatest:
            self.found[name] = f"must be {integer.least} to {integer.greatest}, got {value}"

    def _records(self, position: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield number, wire type, varint, start and end of each record outside groups.

        Bytes that another parser might read differently are rejected: no parser must find a field
        where this one finds none.
        """
        # proto3 has no groups, so the content of an open group belongs to no field.
        groups = 0
        while position < end:
            tag, position = self._varint(position, end)
            wire_type, start, bits = tag & 7, position, 0
            if wire_type == _VARINT:
                bits, position = self._varint(position, end)
            elif wire_type == _LENGTH:
                bits, start = self._varint(position, end)
                position = start + bits
            elif wire_type == _GROUP:
                groups += 1
            elif wire_type == _GROUP_END:
                groups -= 1
            else:
                position += 8 if wire_type == _FIXED64 else 4
            if position > end or tag >= _TAGS:
                raise self._invalid()
            if groups == 0 and wire_type != _GROUP_END:
                yield tag >> 3, wire_type, bits, start, position
        if groups != 0:
            raise self._invalid()

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        """Return the bits of a varint, at most 70, and its end."""
        self._varints += 1
        if position < end and self._data[position] < 0x80 and self._varints <= VARINTS_MAX:
            return self._data[position], position + 1  # most have one byte
        if self._varints > VARINTS_MAX:
            raise WireError(
                f"{self._full_name} has more than {VARINTS_MAX} varints, and its bytes are not in"
                " the form that protobuf itself writes."
            )
        bits = 0
        for shift, byte in enumerate(self._data[position : min(end, position + _VARINT_BYTES_MAX)]):
            bits |= (byte & 0x7F) << 7 * shift
            if byte < 0x80:
                return bits, position + shift + 1
        raise self._invalid()

    def _invalid(self) -> WireError:
        return WireError(f"The bytes are not a valid {self._full_name}.")
