"""Report the findings of a verification: as a table for people, and as JSON for programs."""

import json

from credit_server.verify.findings import Code, Finding
from credit_server.verify.progress_file import finding_json
from credit_server.verify.span_check import Found

EXIT_SOUND = 0
EXIT_FINDINGS = 1
EXIT_UNCHECKED = 2

# The findings that the table shows of each kind.
_SHOWN_MAX = 10


def exit_code(found: Found) -> int:
    """Return 0 if the database is sound, and 1 if something was found."""
    return EXIT_FINDINGS if found.counts else EXIT_SOUND


def as_json(found: Found) -> str:
    """Return a JSON document."""
    return json.dumps(
        {
            "sound": not found.counts,
            "users": found.users,
            "entries": found.entries,
            "counts": {code.value: found.counts[code] for code in Code if found.counts[code]},
            "findings": [
                {**finding_json(finding), "remedy": finding.code.remedy.name.lower()}
                for finding in ordered(found)
            ],
        },
        indent=2,
    )


def as_text(found: Found) -> str:
    """Return a table of the findings, the remedy for each kind, and a summary line."""
    extent = f"{found.users:,} users, {found.entries:,} entries"
    total = sum(found.counts.values())
    if not total:
        return f"sound: {extent}; no findings"
    lines = []
    for code in (code for code in Code if found.counts[code]):
        lines += [f"{code.value} ({found.counts[code]:,}): {code.meaning}"]
        of_code = [finding for finding in found.findings if finding.code is code]
        rows = [(place(finding), finding.found) for finding in of_code[:_SHOWN_MAX]]
        width = max(len(where) for where, _ in rows)
        lines += [f"  {where:<{width}}  {what}" for where, what in rows]
        if (more := found.counts[code] - len(rows)) > 0:
            lines.append(f"  and {more:,} more")
        lines.append(f"  -> {code.remedy.value}")
    lines.append(f"NOT SOUND: {extent}; {total:,} findings of {len(found.counts):,} kinds")
    return "\n".join(lines)


def place(finding: Finding) -> str:
    """Return where a finding is, for people."""
    parts = [
        f"{name} {value}"
        for name, value in (
            ("user", finding.user_id),
            ("app", finding.app_id),
            ("entry", finding.sequence),
        )
        if value
    ]
    return ", ".join(parts) or "database"


def ordered(found: Found) -> list[Finding]:
    """Return the findings by user, app and entry."""
    return sorted(
        found.findings, key=lambda each: (each.user_id, each.app_id, each.sequence, each.code.value)
    )
