"""The result of a run: as JSON, as a table at a terminal, and as Markdown for the documentation."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "report.json"
OUTCOMES = (
    "acknowledged",
    "replayed",
    "refused",
    "validated",
    "no effect",
    "unknown",
    "shown",
    "failed",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a run did and found.

    Attributes:
        seed: The seed.
        seconds: How long the faults lasted.
        faults: How often each fault happened.
        overlaps: How many faults began while another one lasted.
        calls: The calls by kind, and by outcome.
        entries: The entries of all histories.
        silence_seconds: The longest time without an acknowledged write.
        reads: The reads that were compared with the histories.
        watched: The events of watches.
        unchecked: The rejections that were not checked, because too many states were possible.
        did_not_happen: How often a fault did not happen at its first attempt, or did not happen at
            all, by fault and reason.
        findings: The violations.
    """

    seed: int
    seconds: float
    faults: Mapping[str, int]
    overlaps: int
    calls: Mapping[str, Mapping[str, int]]
    entries: int
    silence_seconds: float
    reads: int
    watched: int
    unchecked: int
    did_not_happen: Mapping[str, Mapping[str, int]]
    findings: list[str]

    def write(self, folder: Path) -> Path:
        """Write the report as JSON, and return the file."""
        path = folder / FILE
        path.write_text(self.json() + "\n")
        return path

    def json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=2)

    def markdown(self) -> str:
        """Return the tables of the documentation."""
        return "\n".join(self._markdown())

    def _markdown(self) -> Iterator[str]:
        yield f"Seed {self.seed}, {self.seconds:,.0f} s of faults."
        yield from ("", "| fault | times |", "|---|---|")
        yield from (f"| {fault} | {count} |" for fault, count in self.faults.items())
        overlaps = f"of which {self.overlaps} began during another one"
        yield f"| **all**, {overlaps} | {self.total_faults} |"
        if self.did_not_happen:
            yield from (
                "",
                "| fault that did not happen at the first attempt | reason | times |",
                "|---|---|---|",
            )
            yield from (f"| {' | '.join(row)} |" for row in self.delays())
        yield from ("", f"| call | {' | '.join(OUTCOMES)} |", "|---" * (len(OUTCOMES) + 1) + "|")
        for kind, outcomes in self.calls.items():
            counts = " | ".join(str(outcomes.get(outcome, "")) for outcome in OUTCOMES)
            yield f"| {kind} | {counts} |"
        totals = self.totals()
        counts = " | ".join(f"{totals[outcome]:,}" for outcome in OUTCOMES)
        yield f"| **all** | {counts} |"
        yield ""
        yield from ("| result | |", "|---|---|")
        yield from (f"| {name} | {value} |" for name, value in self.results())

    def results(self) -> Iterator[tuple[str, str]]:
        """Yield the rows of the last table."""
        yield "entries in the histories", f"{self.entries:,}"
        yield (
            "writes with an unknown outcome, which were sent again",
            f"{self.totals()['unknown']:,}",
        )
        yield "longest time without an acknowledged write", f"{self.silence_seconds:.1f} s"
        yield "reads that were compared with the histories", f"{self.reads:,}"
        yield "events of watches that were compared with the histories", f"{self.watched:,}"
        yield (
            "rejections that were not checked: too many states were possible",
            f"{self.unchecked:,}",
        )
        yield "**findings**", f"**{len(self.findings)}**"

    def delays(self) -> Iterator[tuple[str, str, str]]:
        """Yield the rows of the faults that did not happen at the first attempt."""
        for fault, reasons in self.did_not_happen.items():
            yield from ((fault, reason, str(times)) for reason, times in reasons.items())

    @property
    def total_faults(self) -> int:
        """Return the number of faults."""
        return sum(self.faults.values())

    def totals(self) -> Counter[str]:
        """Return the number of calls by outcome."""
        total: Counter[str] = Counter()
        for outcomes in self.calls.values():
            total.update(outcomes)
        return total


def load(path: Path) -> Report:
    """Return the report in a file."""
    return Report(**json.loads(path.read_text()))
