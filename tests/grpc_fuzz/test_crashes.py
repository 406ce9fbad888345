"""Failures are stored on disk and loaded unchanged."""

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

from tests.grpc_fuzz.contracts import features_schema, shop_schema

SCHEMA = features_schema()
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


def test_a_case_is_the_same_after_json() -> None:
    for case in (PLAIN, FULL):
        text = json.dumps(case_to_json(case))
        again = case_from_json(json.loads(text), SCHEMA)

        assert again == case
        assert again.id == case.id


def test_the_same_failure_is_stored_once_and_another_cause_separately(tmp_path: Path) -> None:
    crashes = Crashes(tmp_path / "crashes")
    names = [crashes.save(failure(PLAIN)), crashes.save(failure(FULL))]
    other = crashes.save(failure(PLAIN, "it broke otherwise"))

    assert names[0] == names[1] != other
    kept = {crash.id: crash for crash in crashes.load(SCHEMA)}
    assert kept.keys() == {names[0], other}
    assert kept[names[0]].case == FULL
    assert (kept[other].check, kept[other].cause) == ("some_check", "it broke otherwise")


def test_a_missing_directory_has_no_crashes(tmp_path: Path) -> None:
    assert Crashes(tmp_path / "missing").load(SCHEMA) == ()


def test_a_crash_of_a_removed_method_is_ignored_and_kept(tmp_path: Path) -> None:
    crashes = Crashes(tmp_path)
    crashes.save(failure(PLAIN))

    assert crashes.load(shop_schema()) == ()
    assert len(crashes.load(SCHEMA)) == 1


def test_the_id_of_a_case_depends_on_what_it_sends() -> None:
    other = Case(method=METHOD, phase="coverage", positive=True, requests=PLAIN.requests)

    assert PLAIN.id == other.id != FULL.id
