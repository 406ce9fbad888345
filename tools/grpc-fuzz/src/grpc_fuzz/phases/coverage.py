"""The coverage phase: for each field, every value at which something changes, one at a time."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from grpc_fuzz.conformance import judgeable, violations
from grpc_fuzz.model import Case, Method, Twin
from grpc_fuzz.sample import samples
from grpc_fuzz.schema import Schema
from grpc_fuzz.session import Session
from grpc_fuzz.strategies import Negative, messages, negatives, unknown_enums
from grpc_fuzz.strategies.messages import serialize, set_field
from grpc_fuzz.strategies.notable import notable_values
from grpc_fuzz.strategies.spelling import spelled_out_zeros, with_unknown_fields
from grpc_fuzz.work import send_all, share

# How many different values break one constraint before the next one's turn.
_PER_RULE = 5


def run(session: Session) -> None:
    """Sends every method's catalogue."""
    share(session, _tasks(session))


def _tasks(session: Session) -> Iterator[Callable[[], None]]:
    for method in session.methods:
        yield partial(_run_method, session, method)


def _run_method(session: Session, method: Method) -> None:
    seed = session.seed_for("coverage", method.path)
    if session.settings.positive:
        send_all(session, positive_cases(session.schema, method, seed))
    if session.settings.negative:
        send_all(session, negative_cases(session.schema, method, seed))


def positive_cases(schema: Schema, method: Method, seed: int) -> Iterator[Case]:
    """The smallest valid request, variations of it in one field each, and other spellings of it."""
    plain = smallest(schema, method, seed)
    yield _case(schema, method, (plain,), "the smallest valid request")
    if method.client_streaming:
        yield _case(schema, method, (), "a stream without messages")
        yield _case(schema, method, (plain, plain, plain), "a stream of three messages")
    for field, value, what in notable_values(schema, plain):
        varied = _with(plain, field, value)
        yield _case(schema, method, (varied,), f"{field.name}: {what}")
    for unknown in unknown_enums(schema, method.input):
        for request in _drawn(unknown, seed):
            yield Case(
                method=method,
                phase="coverage",
                # A server may refuse what has no name.
                positive=None,
                requests=(request,),
                description=f"an unknown number in {unknown.broken.field}",
            )
    yield from spelling_cases(schema, method, plain)


def smallest(schema: Schema, method: Method, seed: int) -> Message:
    """The simplest request that keeps every constraint."""
    return samples(messages(schema, method.input), seed, 1)[0]


def _with(plain: Message, field: FieldDescriptor, value: Any) -> Message:
    """Any: a field takes whatever its type says."""
    varied = type(plain)()
    varied.CopyFrom(plain)
    set_field(varied, field, value)
    return varied


def _case(schema: Schema, method: Method, sent: Iterable[Message], description: str) -> Case:
    sent = tuple(sent)
    # Whether a stream may be empty, no constraint tells.
    keeps_all = bool(sent) and judgeable(schema, method.input)
    keeps_all = keeps_all and not any(any(violations(schema, message)) for message in sent)
    return Case(
        method=method,
        phase="coverage",
        # A value that breaks a constraint is the business of the negative cases.
        positive=True if keeps_all else None,
        requests=tuple(map(serialize, sent)),
        description=description,
    )


def spelling_cases(schema: Schema, method: Method, plain: Message) -> Iterator[Case]:
    """Other bytes for the same message: unknown fields, and zeros that are spelled out."""
    twin = (serialize(plain),)
    for what, data in with_unknown_fields(plain):
        yield Case(
            method=method,
            phase="coverage",
            positive=True if judgeable(schema, method.input) else None,
            requests=(data,),
            description=f"an unknown field: {what}",
            twin=Twin(relation="unknown_fields", requests=twin),
        )
    for field, without, data in spelled_out_zeros(plain):
        broken = any(violations(schema, schema.parse(method.input, data)))
        yield Case(
            method=method,
            phase="coverage",
            positive=None if broken else True,
            requests=(data,),
            description=f"{field.name}: zero spelled out",
            twin=Twin(relation="unset_equals_zero", requests=(without,)),
        )


def negative_cases(schema: Schema, method: Method, seed: int) -> Iterator[Case]:
    """A few values for each constraint that break it."""
    plain = serialize(smallest(schema, method, seed))
    for negative in negatives(schema, method.input):
        for number, request in enumerate(_drawn(negative, seed)):
            # In a stream every other time behind a valid message: a server looks at each.
            first = (plain,) if method.client_streaming and number % 2 else ()
            yield Case(
                method=method,
                phase="coverage",
                positive=False,
                requests=(*first, request),
                broken=negative.broken,
                description=f"breaks {negative.broken}",
            )


def _drawn(negative: Negative, seed: int) -> Iterable[bytes]:
    """Requests that break a constraint: with each value that does, or with some."""
    if negative.each:
        drawn = [samples(strategy, seed, 1)[0] for strategy in negative.each]
    else:
        drawn = [*samples(negative.strategy, seed, _PER_RULE)]
    return dict.fromkeys(map(serialize, drawn))
