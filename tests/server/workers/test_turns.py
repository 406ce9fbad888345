"""Test the turns of shards: one holder at a time, in order, and released by death."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE

import pytest
from credit_server.workers import turns
from credit_server.workers.turns import Turn, make_turns, open_turns


def _turns(count: int) -> list[Turn]:
    """Return handles of one turn, each as another process would open it."""
    files = make_turns(1)
    handles = [open_turns([os.dup(each) for each in files])[0] for _ in range(count)]
    for each in files:
        os.close(each)
    return handles


async def test_one_holder_at_a_time_has_a_turn() -> None:
    held, seen = 0, []

    async def hold(turn: Turn) -> None:
        nonlocal held
        for _ in range(20):
            async with turn:
                held += 1
                seen.append(held)
                await asyncio.sleep(0)
                held -= 1

    async with asyncio.TaskGroup() as holders:
        for turn in _turns(4):
            holders.create_task(hold(turn))
    assert seen == [1] * 80


async def test_a_holder_that_takes_it_again_waits_behind_those_that_wait() -> None:
    first, second = _turns(2)
    order: list[str] = []
    async with first:
        waiting = asyncio.create_task(_hold(second, order, "second"))
        while first.take_if_free():  # noqa: ASYNC110 - until the other waits in its thread
            await asyncio.sleep(0)
    await _hold(first, order, "first")
    await waiting
    assert order == ["second", "first"]


async def _hold(turn: Turn, order: list[str], name: str) -> None:
    async with turn:
        order.append(name)


async def test_a_stalled_holder_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_WAIT_SECONDS_MAX", 0.01)
    stalled, first, second = _turns(3)
    order: list[str] = []
    async with stalled:
        for _ in range(2):  # it waits once
            await _hold(first, order, "without the turn")
        monkeypatch.setattr(turns, "_WAIT_SECONDS_MAX", 60.0)
        waiting = asyncio.create_task(_hold(second, order, "second"))
        await asyncio.sleep(0)
    await waiting  # the first has returned the turn that it got too late
    await _hold(first, order, "first")
    assert order == [*["without the turn"] * 2, "second", "first"]


async def test_a_cancelled_wait_keeps_no_turn() -> None:
    first, second = _turns(2)
    async with first:
        waiting = asyncio.create_task(_hold(second, [], "second"))
        while first.take_if_free():  # noqa: ASYNC110 - until the other one waits in its thread
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    await _hold(first, [], "first")
    async with first:  # it would be entered without the turn
        assert first._has


async def test_shards_do_not_wait_for_each_other() -> None:
    files = make_turns(2)
    first, second = open_turns(files)
    async with first, second:
        pass


async def test_the_death_of_its_holder_releases_a_turn() -> None:
    files = make_turns(1)
    (ours,) = open_turns([os.dup(each) for each in files])
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HOLDER, *map(str, files)), pass_fds=files, stdout=PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"taken\n"
    assert not ours.take_if_free()
    holder.kill()
    async with ours:
        pass
    await holder.communicate()
    for each in files:
        os.close(each)


_HOLDER = """
import signal, sys
from credit_server.workers.turns import open_turns
open_turns([int(each) for each in sys.argv[1:]])[0].take()
print("taken", flush=True)
signal.pause()
"""
