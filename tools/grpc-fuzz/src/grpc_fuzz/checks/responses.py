"""Checks that responses conform to the contract."""

from collections.abc import Callable

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from grpc_fuzz.checks.check import Check, Context
from grpc_fuzz.conformance import KNOWN_FIELD, violations
from grpc_fuzz.model import Case, Reply, Severity
from grpc_fuzz.schema import Schema, descriptor_of, is_map

# Takes a message, its bytes and the contract, and returns what is wrong with the message.
_Judge = Callable[[Message, bytes, Schema], str | None]


def _check(name: str, severity: Severity, sentence: str, judge: _Judge, *, default: bool) -> Check:
    """Return a check of every response message, and of the messages in declared trailers."""

    def run(case: Case, reply: Reply, context: Context) -> str | None:
        if reply.status != "OK":
            return None
        if default and not case.method.server_streaming and len(reply.responses) != 1:
            return "OK without exactly one response"
        for data in reply.responses:
            cause = _judged(judge, case.method.output, data, context, report=default)
            if cause is not None:
                return f"the response {cause}"
        return _trailers(judge, reply, context, report=default)

    return Check(
        name=name,
        severity=severity,
        sentence=sentence,
        applies=lambda case, context: case.wire is None,
        run=run,
        default=default,
    )


def _trailers(judge: _Judge, reply: Reply, context: Context, *, report: bool) -> str | None:
    for name, rule in context.trailers.items():
        value = reply.trailer(name)
        if value is None:
            continue
        if isinstance(value, str):
            return f"the trailer {name} is not binary" if report else None
        descriptor = context.schema.pool.FindMessageTypeByName(rule.message)
        cause = _judged(judge, descriptor, value, context, report=report)
        if cause is not None:
            return f"the trailer {name} {cause}"
    return None


def _judged(
    judge: _Judge, descriptor: Descriptor, data: bytes, context: Context, *, report: bool
) -> str | None:
    """Return what is wrong with a message. With `report`, a parse error is wrong, too."""
    try:
        message = context.schema.parse(descriptor, data)
    except DecodeError:
        return f"is not a {descriptor.full_name}" if report else None
    return judge(message, data, context.schema)


def _conforms(message: Message, data: bytes, schema: Schema) -> str | None:
    for broken in violations(schema, message, allow_sent=True):
        if broken.rule != KNOWN_FIELD:
            return f"breaks a constraint: {broken}"
    return None


def _has_known_fields(message: Message, data: bytes, schema: Schema) -> str | None:
    for broken in violations(schema, message, allow_sent=True):
        if broken.rule == KNOWN_FIELD:
            return f"has a field that the contract does not define, in {broken.field}"
    return None


def _is_in_canonical_form(message: Message, data: bytes, schema: Schema) -> str | None:
    return None if _is_canonical(message, data) else "is not in the canonical encoding"


def _is_canonical(message: Message, data: bytes) -> bool:
    """Return whether the bytes are those that protobuf writes: ascending, no zeros, packed."""
    if _has_map(descriptor_of(message), frozenset()):
        # Map entries have no fixed order, so only the length can be compared.
        return len(message.SerializePartialToString()) == len(data)
    return message.SerializePartialToString(deterministic=True) == data


def _has_map(descriptor: Descriptor, seen: frozenset[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen |= {descriptor.full_name}
    inner = [field.message_type for field in descriptor.fields if field.message_type is not None]
    return any(is_map(field) for field in descriptor.fields) or any(
        _has_map(message_type, seen) for message_type in inner
    )


RESPONSE_CONFORMS = _check(
    "response_conforms",
    Severity.MAJOR,
    "A response keeps every constraint, with known enum values and times in range.",
    _conforms,
    default=True,
)

# Off by default: a server that returns what it received keeps unknown fields, as protobuf requires.
RESPONSE_KNOWN_FIELDS = _check(
    "response_known_fields",
    Severity.MINOR,
    "A response has no field that the contract does not define.",
    _has_known_fields,
    default=False,
)

# Off by default: protobuf defines no canonical encoding, and some libraries write zeros.
RESPONSE_CANONICAL = _check(
    "response_canonical",
    Severity.MINOR,
    "A response is encoded as protobuf writes it: in ascending order and without zeros.",
    _is_in_canonical_form,
    default=False,
)
