"""Test how many CPUs a process may use: by its affinity, and by the quotas of control groups."""

import os
from pathlib import Path

import pytest
from credit_server.cpus import usable_cpus


@pytest.fixture
def affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.usefixtures("affinity")
@pytest.mark.parametrize(
    ("quotas", "own", "cpus"),
    [
        ({}, "0::/", 8),
        ({"": "max 100000"}, "0::/", 8),
        ({"": "350000 100000"}, "0::/", 3),
        ({"": "50000 100000"}, "0::/", 1),
        ({"": "1600000 100000"}, "0::/", 8),
        (
            {"a.slice": "400000 100000", "a.slice/b.service": "max 100000"},
            "0::/a.slice/b.service",
            4,
        ),
        (
            {"a.slice": "max 100000", "a.slice/b.service": "200000 100000"},
            "0::/a.slice/b.service",
            2,
        ),
        ({"": "200000 100000"}, "4:memory:/x\n0::/elsewhere/on/the/host", 2),
        ({"": "nonsense"}, "0::/", 8),
        ({"": "200000 100000"}, "4:memory:/x", 8),
    ],
)
def test_the_lowest_limit_applies(
    quotas: dict[str, str], own: str, cpus: int, tmp_path: Path
) -> None:
    for folder, quota in quotas.items():
        (tmp_path / "groups" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / folder / "cpu.max").write_text(quota + "\n")
    (tmp_path / "own").write_text(own + "\n")
    found = usable_cpus(cgroups=tmp_path / "groups", own_cgroup=tmp_path / "own")
    assert found == cpus


@pytest.mark.usefixtures("affinity")
def test_the_affinity_applies_where_there_are_no_control_groups(tmp_path: Path) -> None:
    assert usable_cpus(cgroups=tmp_path, own_cgroup=tmp_path / "missing") == 8
