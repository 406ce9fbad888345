"""A correct service passes on every gRPC runtime, because deviations of a runtime do not decide.

The servers run in separate processes, on grpcio, grpclib and grpc-js.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from credit_testing import node
from grpc_fuzz.cli import main
from grpc_fuzz.report.junit import RUNTIME_SUITE
from grpc_tools import protoc  # type: ignore[import-untyped]  # it ships no types

SERVERS = Path(__file__).parent / "runtimes"
RUNTIMES = ("grpcio", "grpclib", "grpc-js")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the image of notes.proto and the modules that the servers import."""
    folder = tmp_path_factory.mktemp("notes")
    plugin = Path(sys.executable).with_name("protoc-gen-grpclib_python")
    arguments = [
        *("protoc", f"-I{SERVERS}", f"-I{Path(protoc.__file__).parent / '_proto'}"),
        *("--include_imports", f"-o{folder / 'notes.binpb'}"),
        *(f"--python_out={folder}", f"--grpc_python_out={folder}"),
        *(f"--grpclib_python_out={folder}", f"--plugin=protoc-gen-grpclib_python={plugin}"),
        "notes.proto",
    ]
    assert protoc.main(arguments) == 0
    return folder


@contextmanager
def serving(command: Sequence[str | Path], **environment: str) -> Iterator[str]:
    """Run a server in a separate process, and yield its address."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
        text=True,
    )
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
        assert process.poll() is None, "the server has ended"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module", params=RUNTIMES)
def server(request: pytest.FixtureRequest, generated: Path) -> Iterator[str]:
    """Serve the correct service on each runtime, and yield its address."""
    if request.param == "grpc-js":
        script, proto = SERVERS / "grpc_js_server.js", SERVERS / "notes.proto"
        command = [node.PROGRAMS / "node", script, proto]
        with serving(command, NODE_PATH=str(node.MODULES)) as address:
            yield address
    else:
        script = SERVERS / f"{request.param}_server.py"
        with serving([sys.executable, script, generated]) as address:
            yield address


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fuzz(image: Path, address: str, *options: str) -> Result:
    # A runtime handles all values alike.
    few = ("--max-examples", "5", "--coverage-values", "1")
    arguments = ["run", str(image), "--target", address, *few, *options]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


# Any: JSON.
def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.ndjson").read_text().splitlines()]


def test_a_correct_service_passes_with_streams_of_no_one_and_many_messages(
    server: str, generated: Path, folder: Path
) -> None:
    result = fuzz(
        generated / "notes.binpb",
        server,
        *("--phases", "examples,coverage,fuzzing,stateful", "--request-timeout", "60"),
        *("--report", "ndjson=events.ndjson"),
    )

    assert result.exit_code == 0, result.output
    called = {event["method"] for event in events(folder) if event["event"] == "case"}
    assert {path.rpartition("/")[2] for path in called} == {"Echo", "Count", "Split", "Chat"}


def test_deviations_of_the_runtime_are_reported_once_and_do_not_decide(
    server: str, generated: Path, folder: Path
) -> None:
    wire = ("--phases", "wire", "--request-timeout", "2")
    reports = ("--report", "ndjson=events.ndjson,junit=report.xml")
    result = fuzz(generated / "notes.binpb", server, *wire, *reports)

    assert result.exit_code == 0, result.output
    found = [event for event in events(folder) if event["event"] == "failure"]
    assert found, "no runtime conforms to all requirements of the documents"
    assert all(event["of_runtime"] for event in found)
    seen = Counter((event["check"], event["status"], event["cause"]) for event in found)
    assert set(seen.values()) == {1}
    section = result.output.partition("runtime / wire behaviour")[2]
    assert section
    assert all(" ".join(event["cause"].split()) in section for event in found)
    suites = ET.parse(folder / "report.xml").getroot().findall("testsuite")
    (suite,) = (suite for suite in suites if suite.get("name") == RUNTIME_SUITE)
    assert (suite.get("failures"), suite.get("skipped")) == ("0", str(len(found)))
    assert {entry.get("failures") for entry in suites} == {"0"}


def test_strict_wire_lets_the_runtime_decide(server: str, generated: Path, folder: Path) -> None:
    wire = ("--phases", "wire", "--request-timeout", "2", "--include-method", "*/Echo")
    result = fuzz(generated / "notes.binpb", server, *wire, "--strict-wire", "--max-failures", "1")

    assert result.exit_code == 1
    assert "runtime / wire behaviour" in result.output
