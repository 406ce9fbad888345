"""The fuzzing phase: random requests, valid ones and ones that break a single constraint."""

from collections.abc import Iterator
from functools import partial

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from grpc_fuzz.conformance import can_be_judged
from grpc_fuzz.model import Case, Method
from grpc_fuzz.phases.search import explore
from grpc_fuzz.schema import Schema
from grpc_fuzz.session import Session
from grpc_fuzz.strategies import Negative, negatives, requests
from grpc_fuzz.strategies.messages import serialize


def run(session: Session) -> None:
    """Explore each method in each mode."""
    count = session.settings.max_examples
    session.run_tasks(
        partial(explore, session, cases, count, "fuzzing", method.path, mode)
        for method in session.methods
        for mode, cases in strategies(session, method)
    )


def strategies(session: Session, method: Method) -> Iterator[tuple[str, SearchStrategy[Case]]]:
    """Yield each mode that the settings select, with its cases of a method."""
    if session.settings.positive:
        yield "positive", _positive_cases(session.schema, method)
    broken = negatives(session.schema, method.input)
    if session.settings.negative and broken:
        yield "negative", _negative_cases(method, broken)


def _positive_cases(schema: Schema, method: Method) -> SearchStrategy[Case]:
    """Return calls that keep every constraint that can be evaluated."""
    judged = can_be_judged(schema, method.input)

    def case(messages: tuple[bytes, ...]) -> Case:
        return Case(
            method=method,
            phase="fuzzing",
            # No constraint defines whether a stream may be empty.
            positive=True if judged and messages else None,
            requests=messages,
            description="a random valid request",
        )

    return requests(schema, method).map(case)


def _negative_cases(method: Method, broken: tuple[Negative, ...]) -> SearchStrategy[Case]:
    """Return calls that break one constraint each, all constraints equally often."""
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
