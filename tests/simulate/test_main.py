"""Test the command: what it prints, and its exit status."""

import re
import sys

import pytest
from credit_simulate import main
from credit_simulate.mutations import MUTATIONS


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["credit-simulate", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main.main()
    return exit_.value.code


def test_a_seed_without_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--seed", "3", "--steps", "4", "--trace") == 0
    shown = capsys.readouterr().out
    assert "seed 3: " in shown
    assert "starts: " in shown


def test_some_seeds_in_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--seeds", "3", "--steps", "4", "--jobs", "1") == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_a_failure_names_its_seed_and_what_is_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mutation = next(each for each in MUTATIONS if each.name == "the totals of apps only grow")
    with mutation.planted():
        assert _run(monkeypatch, "--seed", "0", "--steps", "40") == 1
    shown = capsys.readouterr()
    assert "credit-simulate --seed 0 --steps 40" in shown.out
    kept = re.search(r"(\d+) of 40 steps and (\d+) of \d+ faults are enough", shown.out)
    assert kept is not None
    assert int(kept[1]) < 20
    assert shown.out.count("\n  step ") == int(kept[1])
    assert shown.out.count("\n  fault ") == int(kept[2])
    assert "lines of the trace:" in shown.out
    assert "nothing explains this: " in shown.err
