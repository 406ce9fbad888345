"""The check that responses are what the contract says."""

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from grpc_fuzz.conformance import violations
from grpc_fuzz.model import Case, Check, Context, Reply, Severity
from grpc_fuzz.schema import descriptor_of
from grpc_fuzz.strategies.messages import is_map


def _conforms(case: Case, reply: Reply, context: Context) -> str | None:
    if reply.status != "OK":
        return None
    if not case.method.server_streaming and len(reply.responses) != 1:
        return "OK without exactly one response"
    for data in reply.responses:
        cause = _message(case.method.output, data, context)
        if cause is not None:
            return cause
    return _trailers(reply, context)


def _trailers(reply: Reply, context: Context) -> str | None:
    for name, rule in context.trailers.items():
        value = reply.trailer(name)
        if value is None:
            continue
        if isinstance(value, str):
            return f"the trailer {name} is not binary"
        descriptor = context.schema.pool.FindMessageTypeByName(rule.message)
        cause = _message(descriptor, value, context)
        if cause is not None:
            return f"the trailer {name}: {cause}"
    return None


def _message(descriptor: Descriptor, data: bytes, context: Context) -> str | None:
    try:
        message = context.schema.parse(descriptor, data)
    except DecodeError:
        return f"the response is not a {descriptor.full_name}"
    broken = next(violations(context.schema, message), None)
    if broken is not None:
        return f"the response breaks a constraint: {broken}"
    if not _is_canonical(message, data):
        return "the response is not in the canonical encoding"
    return None


def _is_canonical(message: Message, data: bytes) -> bool:
    """Whether the bytes are those that protobuf itself would write: ascending, no zeros, packed."""
    if _has_map(descriptor_of(message), frozenset()):
        # A map's entries come in any order: only the length can be compared.
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


RESPONSE_CONFORMS = Check(
    name="response_conforms",
    severity=Severity.MAJOR,
    sentence="A response keeps every constraint, has known enum values and the canonical encoding.",
    applies=lambda case, context: case.wire is None,
    run=_conforms,
)
