"""The wire phase: every case of the catalogue against every method."""

from collections.abc import Iterator
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from grpc_fuzz.model import Case, Method
from grpc_fuzz.sample import sample
from grpc_fuzz.strategies import requests
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
    """Plays the catalogue, and records what fails."""
    share(session, [partial(_run_method, session, method) for method in session.methods])


def _run_method(session: "Session", method: Method) -> None:
    seed = session.seed_for("wire", method.path)
    request = sample(requests(session.schema, method), seed)[0]
    random = Random(seed)  # noqa: S311 - it chooses cases, and shall be repeatable
    send_all(session, catalogue(method, request, random))
