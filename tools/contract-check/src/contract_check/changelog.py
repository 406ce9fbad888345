"""`contracts/CHANGELOG.md`: a heading and a line for each release, newest first."""

import datetime as dt
import re
from collections.abc import Sequence

from contract_check.errors import CheckError
from contract_check.version import Version

FILE = "CHANGELOG.md"

_UNRELEASED = "## Unreleased\n"
_RELEASE = re.compile(r"^## (\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d$", re.MULTILINE)


def recorded(text: str) -> set[Version]:
    """Return the versions that have a heading."""
    return {Version.parse(found) for found in _RELEASE.findall(text)}


def with_release(
    text: str,
    version: Version,
    *,
    today: dt.date,
    replaces: Sequence[Version] = (),
    reason: str = "",
) -> str:
    """Add a heading for a release below "Unreleased"; the text that was there belongs to it.

    Args:
        text: The changelog as it is.
        version: What is released.
        today: The day of the release.
        replaces: The baselines that it retires.
        reason: Why it retires them.

    Raises:
        CheckError: The changelog has no heading "Unreleased".
    """
    if text.count(_UNRELEASED) != 1:
        raise CheckError(f"contracts/{FILE} needs one heading {_UNRELEASED.strip()!r}")
    line = "Breaks no earlier baseline."
    if replaces:
        line = f"Replaces {', '.join(map(str, replaces))}: {reason}"
    heading = f"## {version} - {today.isoformat()}"
    return text.replace(_UNRELEASED, f"{_UNRELEASED}\n{heading}\n- {line}\n")
