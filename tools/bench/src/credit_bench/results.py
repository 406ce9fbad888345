"""The results of a group of workloads, and their file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from credit_bench.audit import Audit
from credit_bench.facts import Facts
from credit_bench.overload import Overload
from credit_bench.sample import Sample
from credit_bench.workloads import System

# The status of a call that the server rejects because of the load, without a change.
REJECTED = "UNAVAILABLE"

_DIGITS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A sample with its workload, system and repetition.

    Attributes:
        workload: The name of the workload.
        system: The system that was measured.
        repetition: The number of the repetition, from 1.
        sample: The sample.
    """

    workload: str
    system: System
    repetition: int
    sample: Sample

    @property
    def failures(self) -> dict[str, int]:
        """Return the failed calls by status, without those that were rejected for the load."""
        errors = self.sample.errors.items()
        return {status: count for status, count in errors if status != REJECTED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The result of a group.

    Attributes:
        group: The group.
        facts: The machine, the versions and the time.
        measurements: The measurements, in order.
        overloads: The goodput of each server under ten times the load.
        audits: The audit of each database after the group, by a description.
        unavailable: The systems that were not measured, with the reason.
    """

    group: str
    facts: Facts
    measurements: Sequence[Measurement] = ()
    overloads: Sequence[Overload] = ()
    audits: Mapping[str, Audit]
    unavailable: Mapping[System, str]

    @property
    def clean(self) -> bool:
        """Return whether every audit passed and no call failed outside the overload."""
        failed = any(entry.failures for entry in self.measurements)
        return not failed and all(audit.passed for audit in self.audits.values())

    def write(self, folder: Path) -> None:
        """Write the result to its file in a folder: one measurement a line."""
        folder.mkdir(parents=True, exist_ok=True)
        fields = asdict(self)
        many = {name: fields.pop(name) for name in ("measurements", "overloads")}
        lines = [f'"{name}": {_json(value)}' for name, value in fields.items()]
        for name, values in many.items():
            rows = ",\n".join(_json(value) for value in values)
            lines.append(f'"{name}": [\n{rows}\n]')
        (folder / f"{self.group}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def read(path: Path) -> Result:
    """Return the result that `Result.write` wrote."""
    fields = json.loads(path.read_text())
    return Result(
        group=fields["group"],
        facts=fields["facts"],
        measurements=[
            Measurement(**{**entry, "system": System(entry["system"]), "sample": _sample(entry)})
            for entry in fields["measurements"]
        ],
        overloads=[
            Overload(
                **{
                    **entry,
                    "system": System(entry["system"]),
                    "searched": {
                        int(callers): Sample(**sample)
                        for callers, sample in entry["searched"].items()
                    },
                    "flooded": Sample(**entry["flooded"]),
                    "again": Sample(**entry["again"]),
                }
            )
            for entry in fields["overloads"]
        ],
        audits={name: Audit(**audit) for name, audit in fields["audits"].items()},
        unavailable={System(name): reason for name, reason in fields["unavailable"].items()},
    )


def read_all(folder: Path) -> dict[str, Result]:
    """Return the results of a folder by group."""
    results = [read(path) for path in sorted(folder.glob("*.json"))]
    return {result.group: result for result in results}


def without_paths(result: Result, folder: Path) -> Result:
    """Return a result whose reasons do not name the folder of the run."""
    reasons = {
        system: reason.replace(str(folder), "…") for system, reason in result.unavailable.items()
    }
    return replace(result, unavailable=reasons)


def _sample(entry: Mapping[str, Any]) -> Sample:
    return Sample(**entry["sample"])


def _json(value: object) -> str:
    return json.dumps(_rounded(value), separators=(", ", ": "))


def _rounded(value: Any) -> Any:
    """Return the value with fewer digits: the last ones are below the measurement's precision."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(item) for item in value]
    return value
