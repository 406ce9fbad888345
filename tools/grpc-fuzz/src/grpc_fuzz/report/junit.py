"""The report in JUnit's XML, which CI servers read: one test case per method and check."""

import threading
import traceback
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from grpc_fuzz.model import Case, Failure, Method, Reply
from grpc_fuzz.outcome import Outcome
from grpc_fuzz.settings import Settings

RUNTIME_SUITE = "runtime / wire behaviour"

# XML 1.0 allows no control characters except tab, line feed and carriage return.
_NOT_XML = {code: "\ufffd" for code in range(32) if chr(code) not in "\t\n\r"} | {
    0xFFFE: "\ufffd",
    0xFFFF: "\ufffd",
}


class JUnit:
    """Collects the events of a run, and writes the file at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A path that cannot be written fails before the run and not after it.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._methods: tuple[Method, ...] = ()
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def on_start(self, settings: Settings, methods: Sequence[Method]) -> None:
        """Store the methods."""
        self._methods = tuple(methods)

    def on_phase(self, name: str) -> None:
        """Do nothing, because the report has no phases."""

    def on_case(self, case: Case, reply: Reply, failures: list[Failure]) -> None:
        """Add the time of the call."""
        with self._lock:
            self._seconds[case.method.path] += reply.seconds

    def on_failure(self, failure: Failure, name: str) -> None:
        """Do nothing, because the outcome holds all failures."""

    def on_end(self, outcome: Outcome) -> None:
        """Write the file."""
        root = ET.Element("testsuites", name="grpc-fuzz", time=f"{outcome.seconds:.3f}")
        for method in self._methods:
            of_method = [
                failure
                for failure in outcome.failures
                if not failure.of_runtime and failure.case.method.path == method.path
            ]
            self._add_method(root, method, of_method)
        deciding = [failure for failure in outcome.failures if failure.of_runtime]
        _add_runtime(root, deciding, outcome.deviations)
        if outcome.error is not None:
            _add_error(root, outcome.error, outcome.error_line or "")
        ET.ElementTree(root).write(self._path, encoding="utf-8", xml_declaration=True)

    def _add_method(self, root: ET.Element, method: Method, failures: list[Failure]) -> None:
        time = f"{self._seconds[method.path]:.3f}"
        suite = _suite(root, method.path, tests=max(1, len(failures)), failures=len(failures))
        if not failures:
            ET.SubElement(suite, "testcase", classname=method.service, name=method.name, time=time)
        for failure in failures:
            name = f"{method.name}[{failure.check}]"
            entry = ET.SubElement(suite, "testcase", classname=method.service, name=name, time=time)
            _add_failure(entry, failure)


def _add_runtime(
    root: ET.Element, failures: Sequence[Failure], deviations: Sequence[Failure]
) -> None:
    """Add the deviations of the runtime, as skipped test cases unless they decide."""
    if not failures and not deviations:
        return
    tests = len(failures) + len(deviations)
    suite = _suite(
        root, RUNTIME_SUITE, tests=tests, failures=len(failures), skipped=len(deviations)
    )
    for failure in (*failures, *deviations):
        name = f"{failure.check}: {failure.cause}".translate(_NOT_XML)
        entry = ET.SubElement(suite, "testcase", classname="runtime", name=name)
        if failure in failures:
            _add_failure(entry, failure)
        else:
            message = "does not decide the exit code; --strict-wire changes that"
            ET.SubElement(entry, "skipped", message=message)


def _add_failure(entry: ET.Element, failure: Failure) -> None:
    message = failure.cause.translate(_NOT_XML)
    node = ET.SubElement(entry, "failure", type=failure.check, message=message)
    node.text = "\n\n".join(
        f"{kind}:\n{text}" for kind, text in failure.reproducers.items()
    ).translate(_NOT_XML)


def _add_error(root: ET.Element, error: BaseException, line: str) -> None:
    """Add a test case of the run itself, for what ended it early."""
    suite = _suite(root, "grpc-fuzz", tests=1, failures=0, errors=1)
    entry = ET.SubElement(suite, "testcase", classname="grpc-fuzz", name="run")
    message = line.translate(_NOT_XML)
    node = ET.SubElement(entry, "error", type=type(error).__name__, message=message)
    node.text = "".join(traceback.format_exception(error)).translate(_NOT_XML)


def _suite(root: ET.Element, name: str, **counts: int) -> ET.Element:
    numbers = {kind: str(count) for kind, count in counts.items()}
    return ET.SubElement(root, "testsuite", {"name": name, **numbers})
