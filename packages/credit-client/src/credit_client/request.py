"""What a call sends: a checked request and a request id."""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple, TypeVar

import betterproto2
from credit_models.constraints import Violation, describe, violations

from credit_client.errors import InvalidField

RequestT = TypeVar("RequestT", bound=betterproto2.Message)

# The value of each field. A mapping holds the fields of a nested message, or a map of strings.
Values = Mapping[str, object]

# The fields whose value may also be the text that identifies a user: `directory` replaces it.
NAMED_BY_TEXT = frozenset({"user_id", "to_user_id"})

_SECOND = timedelta(seconds=1)

# The ids that the server writes to its logs. It replaces any other id with one of its own.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_given_id: ContextVar[str | None] = ContextVar("credit_client.request_id", default=None)


def build(message_type: type[RequestT], values: Values) -> RequestT:
    """Build a valid request: the server's own rules are checked before anything is sent.

    Args:
        message_type: The request's class.
        values: A value for each field; None leaves an optional field unset. The value of a field
            `…_seconds` may be a timedelta, under the name without `_seconds`.

    Raises:
        InvalidField: Values break the contract's constraints. The error names all broken fields,
            as the server would.
        TypeError: A value has another type than its field, or is None where the field is required,
            or there is no such field.
    """
    request: RequestT = message_type()
    unencodable = _assign(request, values)
    broken = violations(request)
    if unencodable:
        named = {violation.field for violation in broken}
        broken += tuple(found for found in unencodable if found.field not in named)
    if broken:
        raise InvalidField(describe(broken), violations=broken, request_id=given_request_id())
    return request


@contextmanager
def request_id(name: str) -> Iterator[str]:
    """Give all calls inside a `with` block one request id, instead of a new one for each call.

    Use it where the app has an id already, such as that of a request that the app serves. The id
    applies to the current task and to the tasks that are started inside the block. Outside such a
    block each call gets a UUID.

    Args:
        name: 1 to 128 letters, digits, dots, underscores and hyphens.

    Raises:
        ValueError: The name has another form.
    """
    if _REQUEST_ID.fullmatch(name) is None:
        raise ValueError(
            "a request id has 1 to 128 letters, digits, dots, underscores and hyphens,"
            f" and {name!r} does not"
        )
    before = _given_id.set(name)
    try:
        yield name
    finally:
        _given_id.reset(before)


def current_request_id() -> str:
    """Return the id for a call that begins now: the one that the app has given, or a new one."""
    return _given_id.get() or uuid.uuid4().hex


def given_request_id() -> str | None:
    """Return the id that the app has given, or None.

    The error of a request that is rejected before its call begins carries this id. A new id would
    be found in no log.
    """
    return _given_id.get()


class _Field(NamedTuple):
    """A field of a request.

    Attributes:
        argument: The type of its value in `Values`.
        bounds: The least and the greatest integer that can be encoded; None for other types.
        optional: Whether it may be unset.
        message: The class of a nested message; None for other fields.
        items: The type of each item of a repeated field; None for other fields.
    """

    argument: type
    bounds: tuple[int, int] | None
    optional: bool
    message: type[betterproto2.Message] | None
    items: type | None


_BOUNDS = {
    betterproto2.TYPE_UINT32: (0, 2**32 - 1),
    betterproto2.TYPE_UINT64: (0, 2**64 - 1),
    betterproto2.TYPE_SINT64: (-(2**63), 2**63 - 1),
}


@cache
def fields_of(message_type: type[betterproto2.Message]) -> Mapping[str, _Field]:
    """Return the fields of a message by name."""
    # Private, but only there are the types resolved. Any: mypy cannot bind such a class property.
    private: Any = message_type
    metadata = private._betterproto  # noqa: SLF001
    found = {}
    for name, meta in metadata.meta_by_field_name.items():
        kind = metadata.cls_by_field[name]
        is_map = meta.proto_type == betterproto2.TYPE_MAP
        message = kind if not is_map and issubclass(kind, betterproto2.Message) else None
        argument = Mapping if is_map or message is not None else kind
        items = kind if meta.repeated and not is_map else None
        if items is not None:
            argument = Sequence
        bounds = _BOUNDS.get(meta.proto_type)
        found[name] = _Field(argument, bounds, meta.optional, message, items)
    return found


def _assign(message: betterproto2.Message, values: Values, path: str = "") -> list[Violation]:
    """Set the fields of a message; return the values that cannot be sent."""
    fields = fields_of(type(message))
    found = []
    for name, value in values.items():
        target = name if name in fields else f"{name}_seconds"
        field = fields.get(target)
        if field is None:
            raise TypeError(f"there is no argument {name}")
        if value is None and field.optional:
            continue
        expected, bounds = field.argument if target == name else timedelta, field.bounds
        # A bool is an int in Python only.
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            kinds = "int or str" if name in NAMED_BY_TEXT else expected.__name__
            raise TypeError(f"{name} must be {kinds}, not {type(value).__name__}")
        if field.message is not None and isinstance(value, Mapping):
            taken: object = (below := field.message())
            found += _assign(below, value, f"{path}{target}.")
        elif field.items is not None and isinstance(value, Sequence):
            taken = _items(name, value, field.items)
        elif (isinstance(value, str) and value.isascii()) or (
            isinstance(value, int) and (bounds is None or bounds[0] <= value <= bounds[1])
        ):
            taken = value  # the usual case of `_encodable`, whose call takes longer than the test
        else:
            taken, problem = _encodable(name, value, bounds)
            if problem is not None:
                found.append(Violation(field=path + target, description=problem))
        # Assigned and not passed to the constructor, which would reject values that do not fit
        # the wire one at a time, and accept "7" and 7.0 for 7.
        setattr(message, target, taken)
    return found


def _items(name: str, values: Sequence[object], kind: type) -> list[object]:
    """Return the items of a repeated field, which must have its type."""
    for value in values:
        if not isinstance(value, kind):
            raise TypeError(
                f"each item of {name} must be {kind.__name__}, not {type(value).__name__}"
            )
    return list(values)


def _encodable(
    name: str, value: object, bounds: tuple[int, int] | None
) -> tuple[object, str | None]:
    """Return a value as its field takes it, and what is wrong if it cannot be sent."""
    match value:
        case str():
            return value, _text_problem(value)
        case int() if bounds is None or bounds[0] <= value <= bounds[1]:
            return value, None
        case int() if bounds is not None and value > bounds[1]:
            return value, f"must be at most {bounds[1]}, got {value}"
        case int() if bounds is not None:
            return value, f"must be {bounds[0]} or more, got {value}"
        case datetime():
            return value, _time_problem(value)
        case timedelta():
            if value % _SECOND:
                return 1, "must be a whole number of seconds"
            return _encodable(name, value // _SECOND, bounds)
        case Mapping():
            texts = [text for pair in value.items() for text in pair if isinstance(text, str)]
            if len(texts) < 2 * len(value):
                raise TypeError(f"{name} must be a mapping of str to str")
            return dict(value), _text_problem("".join(texts))
    return value, None


def _text_problem(text: str) -> str | None:
    """Find halves of surrogate pairs: a Python string may hold them, and UTF-8 has no bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "must be valid Unicode text"
    return None


def _time_problem(moment: datetime) -> str | None:
    if moment.tzinfo is None or moment.utcoffset() is None:
        return "must have a time zone, as datetime.now(UTC) has"
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return "must be in the years 0001 to 9999"
    return None
