"""The report for machines: one JSON object per line and event, written at once."""

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grpc_fuzz.crashes import case_to_json
from grpc_fuzz.model import Case, Failure, Method, Reply
from grpc_fuzz.outcome import Outcome
from grpc_fuzz.settings import Settings


class Ndjson:
    """Writes a line for the start, each phase, case and failure, and the end."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()

    def on_start(self, settings: Settings, methods: Sequence[Method]) -> None:
        """Write the target, the seed and the methods."""
        paths = [method.path for method in methods]
        self._write(
            {
                "event": "start",
                "target": str(settings.target),
                "seed": settings.seed,
                "methods": paths,
            }
        )

    def on_phase(self, name: str) -> None:
        """Write the name of the phase."""
        self._write({"event": "phase", "phase": name})

    def on_case(self, case: Case, reply: Reply, failures: list[Failure]) -> None:
        """Write a summary of the case and the reply."""
        self._write(
            {
                "event": "case",
                "id": case.id,
                "method": case.method.path,
                "phase": case.phase,
                "positive": case.positive,
                "broken": None if case.broken is None else str(case.broken),
                "description": case.description,
                "status": reply.status,
                "seconds": round(reply.seconds, 6),
                "failed": [failure.check for failure in failures],
            }
        )

    def on_failure(self, failure: Failure, name: str) -> None:
        """Write everything that is needed to reproduce the failure."""
        self._write(
            {
                "event": "failure",
                "id": name,
                "check": failure.check,
                "severity": failure.severity.value,
                "cause": failure.cause,
                "of_runtime": failure.of_runtime,
                "status": failure.reply.status,
                "message": failure.reply.message,
                "case": case_to_json(failure.case),
                "reproducers": dict(failure.reproducers),
            }
        )

    def on_end(self, outcome: Outcome) -> None:
        """Write what ended the run early and the totals, and close the file."""
        if outcome.error is not None:
            self._write({"event": "error", "error": outcome.error_line})
        self._write(
            {
                "event": "end",
                "cases": outcome.cases,
                "failures": len(outcome.failures),
                "deviations": len(outcome.deviations),
                "given_up": list(outcome.given_up),
                "seconds": outcome.seconds,
            }
        )
        self._file.close()

    # Any: JSON.
    def _write(self, event: Mapping[str, Any]) -> None:
        line = json.dumps(event, ensure_ascii=True)
        with self._lock:
            self._file.write(f"{line}\n")
