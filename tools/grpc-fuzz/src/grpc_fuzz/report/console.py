"""Output for people: live progress, a summary like that of pytest, and the coverage."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import console as rich_console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from grpc_fuzz.checks.check import Check
from grpc_fuzz.errors import Misuse
from grpc_fuzz.model import Case, Failure, FailureKey, Method, Reply, Severity
from grpc_fuzz.outcome import Outcome
from grpc_fuzz.settings import Settings

_COLOURS = {Severity.CRITICAL: "bold red", Severity.MAJOR: "red", Severity.MINOR: "yellow"}


class Console:
    """Prints one line per phase while it runs, and the failures at the end."""

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
        """Print the target and the seed."""
        source = settings.image.name if settings.image is not None else "reflection"
        self._console.rule("[bold]grpc-fuzz starts[/bold]", characters="=")
        self._console.print(
            f"contract: {escape(source)}, {len(methods)} methods\n"
            f"target: {settings.target}, seed: {settings.seed}, workers: {settings.workers}\n",
            highlight=False,
        )
        self._live.start()

    def on_phase(self, name: str) -> None:
        """Print the line of the phase before, and start a new one."""
        self._end_phase()
        self._phase, self._started = name, time.monotonic()

    def on_case(self, case: Case, reply: Reply, failures: list[Failure]) -> None:
        """Count the case."""
        with self._lock:
            self._cases[self._phase or case.phase] += 1

    def on_failure(self, failure: Failure, name: str) -> None:
        """Count the failure, and store its name for `replay`."""
        with self._lock:
            counter = self._deviated if failure.of_runtime else self._failed
            counter[self._phase or failure.case.phase] += 1
            self._names[failure.key] = name

    def on_end(self, outcome: Outcome) -> None:
        """Print the deviations of the runtime, the failures and a summary line."""
        self._end_phase()
        self._live.stop()
        if isinstance(outcome.error, Misuse):
            # The run did not start or could not continue. The command prints the reason.
            return
        runtime = [failure for failure in outcome.failures if failure.of_runtime]
        self._print_runtime([*runtime, *outcome.deviations], decides=bool(runtime))
        self._print_failures([entry for entry in outcome.failures if not entry.of_runtime])
        for path in outcome.given_up:
            line = f"{path} is no longer called in this run, because each call hung"
            self._console.print(Text(line, style="yellow"), soft_wrap=True)
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
            else "It does not decide the exit code; --strict-wire changes that."
        )
        self._console.print(
            "How the server's gRPC runtime deviates from the HTTP/2 and gRPC documents, for every"
            f" method. {verdict}\n",
            highlight=False,
        )
        for failure in failures:
            line = Text("- ", style="yellow")
            line.append(f"{failure.check}: {failure.cause}", style="none")
            self._console.print(line, soft_wrap=True)
            self._console.print(
                Text(f"  {failure.reproducers.get('replay', '')}", style="dim"), soft_wrap=True
            )

    def _print_failures(self, failures: Sequence[Failure]) -> None:
        if not failures:
            return
        self._console.print()
        self._console.rule("FAILURES", characters="=", style="red")
        for failure in failures:
            self._print_failure(failure)
        self._console.rule("short summary", characters="=", style="red")
        for failure in failures:
            self._console.print(self._summary_line(failure), soft_wrap=True)

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
            # Without markup or wrapping, because people copy a reproducer.
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


# The limit on characters of a reproducer.
_SHOWN_MAX = 2_000


def _shortened(text: str) -> str:
    """Return the start of a long reproducer, which the file of the crash holds in full."""
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]} … ({len(text)} characters)"


# Any: what `ContractCoverage.to_json` returns, which is JSON.
def coverage_lines(coverage: Mapping[str, Mapping[str, Any]]) -> Iterator[Text]:
    """Yield a paragraph for each method: what was covered, and what is missing."""
    for path, method in coverage.items():
        fields = method["fields"]
        yield Text(path, style="bold")
        yield _line("fields", f"{sum(fields.values())} of {len(fields)}, enum values included")
        yield _line("statuses", _counts(method["statuses"]))
        yield _line("reasons", _counts(method["reasons"]))
        missing = _missing(method)
        if missing:
            yield _line("missing", ", ".join(missing), style="yellow")
        yield Text()


def _line(name: str, value: str, style: str = "") -> Text:
    return Text(f"  {name:<10}").append(value or "none", style=style)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _missing(method: Mapping[str, Any]) -> list[str]:
    missing = [name for name, covered in method["fields"].items() if not covered]
    missing += [name for name in method["declared_reasons"] if name not in method["reasons"]]
    if not method["declared_reasons"]:
        declared = method["declared_statuses"]
        missing += [name for name in declared if name not in method["statuses"]]
    return missing
