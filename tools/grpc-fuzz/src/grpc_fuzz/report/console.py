"""The report for people: live progress, then a summary that reads like pytest's."""

import threading
import time
from collections import Counter
from collections.abc import Sequence

from rich import console as rich_console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from grpc_fuzz.model import Case, Check, Failure, Method, Reply, Severity
from grpc_fuzz.settings import Settings

_COLOURS = {Severity.CRITICAL: "bold red", Severity.MAJOR: "red", Severity.MINOR: "yellow"}


class Console:
    """Shows one line per phase while it runs, and the failures at the end."""

    def __init__(self, console: rich_console.Console, checks: Sequence[Check]) -> None:
        self._console = console
        self._sentences = {check.name: check.sentence for check in checks}
        self._names: dict[tuple[str, str, str], str] = {}
        self._phase: str | None = None
        self._cases: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._started = 0.0
        self._lock = threading.Lock()
        self._live = Live(console=console, get_renderable=self._progress, transient=True)

    def on_start(self, settings: Settings, methods: Sequence[Method]) -> None:
        """Prints what is fuzzed, and with which seed."""
        source = settings.image.name if settings.image is not None else "reflection"
        self._console.rule("[bold]grpc-fuzz starts[/bold]", characters="=")
        self._console.print(
            f"contract: {escape(source)}, {len(methods)} methods\n"
            f"target: {settings.target}, seed: {settings.seed}, workers: {settings.workers}\n",
            highlight=False,
        )
        self._live.start()

    def on_phase(self, name: str) -> None:
        """Prints the line of the phase before, and begins a new one."""
        self._end_phase()
        self._phase, self._started = name, time.monotonic()

    def on_case(self, case: Case, reply: Reply, failures: list[Failure]) -> None:
        """Counts."""
        with self._lock:
            self._cases[self._phase or case.phase] += 1

    def on_failure(self, failure: Failure, name: str) -> None:
        """Counts, and remembers the name for `replay`."""
        with self._lock:
            self._failed[self._phase or failure.case.phase] += 1
            self._names[failure.key] = name

    def on_end(self, failures: Sequence[Failure], cases: int, seconds: float) -> None:
        """Prints the failures, and the line that sums all up."""
        self._end_phase()
        self._live.stop()
        if failures:
            self._console.print()
            self._console.rule("FAILURES", characters="=", style="red")
            for failure in failures:
                self._print_failure(failure)
            self._console.rule("short summary", characters="=", style="red")
            for failure in failures:
                self._console.print(self._summary_line(failure))
        colour = "red" if failures else "green"
        result = f"{len(failures)} failed, " if failures else "passed, "
        self._console.rule(
            f"[bold {colour}]{result}{cases} cases in {seconds:.2f}s[/]",
            characters="=",
            style=colour,
        )

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._console.print(self._progress())
            self._phase = None

    def _progress(self) -> Text:
        if self._phase is None:
            return Text()
        cases, failed = self._cases[self._phase], self._failed[self._phase]
        seconds = time.monotonic() - self._started
        line = Text(f"{self._phase:<10} ", style="bold")
        line.append(f"{cases:>7} cases  {seconds:>7.1f}s  ", style="none")
        line.append(f"{failed} failed" if failed else "ok", style="red" if failed else "green")
        return line

    def _print_failure(self, failure: Failure) -> None:
        case, reply = failure.case, failure.reply
        title = f"{failure.check} · {case.method.path}"
        self._console.rule(escape(title), characters="_", style=_COLOURS[failure.severity])
        table = Table.grid(padding=(0, 2))
        status = reply.status or f"none ({reply.transport_error})"
        rows = {
            "check": f"{self._sentences.get(failure.check, '')} [{failure.severity.value}]",
            "cause": failure.cause,
            "case": f"{case.description} (phase {case.phase}, case {case.id})",
            "reply": f"{status} {reply.message}"[:300],
            "replay": f"grpc-fuzz replay {self._names.get(failure.key, '')}",
        }
        for index, call in enumerate(case.before, 1):
            rows[f"call {index}"] = f"{call.method.path} {call.requests!r}"[:300]
        for name, value in rows.items():
            table.add_row(Text(name, style="bold"), Text(value))
        self._console.print(table)
        for kind, text in failure.reproducers.items():
            self._console.print(Text(f"\n# {kind}", style="dim"))
            # As it is: a reproducer is for copying.
            self._console.print(Text(_shortened(text)), soft_wrap=True)
        self._console.print()

    def _summary_line(self, failure: Failure) -> Text:
        line = Text("FAILED ", style=_COLOURS[failure.severity])
        where = f"{failure.case.method.path.removeprefix('/')}::{failure.check}"
        line.append(f"{where} - {failure.cause}", style="none")
        return line


_SHOWN_MAX = 2_000


def _shortened(text: str) -> str:
    """Long reproducers are in the crash's file, whole."""
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]} … ({len(text)} characters)"
