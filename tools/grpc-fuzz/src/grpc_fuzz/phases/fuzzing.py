"""The fuzzing phase: random requests, valid ones and ones with a single constraint broken."""

from collections.abc import Callable, Iterator
from functools import partial

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from grpc_fuzz.conformance import judgeable
from grpc_fuzz.explore import explore
from grpc_fuzz.model import Case, Method
from grpc_fuzz.schema import Schema
from grpc_fuzz.session import Session
from grpc_fuzz.strategies import Negative, negatives, requests
from grpc_fuzz.strategies.messages import serialize
from grpc_fuzz.work import share


def run(session: Session) -> None:
    """Explores each method in each mode."""
    share(session, _tasks(session))


def _tasks(session: Session) -> Iterator[Callable[[], None]]:
    settings = session.settings
    for method in session.methods:
        if settings.positive:
            cases = positive_cases(session.schema, method)
            yield partial(
                explore, session, cases, settings.max_examples, "fuzzing", method.path, "positive"
            )
        broken = negatives(session.schema, method.input)
        if settings.negative and broken:
            yield partial(
                explore,
                session,
                negative_cases(method, broken),
                settings.max_examples,
                "fuzzing",
                method.path,
                "negative",
            )


def positive_cases(schema: Schema, method: Method) -> SearchStrategy[Case]:
    """Calls that keep every constraint, as far as the constraints can be evaluated."""
    certain = judgeable(schema, method.input)

    def case(messages: tuple[bytes, ...]) -> Case:
        return Case(
            method=method,
            phase="fuzzing",
            # Whether a stream may be empty, no constraint tells.
            positive=True if certain and messages else None,
            requests=messages,
            description="a random valid request",
        )

    return requests(schema, method).map(case)


def negative_cases(method: Method, broken: tuple[Negative, ...]) -> SearchStrategy[Case]:
    """Calls that break one constraint each, all constraints alike often."""
    return st.sampled_from(broken).flatmap(lambda negative: _breaking(method, negative))


def _breaking(method: Method, negative: Negative) -> SearchStrategy[Case]:
    return negative.strategy.map(
        lambda message: Case(
            method=method,
            phase="fuzzing",
            positive=False,
            requests=(serialize(message),),
            broken=negative.broken,
            description=f"breaks {negative.broken}",
        )
    )
