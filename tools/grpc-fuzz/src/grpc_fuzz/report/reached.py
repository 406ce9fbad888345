"""What the `coverage` command shows."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

# What `Reach.to_json` makes. Any: JSON.
Reached = Mapping[str, Mapping[str, Any]]


def lines(reached: Reached) -> Iterator[Text]:
    """A paragraph for each method: what was reached, and what there is beside that."""
    for path, method in reached.items():
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
    missing = [name for name, reached in method["fields"].items() if not reached]
    missing += [name for name in method["declared_reasons"] if name not in method["reasons"]]
    if not method["declared_reasons"]:
        declared = method["declared_statuses"]
        missing += [name for name in declared if name not in method["statuses"]]
    return missing
