"""Checks that compare the replies to two calls."""

import dataclasses

from google.protobuf.message import DecodeError, Message

from grpc_fuzz.checks.check import Check, Context, Finding
from grpc_fuzz.checks.liveness import SERVER_ERRORS
from grpc_fuzz.model import Case, Reply, Severity, Twin

# Another caller may change the state, and with it the reply, between two calls; but not three times
# in a row.
_ATTEMPTS = 3

# Statuses that depend on the request alone.
_REQUEST_STATUSES = SERVER_ERRORS | {"INVALID_ARGUMENT", "UNIMPLEMENTED", None}
_TRANSIENT = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "DEADLINE_EXCEEDED"})


def _twin_check(relation: str, name: str, sentence: str) -> Check:
    """Return a check that the server treats the two encodings of a case's requests alike."""

    def applies(case: Case, context: Context) -> bool:
        return case.twin is not None and case.twin.relation == relation

    def run(case: Case, reply: Reply, context: Context) -> str | None:
        twin = case.twin
        if twin is None:
            return None
        return _differs(case, twin, reply, context)

    return Check(name=name, severity=Severity.MAJOR, sentence=sentence, applies=applies, run=run)


def _differs(case: Case, twin: Twin, reply: Reply, context: Context) -> str | None:
    plain = dataclasses.replace(case, requests=twin.requests, twin=None)
    for _ in range(_ATTEMPTS):
        other = context.send(plain)
        if _alike(case, reply, other):
            return None
        reply = context.send(dataclasses.replace(case, twin=None))
        if _alike(case, reply, other):
            return None
    return f"{case.description}: {reply.status} instead of {other.status}"


def _alike(case: Case, one: Reply, other: Reply) -> bool:
    if case.method.idempotency == "NO_SIDE_EFFECTS":
        return one.status == other.status
    # The first write may make the second one fail, but not its encoding.
    return _request_status(one) == _request_status(other)


def _request_status(reply: Reply) -> str | None:
    return reply.status if reply.status in _REQUEST_STATUSES else "understood"


UNKNOWN_FIELDS_TOLERATED = _twin_check(
    "unknown_fields",
    "unknown_fields_tolerated",
    "A field that the contract does not define (yet) changes nothing.",
)
UNSET_EQUALS_ZERO = _twin_check(
    "unset_equals_zero",
    "unset_equals_zero",
    "A field without presence means the same if it is omitted or sent as zero.",
)


def needs_exclusive_access(case: Case, context: Context) -> bool:
    """Return whether no other worker may change the state between the call and its repetition."""
    return case.method.idempotency != "NO_SIDE_EFFECTS" and _is_idempotent(case, context)


def _is_idempotent(case: Case, context: Context) -> bool:
    if case.wire is not None:
        return False
    return case.method.idempotency != "IDEMPOTENCY_UNKNOWN" or _has_key(case, context)


def _has_key(case: Case, context: Context) -> bool:
    name = context.idempotency_key
    if name is None or name not in case.method.input.fields_by_name or not case.requests:
        return False
    try:
        request = context.schema.parse(case.method.input, case.requests[0])
    except DecodeError:
        return False
    return bool(getattr(request, name))


def _repeats(case: Case, reply: Reply, context: Context) -> Finding | None:
    """Send the call again at once. In a sequence, the earlier calls have set up the state."""
    if reply.status != "OK":
        return None
    reads = case.method.idempotency == "NO_SIDE_EFFECTS"
    again, cause = reply, None
    # The run makes no other call between the two calls of a write; see `needs_exclusive_access`.
    for _ in range(_ATTEMPTS if reads else 1):
        again = context.send(case)
        cause = _changed(case, reply, again, context)
        if cause is None:
            return None
        if reads:
            reply = again
    return None if cause is None else Finding(case=case, reply=again, cause=cause)


def _changed(case: Case, first: Reply, again: Reply, context: Context) -> str | None:
    if again.status in _TRANSIENT:
        return None
    if again.status != first.status:
        return f"the repeated call ended with {again.status} instead of {first.status}"
    if case.method.idempotency == "NO_SIDE_EFFECTS":
        # The method does not change the state, but others may change the state and so the response.
        return None
    if _responses(case, again, context) != _responses(case, first, context):
        return "the repeated call had another response"
    for name in context.trailers:
        if _trailer(first, name, context) != _trailer(again, name, context):
            return f"the repeated call had another trailer {name}"
    return None


def _responses(case: Case, reply: Reply, context: Context) -> list[bytes]:
    """Return the responses without the fields that may differ, with maps in a fixed order."""
    responses = []
    for data in reply.responses:
        try:
            message = context.schema.parse(case.method.output, data)
        except DecodeError:
            responses.append(data)
        else:
            for path in context.changing_fields:
                _clear(message, path)
            responses.append(message.SerializePartialToString(deterministic=True))
    return responses


def _clear(message: Message, path: str) -> None:
    """Clear a field at a path through messages that are not repeated, if there is one."""
    *outer, name = path.split(".")
    holder = message
    for part in outer:
        if part not in holder.DESCRIPTOR.fields_by_name or not holder.HasField(part):
            return
        holder = getattr(holder, part)
    if name in holder.DESCRIPTOR.fields_by_name:
        holder.ClearField(name)


def _trailer(reply: Reply, name: str, context: Context) -> bytes | str | None:
    """Return the value of the trailer without the fields that may differ."""
    value = reply.trailer(name)
    rule = context.trailers[name]
    if not isinstance(value, bytes):
        return value
    try:
        message = context.schema.parse(
            context.schema.pool.FindMessageTypeByName(rule.message), value
        )
    except DecodeError:
        return value
    for ignored in rule.ignore:
        message.ClearField(ignored)
    return message.SerializePartialToString(deterministic=True)


IDEMPOTENT_REPLAY = Check(
    name="idempotent_replay",
    severity=Severity.CRITICAL,
    sentence="A call that is safe to repeat, by its method or key, gives the same reply again.",
    applies=_is_idempotent,
    run=_repeats,
)
