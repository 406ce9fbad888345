"""The report that CI servers read: one test case per method and check."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from grpc_fuzz.model import Case, Failure, Method, Reply
from grpc_fuzz.settings import Settings

# XML 1.0 takes no control characters but tab, line feed and carriage return.
_NOT_XML = {code: "\ufffd" for code in range(32) if chr(code) not in "\t\n\r"} | {
    0xFFFE: "\ufffd",
    0xFFFF: "\ufffd",
}


class JUnit:
    """Gathers a run, and writes it at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._methods: tuple[Method, ...] = ()
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def on_start(self, settings: Settings, methods: Sequence[Method]) -> None:
        """Notes what is fuzzed."""
        self._methods = tuple(methods)

    def on_phase(self, name: str) -> None:
        """Phases do not show in this report."""

    def on_case(self, case: Case, reply: Reply, failures: list[Failure]) -> None:
        """Adds up the time."""
        with self._lock:
            self._seconds[case.method.path] += reply.seconds

    def on_failure(self, failure: Failure, name: str) -> None:
        """Failures come with the end."""

    def on_end(self, failures: Sequence[Failure], cases: int, seconds: float) -> None:
        """Writes the file."""
        root = ET.Element("testsuites", name="grpc-fuzz", time=f"{seconds:.3f}")
        for method in self._methods:
            mine = [failure for failure in failures if failure.case.method.path == method.path]
            self._add_suite(root, method, mine)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        ET.ElementTree(root).write(self._path, encoding="utf-8", xml_declaration=True)

    def _add_suite(self, root: ET.Element, method: Method, failures: list[Failure]) -> None:
        time = f"{self._seconds[method.path]:.3f}"
        count = str(len(failures))
        suite = ET.SubElement(
            root, "testsuite", name=method.path, tests=str(max(1, len(failures))), failures=count
        )
        if not failures:
            ET.SubElement(suite, "testcase", classname=method.service, name=method.name, time=time)
        for failure in failures:
            name = f"{method.name}[{failure.check}]"
            entry = ET.SubElement(suite, "testcase", classname=method.service, name=name, time=time)
            message = failure.cause.translate(_NOT_XML)
            node = ET.SubElement(entry, "failure", type=failure.check, message=message)
            node.text = "\n\n".join(
                f"{kind}:\n{text}" for kind, text in failure.reproducers.items()
            ).translate(_NOT_XML)
