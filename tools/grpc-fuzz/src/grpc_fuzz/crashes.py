"""Failures on disk, one file each. The next run sends them before everything else."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpc_fuzz.model import Binding, BrokenRule, Case, Failure, Metadata, Twin, WireScript, WireStep
from grpc_fuzz.schema import Schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Crash:
    """A stored failure.

    Attributes:
        id: An id made from the failure's key, 8 hexadecimal digits.
        check: The check that failed.
        cause: The cause of the failure.
        case: The case that failed.
    """

    id: str
    check: str
    cause: str
    case: Case


def crash_id(failure: Failure) -> str:
    """Return the id of a failure, which is the same in every run."""
    return hashlib.sha256(json.dumps(failure.key).encode()).hexdigest()[:8]


class Crashes:
    """The stored failures in a directory.

    Attributes:
        directory: The directory of the files, which need not exist.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def save(self, failure: Failure, origin: Mapping[str, Any] | None = None) -> str:
        """Write a failure, in place of an earlier one with the same id.

        Args:
            failure: The failure.
            origin: The options of the run that found it.

        Returns:
            The id.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        name = crash_id(failure)
        document = {
            "id": name,
            "check": failure.check,
            "severity": failure.severity.value,
            "cause": failure.cause,
            "case": case_to_json(failure.case),
            "reproducers": dict(failure.reproducers),
            "origin": None if origin is None else dict(origin),
        }
        text = json.dumps(document, indent=1, ensure_ascii=False)
        # A run that is killed must not leave a partial file.
        partial = self.directory / f"{name}.tmp"
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.directory / f"{name}.json")
        return name

    # Any: JSON.
    def origins(self, names: Sequence[str] = ()) -> tuple[Mapping[str, Any], ...]:
        """Return the different options of the runs that found the failures.

        Args:
            names: The ids of the failures; empty for all.
        """
        found: list[Mapping[str, Any]] = []
        for path in sorted(self.directory.glob("*.json")):
            if names and path.stem not in names:
                continue
            origin = json.loads(path.read_text(encoding="utf-8")).get("origin")
            if origin is not None and origin not in found:
                found.append(origin)
        return tuple(found)

    def load(self, schema: Schema) -> tuple[Crash, ...]:
        """Return the stored failures whose methods the contract still has, ordered by id."""
        found = []
        for path in sorted(self.directory.glob("*.json")):
            document = json.loads(path.read_text(encoding="utf-8"))
            try:
                case = case_from_json(document["case"], schema)
            except KeyError:
                continue
            crash = Crash(
                id=document["id"], check=document["check"], cause=document["cause"], case=case
            )
            found.append(crash)
        return tuple(found)


# Any: JSON.
def case_to_json(case: Case) -> dict[str, Any]:
    """Return a case as JSON, with bytes in base64 and the method as its path."""
    return {
        "method": case.method.path,
        "phase": case.phase,
        "positive": case.positive,
        "requests": [_encode(request) for request in case.requests],
        "broken": None if case.broken is None else dataclasses.asdict(case.broken),
        "metadata": [
            [key, value if isinstance(value, str) else {"base64": _encode(value)}]
            for key, value in case.metadata
        ],
        "description": case.description,
        "twin": None if case.twin is None else _twin_to_json(case.twin),
        "wire": None if case.wire is None else [_step_to_json(step) for step in case.wire.steps],
        "expected": None if case.expected is None else sorted(case.expected),
        "before": [case_to_json(call) for call in case.before],
        "bindings": [dataclasses.asdict(binding) for binding in case.bindings],
        "presented": case.presented,
        "about": case.about,
    }


def case_from_json(document: dict[str, Any], schema: Schema) -> Case:
    """Return the case that `case_to_json` wrote.

    Raises:
        KeyError: The contract no longer has the method.
    """
    broken, twin, wire = document["broken"], document["twin"], document["wire"]
    return Case(
        method=schema.method(document["method"]),
        phase=document["phase"],
        positive=document["positive"],
        requests=tuple(_decode(request) for request in document["requests"]),
        broken=None if broken is None else BrokenRule(**broken),
        metadata=_metadata_from_json(document["metadata"]),
        description=document["description"],
        twin=None if twin is None else _twin_from_json(twin),
        wire=None if wire is None else WireScript(steps=tuple(map(_step_from_json, wire))),
        expected=None if document["expected"] is None else frozenset(document["expected"]),
        before=tuple(case_from_json(call, schema) for call in document["before"]),
        bindings=tuple(Binding(**binding) for binding in document["bindings"]),
        presented=document.get("presented", "valid"),
        about=document.get("about", "method" if wire is None else "runtime"),
    )


def _metadata_from_json(pairs: list[Any]) -> Metadata:
    return tuple(
        (key, value if isinstance(value, str) else _decode(value["base64"])) for key, value in pairs
    )


def _twin_to_json(twin: Twin) -> dict[str, Any]:
    return {"relation": twin.relation, "requests": [_encode(entry) for entry in twin.requests]}


def _twin_from_json(document: dict[str, Any]) -> Twin:
    requests = tuple(_decode(entry) for entry in document["requests"])
    return Twin(relation=document["relation"], requests=requests)


def _step_to_json(step: WireStep) -> dict[str, Any]:
    return {
        "action": step.action,
        "headers": [[_encode(name), _encode(value)] for name, value in step.headers],
        "payload": _encode(step.payload),
        "end_stream": step.end_stream,
        "times": step.times,
    }


def _step_from_json(document: dict[str, Any]) -> WireStep:
    return WireStep(
        action=document["action"],
        headers=tuple((_decode(name), _decode(value)) for name, value in document["headers"]),
        payload=_decode(document["payload"]),
        end_stream=document["end_stream"],
        times=document["times"],
    )


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text)
