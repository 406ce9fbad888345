"""The wire phase: what no gRPC client sends, once per server, and malformed requests per method."""

from collections.abc import Iterator, Sequence
from functools import partial
from random import Random

from grpc_fuzz.engine import sample
from grpc_fuzz.model import Case, Method
from grpc_fuzz.session import Session
from grpc_fuzz.strategies import messages
from grpc_fuzz.strategies.messages import serialize
from grpc_fuzz.wire.cancellation import cancellation_cases
from grpc_fuzz.wire.frames import frame_cases
from grpc_fuzz.wire.headers import header_cases
from grpc_fuzz.wire.messages import message_cases
from grpc_fuzz.wire.protobuf import protobuf_cases


def run(session: Session) -> None:
    """Send the wire cases, and record every failure.

    The runtime behaves the same for every method, so one method represents all. If deviations
    decide the exit code, every method is tested, because a server may implement its own runtime.
    """
    tested = session.methods if session.settings.strict_wire else (_simplest(session.methods),)
    session.run_tasks(
        [partial(_run_method, session, method, method in tested) for method in session.methods]
    )


def _simplest(methods: Sequence[Method]) -> Method:
    """Return the method that represents all others: a unary one, if there is one."""
    return min(methods, key=lambda method: (method.client_streaming, method.server_streaming))


def _run_method(session: Session, method: Method, with_runtime: bool) -> None:
    seed = session.seed_for("wire", method.path)
    request = sample(messages(session.schema, method.input).map(serialize), seed)
    random = Random(seed)  # noqa: S311 - it chooses cases that must be repeatable
    cases = all_cases(method, request, random)
    session.send_all(case for case in cases if with_runtime or case.about == "method")


def all_cases(method: Method, request: bytes, random: Random) -> Iterator[Case]:
    """Yield all wire cases of a method.

    Args:
        method: The method to call.
        request: A request that keeps the contract, from which the cases are made.
        random: Chooses where messages are truncated and which bits are flipped.
    """
    yield from message_cases(method, request, random)
    yield from protobuf_cases(method, request, random)
    yield from header_cases(method, request)
    yield from frame_cases(method, request)
    yield from cancellation_cases(method, request)
