"""The coverage phase: the boundary values of each field, one field at a time."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from random import Random
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from grpc_fuzz.conformance import can_be_judged, violations
from grpc_fuzz.engine import samples
from grpc_fuzz.model import Case, Method, Twin
from grpc_fuzz.schema import Schema
from grpc_fuzz.session import Session
from grpc_fuzz.strategies import Negative, messages, negatives, unknown_enums
from grpc_fuzz.strategies.boundary import boundary_values
from grpc_fuzz.strategies.encodings import explicit_zeros, with_unknown_fields
from grpc_fuzz.strategies.messages import serialize, set_field

_ValueT = TypeVar("_ValueT")

# The default limit on random values that break one constraint.
_PER_RULE = 5


def run(session: Session) -> None:
    """Send the cases of every method."""
    session.run_tasks(partial(_run_method, session, method) for method in session.methods)


def _run_method(session: Session, method: Method) -> None:
    session.send_all(cases(session, method))


def cases(session: Session, method: Method) -> Iterator[Case]:
    """Yield the cases of a method in the modes that the settings select."""
    seed = session.seed_for("coverage", method.path)
    if session.settings.positive:
        yield from _positive_cases(session.schema, method, seed, session.settings.coverage_values)
    if session.settings.negative:
        yield from _negative_cases(session.schema, method, seed, session.settings.coverage_values)


def _positive_cases(schema: Schema, method: Method, seed: int, limit: int | None) -> Iterator[Case]:
    """Yield the smallest valid request, variations of one field each, and other encodings."""
    plain = _smallest(schema, method, seed)
    yield _case(schema, method, (plain,), "the smallest valid request")
    if method.client_streaming:
        yield _case(schema, method, (), "a stream without messages")
        yield _case(schema, method, (plain, plain, plain), "a stream of three messages")
    for field, value, what in _limited(boundary_values(schema, plain), seed, limit):
        varied = _with(plain, field, value)
        yield _case(schema, method, (varied,), f"{field.name}: {what}")
    for unknown in unknown_enums(schema, method.input):
        for request in _drawn(unknown, seed, limit):
            yield Case(
                method=method,
                phase="coverage",
                # A server may reject an unknown number.
                positive=None,
                requests=(request,),
                description=f"an unknown number in {unknown.broken.field}",
            )
    yield from _encoding_cases(schema, method, plain)


def _smallest(schema: Schema, method: Method, seed: int) -> Message:
    """Return the simplest request that keeps every constraint."""
    return samples(messages(schema, method.input), seed, 1)[0]


# Any: the type of the field decides.
def _with(plain: Message, field: FieldDescriptor, value: Any) -> Message:
    varied = type(plain)()
    varied.CopyFrom(plain)
    set_field(varied, field, value)
    return varied


def _case(schema: Schema, method: Method, sent: Iterable[Message], description: str) -> Case:
    sent = tuple(sent)
    # No constraint defines whether a stream may be empty.
    keeps_all = bool(sent) and can_be_judged(schema, method.input)
    keeps_all = keeps_all and not any(any(violations(schema, message)) for message in sent)
    return Case(
        method=method,
        phase="coverage",
        # Only negative cases break a constraint on purpose.
        positive=True if keeps_all else None,
        requests=tuple(map(serialize, sent)),
        description=description,
    )


def _encoding_cases(schema: Schema, method: Method, plain: Message) -> Iterator[Case]:
    """Yield other encodings of the same message: with unknown fields, and with explicit zeros."""
    twin = (serialize(plain),)
    for what, data in with_unknown_fields(plain):
        yield Case(
            method=method,
            phase="coverage",
            positive=True if can_be_judged(schema, method.input) else None,
            requests=(data,),
            description=f"an unknown field: {what}",
            twin=Twin(relation="unknown_fields", requests=twin),
        )
    for field, without, data in explicit_zeros(plain):
        broken = any(violations(schema, schema.parse(method.input, data)))
        yield Case(
            method=method,
            phase="coverage",
            positive=None if broken else True,
            requests=(data,),
            description=f"{field.name}: explicit zero",
            twin=Twin(relation="unset_equals_zero", requests=(without,)),
        )


def _negative_cases(schema: Schema, method: Method, seed: int, limit: int | None) -> Iterator[Case]:
    """Yield a few cases for each constraint that break it."""
    plain = serialize(_smallest(schema, method, seed))
    for negative in negatives(schema, method.input):
        for number, request in enumerate(_drawn(negative, seed, limit)):
            # In a stream, every other invalid message follows a valid one, because a server must
            # validate each message.
            first = (plain,) if method.client_streaming and number % 2 else ()
            yield Case(
                method=method,
                phase="coverage",
                positive=False,
                requests=(*first, request),
                broken=negative.broken,
                description=f"breaks {negative.broken}",
            )


# Any: the type of the field decides.
_Value = tuple[FieldDescriptor, Any, str]


def _limited(values: Iterable[_Value], seed: int, limit: int | None) -> Iterator[_Value]:
    """Yield the values of each field up to a limit; the seed chooses which."""
    for name, group in groupby(values, key=lambda value: value[0].name):
        yield from _chosen([*group], f"{seed} {name}", limit)


def _chosen(values: Sequence[_ValueT], seed: str, limit: int | None) -> Sequence[_ValueT]:
    if limit is None or limit >= len(values):
        return values
    return Random(seed).sample(values, limit)  # noqa: S311 - test data


def _drawn(negative: Negative, seed: int, limit: int | None) -> Iterable[bytes]:
    """Return requests that break a constraint: with each value that does, or with some."""
    if negative.each:
        chosen = _chosen(negative.each, f"{seed} {negative.broken}", limit)
        drawn = [samples(strategy, seed, 1)[0] for strategy in chosen]
    else:
        drawn = [*samples(negative.strategy, seed, limit or _PER_RULE)]
    return dict.fromkeys(map(serialize, drawn))
