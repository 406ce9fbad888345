"""A time limit ends in TimeoutError, also in a task that was cancelled before."""

import asyncio

import pytest
from credit_models.timeouts import Timeout

SHORT, NEVER = 0.001, 3600.0


async def test_a_block_that_takes_too_long_ends() -> None:
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(TimeoutError):
        async with Timeout(SHORT) as limit:
            await asyncio.sleep(NEVER)
    assert limit.expired()
    assert task.cancelling() == 0


@pytest.mark.parametrize("seconds", [None, NEVER])
async def test_a_block_that_ends_in_time_keeps_its_result_and_error(seconds: float | None) -> None:
    async with Timeout(seconds) as limit:
        await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError):
        async with Timeout(seconds):
            raise ZeroDivisionError
    assert not limit.expired()


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_a_limit_of_0_ends_a_block_that_waits(seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with Timeout(seconds):
            await asyncio.sleep(NEVER)
    async with Timeout(seconds):
        pass


async def test_a_cleanup_after_a_cancellation_has_a_limit_too() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(NEVER)
        finally:
            try:
                async with Timeout(SHORT):
                    await asyncio.sleep(NEVER)
            except TimeoutError:
                ended.append("in time")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["in time"]


async def test_a_cancellation_from_elsewhere_has_priority() -> None:
    async def work() -> None:
        async with Timeout(0):
            try:
                await asyncio.sleep(NEVER)
            finally:
                task.cancel()  # at the same time as the limit

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_limit_needs_a_task() -> None:
    loop = asyncio.get_running_loop()
    problem: asyncio.Future[str] = loop.create_future()

    def enter() -> None:
        try:
            Timeout(1).__aenter__().send(None)
        except RuntimeError as error:
            problem.set_result(str(error))

    loop.call_soon(enter)
    assert "inside a task" in await problem
