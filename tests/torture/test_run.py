"""Run servers and mongods under a few faults: every answer must be explained."""

from pathlib import Path
from typing import get_args

import pytest
from credit_testing.accounts.journal import Kind
from credit_testing.accounts.rules.requests import Write
from credit_torture.faults import FAULTS
from credit_torture.nemesis import Pace
from credit_torture.report import FILE, load
from credit_torture.run import Plan, Run

KINDS = (
    "kill -9 of a server",
    "kill -9 of a worker",
    "kill -9 of the primary",
    "step-down of the primary",
    "primary cut off from all",
    "clock moved within the limit",
)
# Enough writes to have each kind.
_PACE = Pace(hold_seconds=(0.2, 2.0), pause_seconds=0.2, writes=25, concurrent_max=2)


@pytest.mark.timeout(1500)  # three mongods and two servers start, and some of them again
async def test_nothing_is_lost_and_each_answer_is_explained(tmp_path: Path, seed: int) -> None:
    assert set(KINDS) <= FAULTS.keys()
    plan = Plan(
        seed=seed,
        seconds=None,
        faults=len(KINDS),
        kinds=KINDS,
        pace=_PACE,
        workers=(1, 2),
        callers=1,
        cohorts=2,
        operations=60,
        rate=60,
    )
    run = Run(plan, tmp_path / "run")
    report = await run.run()
    assert report.findings == []
    assert report.faults == dict.fromkeys(sorted(KINDS), 1)
    writes = {request.__name__.removesuffix("Request") for request in get_args(Write)}
    reads = {kind.value for kind in Kind}
    assert report.calls.keys() == {*writes, *reads, "atomic BatchWrite"}
    for read in reads:
        assert report.calls[read]["shown"] > 0
    assert report.totals()["acknowledged"] > 0
    assert report.reads > 0
    assert report.watched > 0
    assert load(tmp_path / "run" / FILE) == report
    assert not list((tmp_path / "run" / "nodes").glob("*/database/*"))
