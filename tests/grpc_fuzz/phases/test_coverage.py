"""The coverage phase varies each field and breaks each constraint, up to a limit."""

from collections import Counter
from pathlib import Path

from grpc_fuzz.phases import coverage
from grpc_fuzz.session import Session
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target

from tests.grpc_fuzz.contracts import shop_schema


def covered(folder: Path, limit: int | None) -> tuple[Counter[object], Counter[object]]:
    """Return how often the phase varies each field, and breaks each constraint, of each method."""
    target = Target(host="127.0.0.1", port=1)  # no case is sent
    settings = Settings(target=target, coverage_values=limit, state_directory=folder)
    session = Session(settings, shop_schema())
    cases = [case for method in session.methods for case in coverage.cases(session, method)]
    return (
        Counter(
            (case.method.path, case.description.partition(":")[0])
            for case in cases
            if ": " in case.description and case.twin is None and case.broken is None
        ),
        Counter((case.method.path, str(case.broken)) for case in cases if case.broken),
    )


def test_a_limit_leaves_one_case_of_each_field_and_constraint(tmp_path: Path) -> None:
    for every, one in zip(covered(tmp_path, None), covered(tmp_path, 1), strict=True):
        assert one.keys() == every.keys() != set()
        assert {*one.values()} == {1}
        assert max(every.values()) > 1
