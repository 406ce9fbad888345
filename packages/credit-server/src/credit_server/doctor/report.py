"""The report: findings as lines for people, as JSON for machines, and as an exit code."""

import json
from collections import Counter
from collections.abc import Sequence

from credit_server.doctor.finding import Finding, Verdict

EXIT_WELL = 0
EXIT_FAILS = 1

_VERDICT_WIDTH = max(len(verdict.value) for verdict in Verdict)


def as_text(findings: Sequence[Finding]) -> str:
    """Return one line per finding, and a last one that counts them."""
    check_width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        remedy = f" -> {finding.remedy}" if finding.remedy else ""
        lines.append(
            f"{finding.verdict.value:<{_VERDICT_WIDTH}}  {finding.check:<{check_width}}"
            f"  {_one_line(finding.found)}{_one_line(remedy)}"
        )
    counts = Counter(finding.verdict for finding in findings)
    lines.append(", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict))
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """Return a JSON document: the worst verdict, and the findings in their order."""
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
    """Return 1 when a check fails, and 0 otherwise; warnings are for people."""
    return EXIT_FAILS if _worst(findings) is Verdict.FAILS else EXIT_WELL


def _worst(findings: Sequence[Finding]) -> Verdict:
    found = {finding.verdict for finding in findings}
    return next((verdict for verdict in reversed(Verdict) if verdict in found), Verdict.OK)


def _one_line(text: str) -> str:
    # Messages of the driver and of files may hold line breaks, and a line is a finding.
    return " ".join(text.split()) if "\n" in text else text
