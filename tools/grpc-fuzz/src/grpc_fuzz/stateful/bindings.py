"""Requests that take values from the responses to earlier calls of a sequence."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message

from grpc_fuzz.model import Binding, Case, Reply
from grpc_fuzz.schema import Schema

_PART = re.compile(r"(\w+)(?:\[(\d+)\])?")


# Any: the type of the field decides.
def read(message: Message, path: str) -> Any:
    """Return the value at a path such as "lines[0].id".

    Raises:
        LookupError: The message has no value there.
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
    """Set a field at a path through messages that are not repeated, such as "order.user_id"."""
    *outer, name = path.split(".")
    holder = message
    for part in outer:
        holder = getattr(holder, part)
    setattr(holder, name, value)


def resolve_bindings(
    case: Case, replies: Sequence[Reply], before: Sequence[Case], schema: Schema
) -> Case:
    """Return the case with the values from the new replies to the earlier calls.

    A value that is missing, because a call was rejected or streamed less, stays as it was.

    Args:
        case: A call of a sequence.
        replies: The replies to the earlier calls.
        before: The earlier calls.
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


def without_call(case: Case, position: int) -> Case | None:
    """Return the case without an earlier call, or None if a later call takes a value from it.

    Args:
        case: The last call of a sequence.
        position: The position in `case.before` of the call to leave out, from 0.
    """
    later = (*case.before[position + 1 :], case)
    if any(binding.call == position for call in later for binding in call.bindings):
        return None
    kept = (
        *case.before[:position],
        *(_moved(call, position) for call in case.before[position + 1 :]),
    )
    return dataclasses.replace(_moved(case, position), before=kept)


def _moved(call: Case, position: int) -> Case:
    """Return the call with the positions in its bindings adjusted to the call that is left out."""

    def moved(binding: Binding) -> Binding:
        return dataclasses.replace(binding, call=binding.call - (binding.call > position))

    return dataclasses.replace(call, bindings=tuple(map(moved, call.bindings)))
