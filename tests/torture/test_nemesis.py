"""Test that only faults that happened are counted, and that a hung service ends the run."""

import itertools
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
from credit_torture.check import FAULTS_FILE, recorded_faults
from credit_torture.links import NotCut
from credit_torture.nemesis import Nemesis, Pace
from credit_torture.record import Recorder
from credit_torture.run import SETTLING, Plan, Run
from credit_torture.world import Impossible

PACE = Pace(hold_seconds=(0, 0), pause_seconds=0.1, writes=1, concurrent_max=1)


@asynccontextmanager
async def _harmless(_: Any) -> AsyncIterator[str]:  # Any: it affects no part of the world
    yield "nothing"


async def test_a_fault_that_did_not_happen_is_recorded_apart_and_caused_until_it_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    @asynccontextmanager
    async def shy(_: Any) -> AsyncIterator[str]:  # Any: as above
        begun.append("shy")
        if len(begun) < 3:
            raise Impossible("too early")
        yield "something"
        if len(begun) < 4:
            raise NotCut("no effect")

    monkeypatch.setattr(nemesis, "FAULTS", {"harmless": _harmless, "shy": shy})
    monkeypatch.setattr(nemesis, "_RETRY_SECONDS", 0)
    world: Any = SimpleNamespace(random=Random(1))  # Any: only its random numbers are used
    recorder = Recorder(tmp_path / FAULTS_FILE)
    writes = itertools.count()
    causing = Nemesis(world, PACE, recorder, lambda: next(writes))
    await causing.run(["harmless", "shy"], lambda: True, faults=2)
    recorder.close()
    happened, attempts = recorded_faults(tmp_path)
    assert {fault["fault"]: fault["target"] for fault in happened} == {
        "harmless": "nothing",
        "shy": "something",
    }
    assert [(each["fault"], each["did_not_happen"]) for each in attempts] == [
        ("shy", "too early"),
        ("shy", "no effect"),
    ]
    assert causing.count == len(happened) == 2


async def test_a_fault_that_has_not_happened_at_the_end_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def never(_: Any) -> AsyncIterator[str]:  # Any: as above
        raise Impossible("never")
        yield

    monkeypatch.setattr(nemesis, "FAULTS", {"never": never})
    world: Any = SimpleNamespace(random=Random(1))  # Any: only its random numbers are used
    recorder = Recorder(tmp_path / FAULTS_FILE)
    causing = Nemesis(world, PACE, recorder, lambda: 0)
    left = iter([True, False])
    await causing.run(["never"], lambda: next(left))
    recorder.close()
    assert causing.count == 0
    assert recorded_faults(tmp_path) == ([], [{"fault": "never", "did_not_happen": "never"}])


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
