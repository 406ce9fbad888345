"""Test that an error in a server's log is a finding unless a fault explains it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from credit_torture import log_check
from credit_torture.faults import FAULTS
from credit_torture.log_check import log_findings

SECOND = 10**9
SKEW = "the clocks of this machine and the store differ: writes are rejected until they agree"
MOVED = {"fault": "clock moved by an hour", "target": "a by 3600.0 s"}
KILLED = {"fault": "kill -9 of a worker", "target": "a"}
STEPPED_DOWN = {"fault": "step-down of the primary", "target": "node 1"}
REPLACED = {"event": "a worker is replaced", "reason": "SIGKILL"}
RESTART = "the restart was cancelled; the workers that serve continue"


# Any: a line of JSON.
def _line(seconds: float, event: str, level: str = "error", **more: Any) -> str:
    at = datetime.fromtimestamp(1000 + seconds, UTC)
    return json.dumps({"event": event, "level": level, "timestamp": at.isoformat(), **more})


def _found(folder: Path, lines: list[str], *faults: dict[str, str]) -> list[str]:
    """Return the findings in a log of server a; each fault lasts from second 10 to second 20."""
    log = folder / "a" / "credit-server-0.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"{line}\n" for line in lines))
    times = {"began": 0, "ended": 10 * SECOND, "wall": 1010 * SECOND}
    return list(log_findings(folder, [{**fault, **times} for fault in faults]))


def test_all_faults_that_explain_an_error_exist() -> None:
    explaining = {kind for _, _, kinds in log_check._EXPLAINED for kind in kinds}
    assert explaining <= FAULTS.keys()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (_line(12, SKEW, skew_seconds=3600.0), MOVED),
        (_line(25, SKEW, skew_seconds=3600.0), MOVED),
        (_line(12, **REPLACED), KILLED),
        (_line(12, RESTART, reason="W: exit status 1."), STEPPED_DOWN),
        (_line(12, RESTART, reason="W: SIGKILL."), KILLED),
        (_line(12, "a worker did not start", reason="W: exit status 1."), STEPPED_DOWN),
        ("credit-server: MongoDB has no primary that can be reached: see", STEPPED_DOWN),
        ("credit-server: MongoDB at 127.0.0.1:1 cannot be reached. 127.0.0.1:1:", STEPPED_DOWN),
    ],
)
def test_an_error_is_explained_by_its_fault_alone(
    tmp_path: Path, line: str, fault: dict[str, str]
) -> None:
    other = {"fault": "SIGSTOP of a server", "target": "a"}
    assert _found(tmp_path / "1", [line], fault, other) == []
    assert len(_found(tmp_path / "2", [line], other)) == 1


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (_line(9, SKEW), MOVED),
        (_line(90, SKEW), MOVED),
        (_line(12, SKEW), MOVED | {"target": "b by 3600.0 s"}),
        (_line(12, **REPLACED), KILLED | {"target": "b"}),
        (_line(12, "a worker is replaced", reason="exit status 1"), KILLED),
        (_line(12, SKEW, exception="Traceback (most recent call last)"), MOVED),
        (_line(12, "slow", "warning", exception="Traceback (most recent call last)"), MOVED),
        (_line(12, "call", status="UNKNOWN"), STEPPED_DOWN),
        ("Traceback (most recent call last):", STEPPED_DOWN),
        ("1", STEPPED_DOWN),
        ('{"event": "a batch failed"}', STEPPED_DOWN),
        ("credit-server: the background task 'sweeper' failed", STEPPED_DOWN),
    ],
)
def test_another_error_is_found(tmp_path: Path, line: str, fault: dict[str, str]) -> None:
    (finding,) = _found(tmp_path, [_line(12, "a batch failed", "warning"), line], fault)
    assert finding == f"server a logged in credit-server-0.log: {line}"
