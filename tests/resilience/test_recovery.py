"""Test that callers see only latency from a hung store, a failing disk and a rolling restart.

Other faults have tests of their own: `tests/e2e/test_server_restart.py` ends the server,
`tests/e2e/test_workers.py` replaces workers, and `tests/e2e/test_watch_elections.py` and
`test_money_is_conserved.py` kill databases.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
from credit_client import ClientSettings
from credit_resilience.recovery import __main__ as recovery
from credit_resilience.recovery.callers import Experience
from credit_resilience.recovery.faults import FAULTS, Fault
from credit_testing.server import PATIENT

# Long enough for a machine of any speed: no test measures times.
SETTINGS = ClientSettings(timeout_seconds=300, retry_attempts_max=100, retry_budget_tokens=1000)
FAULT = {fault.name: fault for fault in FAULTS}


@pytest.mark.parametrize("name", ["hung-primary", "refused-writes", "rolling-restart"])
async def test_no_write_fails_is_lost_or_applied_twice(name: str, tmp_path: Path) -> None:
    experience = await FAULT[name].run(tmp_path, SETTINGS, PATIENT)  # it checks the ledger
    assert experience.failed == []
    assert experience.acknowledged > 0


@pytest.mark.parametrize(
    ("seconds", "failed", "status"),
    [(3.0, [], 0), (3.1, [], 1), (0.1, ["StoreUnavailable"], 1)],
)
def test_the_command_fails_if_a_write_fails_or_exceeds_the_limit(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float,
    failed: list[str],
    status: int,
) -> None:
    async def run(_: Path, settings: ClientSettings, options: Sequence[str]) -> Experience:
        assert settings == ClientSettings()
        assert not options
        return Experience(longest_seconds=seconds, acknowledged=9, failed=failed)

    fault = Fault(name="broken", text="something breaks", limit_seconds=3.0, run=run)
    monkeypatch.setattr(recovery, "FAULTS", [fault])
    monkeypatch.setattr("sys.argv", ["recovery", "broken", "--rounds", "2"])
    assert recovery.main() == status
    row = f"| something breaks | 3 s | {seconds} to {seconds} s | 18 | {2 * len(failed)} |"
    assert capsys.readouterr().out.splitlines()[-1] == row
