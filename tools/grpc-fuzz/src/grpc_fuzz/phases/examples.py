"""The examples phase: requests that somebody wrote down in the configuration."""

from collections.abc import Iterator

from google.protobuf import json_format

from grpc_fuzz.model import Case
from grpc_fuzz.schema import Schema, SchemaError
from grpc_fuzz.session import Session
from grpc_fuzz.settings import Example
from grpc_fuzz.strategies.messages import serialize
from grpc_fuzz.work import send_all


def run(session: Session) -> None:
    """Sends the examples in the order of the configuration."""
    send_all(session, cases(session))


def cases(session: Session) -> Iterator[Case]:
    """The examples of the selected methods and mode, as cases.

    Raises:
        SchemaError: An example does not fit the contract.
    """
    selected = {method.path for method in session.methods}
    for example in session.settings.examples:
        wanted = session.settings.positive if example.positive else session.settings.negative
        case = to_case(session.schema, example)
        if wanted and case.method.path in selected:
            yield case


def to_case(schema: Schema, example: Example) -> Case:
    """Turns one example into a case.

    Raises:
        SchemaError: The contract has no such method, or the request does not fit its type.
    """
    try:
        method = schema.method(f"/{example.method.removeprefix('/')}")
    except KeyError as error:
        raise SchemaError(f"an example names {example.method}, which there is not") from error
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
