"""Reports contain the events of a run, with any characters."""

import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

from grpc_fuzz import checks
from grpc_fuzz.model import Case, Failure, Reply, Severity
from grpc_fuzz.outcome import Listener, Outcome
from grpc_fuzz.report import Console, JUnit, Ndjson
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target
from rich.console import Console as RichConsole

from tests.grpc_fuzz.contracts import shop_schema

SCHEMA = shop_schema()
PUT, GET, *_ = SCHEMA.methods
SETTINGS = Settings(target=Target(host="shop", port=1), seed=42)
CASE = Case(method=PUT, phase="fuzzing", positive=True, requests=(b"",), description="[bold]")
FAILURE = Failure(
    check="always_replies",
    severity=Severity.CRITICAL,
    case=CASE,
    reply=Reply(status="UNKNOWN", message="\x00 [/red] ü"),
    cause="it \x00 broke [/]",
    reproducers={"bytes": "00 \x1b"},
)


DEVIATION = replace(
    FAILURE,
    check="protocol_status",
    cause="two messages: OK instead of UNIMPLEMENTED",
    case=replace(CASE, about="runtime"),
    reproducers={"replay": "grpc-fuzz replay facade"},
    of_runtime=True,
)


def send_events(
    listener: Listener,
    failures: list[Failure],
    deviations: list[Failure] | None = None,
    error: BaseException | None = None,
) -> None:
    listener.on_start(SETTINGS, [PUT, GET])
    listener.on_phase("fuzzing")
    listener.on_case(CASE, Reply(status="OK", seconds=0.5), failures)
    for failure in failures:
        listener.on_failure(failure, "c0ffee")
    listener.on_end(
        Outcome(
            failures=tuple(failures),
            deviations=tuple(deviations or ()),
            cases=1,
            seconds=2.0,
            error=error,
        )
    )


def shown(
    failures: list[Failure],
    deviations: list[Failure] | None = None,
    error: BaseException | None = None,
) -> str:
    output = io.StringIO()
    console = Console(RichConsole(file=output, width=200), checks.ALL)
    send_events(console, failures, deviations, error)
    return output.getvalue()


def test_the_summary_of_a_passed_run_is_one_line() -> None:
    text = shown([])

    assert "seed: 42" in text
    assert "passed, 1 cases in 2.00s" in text
    assert "FAILURES" not in text


def test_a_failure_is_printed_with_all_details() -> None:
    text = shown([FAILURE])

    assert "1 failed, 1 cases" in text
    assert "Every call ends with a status" in text
    assert "grpc-fuzz replay c0ffee" in text
    assert "[bold] (phase fuzzing" in text
    assert "FAILED shop.v1.Orders/Put::always_replies - it" in text


def test_deviations_of_the_runtime_have_their_own_section() -> None:
    text = shown([], [DEVIATION])

    section = text.partition("runtime / wire behaviour")[2]
    assert "It does not decide the exit code" in section
    assert "- protocol_status: two messages: OK instead of UNIMPLEMENTED" in section
    assert "grpc-fuzz replay facade" in section
    assert "passed, 1 deviation of the runtime (not judged), 1 cases" in section
    assert "FAILURES" not in text


def test_deviations_that_decide_are_failures() -> None:
    text = shown([DEVIATION])

    assert "It decides the exit code, because of --strict-wire." in text
    assert "1 failed, 1 cases" in text


def test_every_report_contains_what_ended_the_run_early(tmp_path: Path) -> None:
    error = RuntimeError("the tool \x00 failed")
    send_events(JUnit(tmp_path / "report.xml"), [FAILURE], error=error)
    send_events(Ndjson(tmp_path / "report.ndjson"), [FAILURE], error=error)

    assert "ended early by RuntimeError, 1 failed, 1 cases" in shown([FAILURE], error=error)
    errors = ET.parse(tmp_path / "report.xml").getroot().findall("testsuite/testcase/error")
    assert [entry.get("message") for entry in errors] == ["RuntimeError: the tool \ufffd failed"]
    events = [json.loads(line) for line in (tmp_path / "report.ndjson").read_text().splitlines()]
    assert {"event": "error", "error": "RuntimeError: the tool \x00 failed"} in events
    assert [event["event"] for event in events[-2:]] == ["error", "end"]


def test_junit_has_a_suite_of_skipped_cases_for_the_runtime(tmp_path: Path) -> None:
    send_events(JUnit(tmp_path / "report.xml"), [], [DEVIATION])

    suites = ET.parse(tmp_path / "report.xml").getroot().findall("testsuite")
    (suite,) = (suite for suite in suites if suite.get("name") == "runtime / wire behaviour")
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("1", "0", "1")


def test_junit_has_a_suite_for_each_method(tmp_path: Path) -> None:
    send_events(JUnit(tmp_path / "new" / "report.xml"), [FAILURE])

    root = ET.parse(tmp_path / "new" / "report.xml").getroot()
    suites = {suite.get("name"): suite for suite in root.findall("testsuite")}
    assert {name: suite.get("failures") for name, suite in suites.items()} == {
        PUT.path: "1",
        GET.path: "0",
    }
    failed = suites[PUT.path].find("testcase/failure")
    assert failed is not None
    assert failed.get("message") == "it \ufffd broke [/]"
    assert "00 \ufffd" in (failed.text or "")


def test_ndjson_has_a_line_for_each_event(tmp_path: Path) -> None:
    send_events(Ndjson(tmp_path / "new" / "report.ndjson"), [FAILURE])

    lines = (tmp_path / "new" / "report.ndjson").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["start", "phase", "case", "failure", "end"]
    assert events[2]["failed"] == ["always_replies"]
    assert events[3]["cause"] == FAILURE.cause
    assert events[3]["case"]["method"] == PUT.path
