"""Test the tables of a report, the longest silence, and the command that prints Markdown."""

import sys
from pathlib import Path

import pytest
from credit_torture import main
from credit_torture.check import longest_silence_seconds
from credit_torture.report import Report, load

REPORT = Report(
    seed=7,
    seconds=60.0,
    faults={"kill -9 of a server": 3, "full disk of a mongod": 1},
    overlaps=2,
    calls={"Credit": {"acknowledged": 5, "unknown": 1}, "GetAppBalance": {"shown": 4}},
    entries=1234,
    silence_seconds=4.25,
    reads=4,
    watched=9,
    unchecked=0,
    did_not_happen={"full disk of a mongod": {"only root may mount": 1}},
    findings=["acknowledged and lost"],
)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert load(REPORT.write(tmp_path)) == REPORT


def test_the_command_prints_the_tables_of_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = REPORT.write(tmp_path)
    monkeypatch.setattr(sys, "argv", ["credit-torture", "table", str(path)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0
    shown = capsys.readouterr().out.splitlines()
    assert "| kill -9 of a server | 3 |" in shown
    assert "| full disk of a mongod | only root may mount | 1 |" in shown
    assert "| **all**, of which 2 began during another one | 4 |" in shown
    assert "| Credit | 5 |  |  |  |  | 1 |  |  |" in shown
    assert "| longest time without an acknowledged write | 4.2 s |" in shown
    assert "| **findings** | **1** |" in shown


@pytest.mark.parametrize(
    ("acknowledged", "seconds"), [([], 10), ([2, 9], 7), ([9, 1, 5], 4), ([-5, 1, 20], 9)]
)
def test_the_longest_silence_is_within_the_time_of_the_faults(
    acknowledged: list[int], seconds: int
) -> None:
    nanoseconds = [at * 10**9 for at in acknowledged]
    assert longest_silence_seconds(nanoseconds, (0, 10**10)) == seconds
