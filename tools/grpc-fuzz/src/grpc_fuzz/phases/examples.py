"""The examples phase: the requests of the configuration."""

from collections.abc import Iterator

from google.protobuf import json_format

from grpc_fuzz.errors import SchemaError
from grpc_fuzz.model import Case
from grpc_fuzz.schema import Schema
from grpc_fuzz.session import Session
from grpc_fuzz.settings import Example
from grpc_fuzz.strategies.messages import serialize


def run(session: Session) -> None:
    """Send the examples in the order of the configuration."""
    session.send_all(cases(session))


def cases(session: Session) -> Iterator[Case]:
    """Yield the examples of the selected methods and mode, as cases.

    Raises:
        SchemaError: An example does not fit the contract.
    """
    selected = {method.path for method in session.methods}
    for example in session.settings.examples:
        in_mode = session.settings.positive if example.positive else session.settings.negative
        case = _case(session.schema, example)
        if in_mode and case.method.path in selected:
            yield case


def _case(schema: Schema, example: Example) -> Case:
    try:
        method = schema.method(f"/{example.method.removeprefix('/')}")
    except KeyError as error:
        raise SchemaError(f"an example names {example.method}, which does not exist") from error
    make = schema.message_class(method.input)
    try:
        requests = tuple(
            serialize(json_format.ParseDict(dict(body), make(), descriptor_pool=schema.pool))
            for body in example.requests
        )
    except json_format.ParseError as error:
        raise SchemaError(f"an example of {example.method}: {error}") from error
    return Case(
        method=method,
        phase="examples",
        positive=example.positive,
        requests=requests,
        description=example.description or "an example of the configuration",
    )
