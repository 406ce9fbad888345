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

from grpc_fuzz.misuse import Misuse
from grpc_fuzz.model import Case, Check, Failure, FailureKey, Method, Reply, Severity
from grpc_fuzz.outcome import Outcome
from grpc_fuzz.settings import Settings

_COLOURS = {Severity.CRITICAL: "bold red", Severity.MAJOR: "red", Severity.MINOR: "yellow"}


class Console:
    """Shows one line per phase while it runs, and the failures at the end."""

    def __init__(self, console: rich_console.Console, checks: Sequence[Check]) -> None:
        self._console = console
        self._sentences = {check.name: check.sentence for check in checks}
        self._names: dict[FailureKey, str] = {}
        self._phase: str | None = None
        self._cases: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._deviated: Counter[str] = Counter()
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
            counter = self._deviated if failure.of_runtime else self._failed
            counter[self._phase or failure.case.phase] += 1
            self._names[failure.key] = name

    def on_end(self, outcome: Outcome) -> None:
        """Prints what the runtime does, the failures, and the line that sums all up."""
        self._end_phase()
        self._live.stop()
        if isinstance(outcome.error, Misuse):
            # The run has not begun, or could not go on; the command prints why.
            return
        runtime = [failure for failure in outcome.failures if failure.of_runtime]
        self._print_runtime([*runtime, *outcome.deviations], decides=bool(runtime))
        others = [failure for failure in outcome.failures if not failure.of_runtime]
        if others:
            self._console.print()
            self._console.rule("FAILURES", characters="=", style="red")
            for failure in others:
                self._print_failure(failure)
            self._console.rule("short summary", characters="=", style="red")
            for failure in others:
                self._console.print(self._summary_line(failure), soft_wrap=True)
        for path in outcome.given_up:
            self._console.print(
                Text(f"{path} was not called any more: call after call hung", style="yellow"),
                soft_wrap=True,
            )
        bad = bool(outcome.failures) or outcome.error is not None
        colour = "red" if bad else "green"
        self._console.rule(
            f"[bold {colour}]{_result(outcome)}, {outcome.cases} cases"
            f" in {outcome.seconds:.2f}s[/]",
            characters="=",
            style=colour,
        )

    def _print_runtime(self, failures: Sequence[Failure], *, decides: bool) -> None:
        if not failures:
            return
        self._console.print()
        self._console.rule("runtime / wire behaviour", characters="=", style="yellow")
        verdict = (
            "It decides the exit code, because of --strict-wire."
            if decides
            else "It does not decide the exit code; --strict-wire makes it."
        )
        self._console.print(
            "Where the server's gRPC runtime deviates from the HTTP/2 and gRPC documents, whatever"
            f" the method. {verdict}\n",
            highlight=False,
        )
        for failure in failures:
            line = Text("- ", style="yellow")
            line.append(f"{failure.check}: {failure.cause}", style="none")
            self._console.print(line, soft_wrap=True)
            self._console.print(
                Text(f"  {failure.reproducers.get('replay', '')}", style="dim"), soft_wrap=True
            )

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._console.print(self._progress())
            self._phase = None

    def _progress(self) -> Text:
        if self._phase is None:
            return Text()
        cases, failed = self._cases[self._phase], self._failed[self._phase]
        deviated = self._deviated[self._phase]
        seconds = time.monotonic() - self._started
        line = Text(f"{self._phase:<10} ", style="bold")
        line.append(f"{cases:>7} cases  {seconds:>7.1f}s  ", style="none")
        line.append(f"{failed} failed" if failed else "ok", style="red" if failed else "green")
        if deviated:
            line.append(f", {deviated} {_deviations(deviated)} of the runtime", style="yellow")
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
            "seen": f"in {failure.times} call{'s' * (failure.times != 1)}",
        }
        for index, call in enumerate(case.before, 1):
            rows[f"call {index}"] = f"{call.method.path} {call.requests!r}"[:300]
        for name, value in rows.items():
            table.add_row(Text(name, style="bold"), Text(value))
        self._console.print(table)
        replay = {"replay": f"grpc-fuzz replay {self._names.get(failure.key, '')}"}
        for kind, text in (replay | dict(failure.reproducers)).items():
            self._console.print(Text(f"\n# {kind}", style="dim"))
            # As it is: a reproducer is for copying.
            self._console.print(Text(_shortened(text)), soft_wrap=True)
        self._console.print()

    def _summary_line(self, failure: Failure) -> Text:
        line = Text("FAILED ", style=_COLOURS[failure.severity])
        where = f"{failure.case.method.path.removeprefix('/')}::{failure.check}"
        line.append(f"{where} - {failure.cause}", style="none")
        return line


def _deviations(count: int) -> str:
    return "deviation" if count == 1 else "deviations"


def _result(outcome: Outcome) -> str:
    parts = []
    if outcome.error is not None:
        parts.append(escape(f"ended early by {type(outcome.error).__name__}"))
    if outcome.failures:
        parts.append(f"{len(outcome.failures)} failed")
    elif outcome.error is None:
        parts.append("passed")
    if outcome.deviations:
        count = len(outcome.deviations)
        parts.append(f"{count} {_deviations(count)} of the runtime (not judged)")
    return ", ".join(parts)


_SHOWN_MAX = 2_000


def _shortened(text: str) -> str:
    """Long reproducers are in the crash's file, whole."""
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]} … ({len(text)} characters)"
