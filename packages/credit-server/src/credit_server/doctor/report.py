"""Report findings: as lines for people, as JSON for programs, and as an exit code."""

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

EXIT_OK = 0
EXIT_FAILS = 1


class Verdict(Enum):
    """How bad a finding is, from best to worst. The values are exported."""

    OK = "ok"
    WARNING = "warning"
    FAILS = "fails"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result of a check.

    Attributes:
        check: The name of the check.
        verdict: How bad it is.
        found: What the check found.
        remedy: What the operator must do; empty if the verdict is OK.
    """

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


# If the column beside the name of the check would be narrower, texts are wrapped below the name.
_ROOM_MIN = 30
_INDENT_BELOW = 4


def counted(number: int, noun: str) -> str:
    """Return a number with a noun, whose plural ends in s: `1 certificate`, `2 certificates`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ok(check: str, found: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(check=check, verdict=Verdict.OK, found=found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """Return a finding that does not stop a server, and is a risk."""
    return Finding(check=check, verdict=Verdict.WARNING, found=found, remedy=remedy)


def fails(check: str, found: str, remedy: str) -> Finding:
    """Return a finding that keeps a server from serving, or puts credits at risk."""
    return Finding(check=check, verdict=Verdict.FAILS, found=found, remedy=remedy)


def as_text(findings: Sequence[Finding], *, width: int | None = None) -> str:
    """Return an entry for each finding, and a last line that counts them.

    Args:
        findings: The findings.
        width: Where entries are wrapped, with an indent; None: an entry is one line.
    """
    verdict_width = max(len(verdict.value) for verdict in Verdict)
    check_width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        head = f"{finding.verdict.value:<{verdict_width}}  {finding.check:<{check_width}}  "
        remedy = f" -> {finding.remedy}" if finding.remedy else ""
        lines += _wrapped(head, _one_line(finding.found) + _one_line(remedy), width)
    counts = Counter(finding.verdict for finding in findings)
    warnings = counted(counts[Verdict.WARNING], "warning")
    failures = counted(counts[Verdict.FAILS], "failure")
    lines.append(f"{counts[Verdict.OK]} ok, {warnings}, {failures}")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """Return a JSON document with the worst verdict and all findings in their order."""
    return json.dumps(
        {
            "verdict": _worst(findings).value,
            "findings": [
                {
                    "check": finding.check,
                    "verdict": finding.verdict.value,
                    "found": finding.found,
                    "remedy": finding.remedy,
                }
                for finding in findings
            ],
        },
        indent=2,
    )


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 if a check fails, and 0 otherwise. Warnings do not change it."""
    return EXIT_FAILS if _worst(findings) is Verdict.FAILS else EXIT_OK


def _worst(findings: Sequence[Finding]) -> Verdict:
    found = {finding.verdict for finding in findings}
    return next((verdict for verdict in reversed(Verdict) if verdict in found), Verdict.OK)


def _one_line(text: str) -> str:
    # Errors of the driver and of files can contain line breaks.
    return " ".join(text.split()) if "\n" in text else text


def _wrapped(head: str, text: str, width: int | None) -> list[str]:
    if width is None:
        return [head + text]
    indent = len(head) if width - len(head) >= _ROOM_MIN else _INDENT_BELOW
    return textwrap.wrap(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * indent,
        # Paths, addresses and commands stay in one piece, so that they can be copied.
        break_long_words=False,
        break_on_hyphens=False,
    )
