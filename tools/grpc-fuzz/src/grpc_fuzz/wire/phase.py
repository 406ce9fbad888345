"""The wire phase: what no gRPC client sends, once per server; malformed requests per method."""

from collections.abc import Iterator, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from grpc_fuzz.model import Case, Method
from grpc_fuzz.sample import sample
from grpc_fuzz.strategies import messages
from grpc_fuzz.strategies.messages import serialize
from grpc_fuzz.wire.frames import frame_cases
from grpc_fuzz.wire.headers import header_cases
from grpc_fuzz.wire.messages import message_cases
from grpc_fuzz.wire.protobuf import protobuf_cases
from grpc_fuzz.wire.storms import storm_cases
from grpc_fuzz.work import send_all, share

if TYPE_CHECKING:
    # The session plays wire cases, and so imports this package itself.
    from grpc_fuzz.session import Session


def catalogue(method: Method, request: bytes, random: Random) -> Iterator[Case]:
    """Yields all wire cases of a method.

    Args:
        method: What is called.
        request: A request that keeps the contract, from which the cases are made.
        random: Chooses where to cut and which bits to flip.
    """
    yield from message_cases(method, request, random)
    yield from protobuf_cases(method, request, random)
    yield from header_cases(method, request)
    yield from frame_cases(method, request)
    yield from storm_cases(method, request)


def run(session: "Session") -> None:
    """Plays the catalogue, and records what fails.

    The runtime does the same whatever the method, so one method stands for all. Where its failures
    decide the exit code, each method is tried: a server may have a runtime of its own making.
    """
    probed = session.methods if session.settings.strict_wire else (_plainest(session.methods),)
    share(
        session,
        [partial(_run_method, session, method, method in probed) for method in session.methods],
    )


def _plainest(methods: Sequence[Method]) -> Method:
    """The method to probe the runtime with: a unary one, where there is one."""
    return min(methods, key=lambda method: (method.client_streaming, method.server_streaming))


def _run_method(session: "Session", method: Method, whole: bool) -> None:
    seed = session.seed_for("wire", method.path)
    request = sample(messages(session.schema, method.input).map(serialize), seed)
    random = Random(seed)  # noqa: S311 - it chooses cases, and shall be repeatable
    cases = catalogue(method, request, random)
    send_all(session, (case for case in cases if whole or case.about == "method"))
