"""Values by their path in a message, and requests that take them from earlier answers."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message

from grpc_fuzz.model import Case, Reply
from grpc_fuzz.schema import Schema

_PART = re.compile(r"(\w+)(?:\[(\d+)\])?")


# Any: a field holds whatever its type says.
def read(message: Message, path: str) -> Any:
    """The value at a path such as "lines[0].id".

    Raises:
        LookupError: There is nothing.
    """
    value: Any = message
    for part in path.split("."):
        matched = _PART.fullmatch(part)
        if matched is None or matched[1] not in value.DESCRIPTOR.fields_by_name:
            raise LookupError(path)
        value = getattr(value, matched[1])
        if matched[2] is not None:
            value = value[int(matched[2])]
    return value


def write(message: Message, path: str, value: Any) -> None:
    """Sets a field that is reached through messages alone, such as "order.user_id"."""
    *outer, name = path.split(".")
    holder = message
    for part in outer:
        holder = getattr(holder, part)
    setattr(holder, name, value)


def bound(case: Case, replies: Sequence[Reply], before: Sequence[Case], schema: Schema) -> Case:
    """The case with the values that the calls before it have answered this time.

    A value that is missing, because a call was refused or streamed less, stays what it was.

    Args:
        case: A call of a sequence.
        replies: What the calls before it were answered.
        before: Those calls.
        schema: The contract.
    """
    if not case.bindings or not case.requests:
        return case
    request = schema.parse(case.method.input, case.requests[0])
    for binding in case.bindings:
        try:
            data = replies[binding.call].responses[binding.response]
            answer = schema.parse(before[binding.call].method.output, data)
            write(request, binding.field, read(answer, binding.source))
        except (LookupError, DecodeError):
            continue
    first = request.SerializePartialToString(deterministic=True)
    return dataclasses.replace(case, requests=(first, *case.requests[1:]))
