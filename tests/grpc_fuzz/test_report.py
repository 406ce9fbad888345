"""Reports hold what happened, whatever characters it came with."""

import io
import json
from pathlib import Path
from xml.etree import ElementTree as ET

from grpc_fuzz import checks
from grpc_fuzz.model import Case, Failure, Reply, Severity
from grpc_fuzz.report import Console, JUnit, Listener, Ndjson
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target
from rich.console import Console as RichConsole

from tests.grpc_fuzz.broken_server import shop_schema

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


def tell(listener: Listener, failures: list[Failure]) -> None:
    listener.on_start(SETTINGS, [PUT, GET])
    listener.on_phase("fuzzing")
    listener.on_case(CASE, Reply(status="OK", seconds=0.5), failures)
    for failure in failures:
        listener.on_failure(failure, "c0ffee")
    listener.on_end(failures, 1, 2.0)


def shown(failures: list[Failure]) -> str:
    output = io.StringIO()
    tell(Console(RichConsole(file=output, width=200), checks.ALL), failures)
    return output.getvalue()


def test_the_summary_of_a_good_run_is_one_line() -> None:
    text = shown([])

    assert "seed: 42" in text
    assert "passed, 1 cases in 2.00s" in text
    assert "FAILURES" not in text


def test_a_failure_is_shown_with_all_that_helps() -> None:
    text = shown([FAILURE])

    assert "1 failed, 1 cases" in text
    assert "Every call ends with a status" in text
    assert "grpc-fuzz replay c0ffee" in text
    assert "[bold] (phase fuzzing" in text
    assert "FAILED shop.v1.Orders/Put::always_replies - it" in text


def test_junit_has_a_suite_for_each_method(tmp_path: Path) -> None:
    tell(JUnit(tmp_path / "new" / "report.xml"), [FAILURE])

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
    tell(Ndjson(tmp_path / "new" / "report.ndjson"), [FAILURE])

    lines = (tmp_path / "new" / "report.ndjson").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["start", "phase", "case", "failure", "end"]
    assert events[2]["failed"] == ["always_replies"]
    assert events[3]["cause"] == FAILURE.cause
    assert events[3]["case"]["method"] == PUT.path
