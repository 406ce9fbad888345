"""Test that a service that does not recover ends the run, and does not make it hang."""

import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from credit_testing.child import ChildFailed, started
from credit_torture import nemesis
from credit_torture.nemesis import Nemesis, Pace
from credit_torture.record import Recorder
from credit_torture.run import SETTLING, Plan, Run

PACE = Pace(hold_seconds=(0, 0), pause_seconds=0.1, writes=1, concurrent_max=1)


@asynccontextmanager
async def _harmless(_: Any) -> AsyncIterator[str]:  # Any: it affects no part of the world
    yield "nothing"


async def test_a_service_that_acknowledges_nothing_after_a_fault_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nemesis, "FAULTS", {"harmless": _harmless})
    monkeypatch.setattr(nemesis, "PATIENCE_SECONDS", 0.2)
    world: Any = SimpleNamespace(random=Random(1))  # Any: only its random numbers are used
    recorder = Recorder(tmp_path / "faults")
    causing = Nemesis(world, PACE, recorder, lambda: 0)
    with pytest.RaisesGroup(pytest.RaisesExc(ChildFailed, match="not acknowledged after")):
        await causing.run(["harmless"], lambda: True)
    recorder.close()


async def test_callers_that_end_during_the_faults_end_the_run(tmp_path: Path) -> None:
    plan = Plan(seed=1, seconds=1, faults=None, kinds=(), pace=PACE)
    run = Run(plan, tmp_path / "run")
    for phase in (SETTLING, "faults"):
        run.phase = phase
        async with started(sys.executable, "-c", "", stdout=PIPE) as process:
            if phase == SETTLING:
                await run._follow(0, process)
                continue
            with pytest.raises(ChildFailed, match="process 0 of the callers ended"):
                await run._follow(0, process)
