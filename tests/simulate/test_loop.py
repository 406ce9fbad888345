"""Test the loop: its time, its order, and its ends."""

import asyncio
from random import Random

import pytest
from credit_simulate.loop import Stalled, VirtualLoop


def _order(seed: int, *, reorders: bool) -> list[int]:
    loop = VirtualLoop(Random(seed), reorders=reorders)
    order: list[int] = []

    async def note(number: int) -> None:
        await asyncio.sleep(0)
        order.append(number)

    async def main() -> None:
        await asyncio.gather(*map(note, range(6)))

    loop.run_until_complete(main())
    loop.close()
    return order


def test_an_hour_passes_at_once() -> None:
    loop = VirtualLoop(Random(0), reorders=True)
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() == pytest.approx(3600, abs=0.01)
    loop.close()


def test_the_seed_decides_the_order_of_tasks() -> None:
    assert _order(1, reorders=False) == list(range(6))
    assert _order(1, reorders=True) == _order(1, reorders=True)
    assert len({tuple(_order(seed, reorders=True)) for seed in range(8)}) > 1


def test_a_simulation_in_which_nothing_can_happen_ends() -> None:
    loop = VirtualLoop(Random(0), reorders=False)
    with pytest.raises(Stalled, match="no timer"):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_a_simulation_that_goes_on_forever_ends() -> None:
    loop = VirtualLoop(Random(0), reorders=False)

    async def spin() -> None:
        while True:  # noqa: ASYNC110 - it is what the test is about
            await asyncio.sleep(0)

    with pytest.raises(Stalled, match="does not end"):
        loop.run_until_complete(spin())
    (task,) = asyncio.all_tasks(loop)
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()


def test_a_pause_ends_after_its_time_or_with_its_task() -> None:
    loop = VirtualLoop(Random(0), reorders=False)

    async def main() -> None:
        cancelled = loop.pause(1)
        cancelled.cancel()
        await asyncio.gather(loop.pause(3), loop.pause(2))
        assert cancelled.cancelled()

    loop.run_until_complete(main())
    assert loop.time() == pytest.approx(3, abs=0.01)
    loop.close()
