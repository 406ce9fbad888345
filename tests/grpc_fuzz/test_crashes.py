"""Failures are kept on disk, and come back as they were."""

import json
from pathlib import Path

from grpc_fuzz.crashes import Crashes, case_from_json, case_to_json
from grpc_fuzz.model import (
    BrokenRule,
    Case,
    Failure,
    Reply,
    Severity,
    Twin,
    WireScript,
    WireStep,
)

from tests.grpc_fuzz.broken_server import shop_schema
from tests.grpc_fuzz.protocols import features

SCHEMA = features()
METHOD = SCHEMA.methods[0]
PLAIN = Case(method=METHOD, phase="fuzzing", positive=True, requests=(b"\0\xff",))
FULL = Case(
    method=METHOD,
    phase="wire",
    positive=None,
    requests=(b"a", b"\xff"),
    broken=BrokenRule(field="a.b[0]", rule="minimum"),
    metadata=(("key", "value"), ("key-bin", b"\0")),
    description="päh",
    twin=Twin(relation="unknown_fields", requests=(b"\1",)),
    wire=WireScript(
        steps=(
            WireStep(action="headers", headers=((b":path", b"/\xff"),), times=2),
            WireStep(action="data", payload=b"\0\1", end_stream=True),
        )
    ),
    expected=frozenset({"OK", "INTERNAL"}),
    before=(PLAIN,),
)


def failure(case: Case, cause: str = "it broke") -> Failure:
    return Failure(
        check="some_check",
        severity=Severity.MAJOR,
        case=case,
        reply=Reply(status="OK"),
        cause=cause,
        reproducers={"bytes": "00"},
    )


def test_a_case_survives_json_whole() -> None:
    for case in (PLAIN, FULL):
        text = json.dumps(case_to_json(case))
        again = case_from_json(json.loads(text), SCHEMA)

        assert again == case
        assert again.id == case.id


def test_the_same_failure_is_kept_once_and_another_cause_beside_it(tmp_path: Path) -> None:
    crashes = Crashes(tmp_path / "crashes")
    names = [crashes.keep(failure(PLAIN)), crashes.keep(failure(FULL))]
    other = crashes.keep(failure(PLAIN, "it broke otherwise"))

    assert names[0] == names[1] != other
    kept = {crash.id: crash for crash in crashes.load(SCHEMA)}
    assert kept.keys() == {names[0], other}
    assert kept[names[0]].case == FULL
    assert (kept[other].check, kept[other].cause) == ("some_check", "it broke otherwise")


def test_nothing_kept_is_nothing_to_replay(tmp_path: Path) -> None:
    assert Crashes(tmp_path / "missing").load(SCHEMA) == ()


def test_a_crash_of_a_method_that_is_gone_is_left_alone(tmp_path: Path) -> None:
    crashes = Crashes(tmp_path)
    crashes.keep(failure(PLAIN))

    assert crashes.load(shop_schema()) == ()
    assert len(crashes.load(SCHEMA)) == 1


def test_a_case_is_named_by_what_it_sends() -> None:
    other = Case(method=METHOD, phase="coverage", positive=True, requests=PLAIN.requests)

    assert PLAIN.id == other.id != FULL.id
