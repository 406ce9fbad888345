"""Format the verdicts as text."""

import textwrap
from collections.abc import Iterable

from contract_check.advice import advice
from contract_check.check import Verdict

_WIDTH = 110
_INDENT = "    "


def report(verdicts: Iterable[Verdict]) -> str:
    """Return the verdicts as text: each violation with what to do instead.

    Violations of the same rule at the same place against several baselines are reported once.
    """
    baselines: dict[tuple[str, str, str], list[str]] = {}
    notes = []
    for verdict in verdicts:
        notes += [f"{verdict.baseline}: {verdict.note}"] if verdict.note else []
        for found in verdict.violations:
            key = (found.where, found.rule, found.message)
            baselines.setdefault(key, []).append(verdict.baseline)
    blocks = [
        f"{where}: {rule} (against {', '.join(names)})\n"
        f"{_INDENT}{message}\n{_wrapped('Instead: ' + advice(rule))}"
        for (where, rule, message), names in baselines.items()
    ]
    return "\n".join([*notes, *blocks])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
