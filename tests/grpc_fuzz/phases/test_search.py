"""The search finds failing cases and shrinks them."""

from pathlib import Path

import pytest
from grpc_fuzz.checks.check import Check, Context
from grpc_fuzz.model import Case, Reply, Severity
from grpc_fuzz.phases.search import explore
from grpc_fuzz.session import Session
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target
from hypothesis import strategies as st

from tests.grpc_fuzz.contracts import shop_schema
from tests.grpc_fuzz.shop_server import running_shop

SCHEMA = shop_schema()
LIST = SCHEMA.method("/shop.v1.Orders/List")


def limit_of(case: Case) -> int:
    request = SCHEMA.parse(LIST.input, case.requests[0])
    return int(request.limit)  # type: ignore[attr-defined]  # known to the contract alone


def case_with(limit: int) -> Case:
    request = SCHEMA.message_class(LIST.input)(limit=limit)
    return Case(
        method=LIST, phase="fuzzing", positive=True, requests=(request.SerializeToString(),)
    )


def complain(case: Case, reply: Reply, context: Context) -> str | None:
    if limit_of(case) > 40:
        return "far too many"
    return "too many" if limit_of(case) > 7 else None


COMPLAINING = Check(
    name="complaining",
    severity=Severity.MINOR,
    sentence="Finds fault with high limits.",
    applies=lambda case, context: True,
    run=complain,
)
CASES = st.integers(0, 50).map(case_with)


def explored(folder: Path, port: int, *, seed: int = 1, max_examples: int = 200) -> Session:
    settings = Settings(
        target=Target(host="127.0.0.1", port=port),
        checks=("complaining",),
        seed=seed,
        state_directory=folder,
    )
    session = Session(settings, SCHEMA, custom_checks=(COMPLAINING,))
    try:
        explore(session, CASES, max_examples, "test")
    finally:
        session.close()
    return session


def test_each_failure_is_found_once_and_shrunk(tmp_path: Path) -> None:
    with running_shop() as port:
        session = explored(tmp_path, port)

    found = {failure.cause: limit_of(failure.case) for failure in session.failures}
    assert found == {"too many": 8, "far too many": 41}
    assert len(session.failures) == 2


def test_the_same_seed_finds_the_same_failures_in_as_many_cases(tmp_path: Path) -> None:
    with running_shop() as port:
        first, second = (explored(tmp_path, port, seed=5, max_examples=20) for _ in range(2))

    assert [failure.case.id for failure in first.failures] == [
        failure.case.id for failure in second.failures
    ]
    assert first.cases == second.cases


def test_the_limit_on_cases_is_kept(tmp_path: Path) -> None:
    with running_shop() as port:
        settings = Settings(
            target=Target(host="127.0.0.1", port=port), checks=(), state_directory=tmp_path
        )
        session = Session(settings, SCHEMA)
        explore(session, CASES, 13, "test")
        session.close()

    assert session.cases == 13


@pytest.mark.parametrize("most", [1, 2])
def test_a_run_ends_at_its_limit_on_failures(tmp_path: Path, most: int) -> None:
    with running_shop() as port:
        settings = Settings(
            target=Target(host="127.0.0.1", port=port),
            checks=("complaining",),
            max_failures=most,
            state_directory=tmp_path,
        )
        session = Session(settings, SCHEMA, custom_checks=(COMPLAINING,))
        explore(session, CASES, 200, "test")
        assert session.stopped
        session.close()

    assert len(session.failures) == most
