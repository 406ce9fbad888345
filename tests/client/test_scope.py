"""Scopes end somebody's waiting without harming the task."""

import asyncio

import pytest
from credit_client.scope import Scope


class Ended(Exception):
    pass


async def _wait_in(scope: Scope, entered: asyncio.Event) -> None:
    with scope:
        entered.set()
        await asyncio.Event().wait()


async def test_who_is_inside_gets_the_error() -> None:
    scope, entered = Scope(), asyncio.Event()
    task = asyncio.create_task(_wait_in(scope, entered))
    await entered.wait()
    scope.cancel(Ended())
    with pytest.raises(Ended):
        await task
    assert task.cancelling() == 0


async def test_who_comes_later_gets_the_first_error() -> None:
    scope = Scope()
    scope.cancel(Ended("first"))
    scope.cancel(Ended("second"))
    with pytest.raises(Ended, match="first"), scope:
        pass


async def test_a_real_cancellation_at_the_same_moment_wins() -> None:
    scope, entered = Scope(), asyncio.Event()
    task = asyncio.create_task(_wait_in(scope, entered))
    await entered.wait()
    scope.cancel(Ended())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_ends_its_own_scope_and_leaves_is_not_cancelled_later() -> None:
    scope = Scope()
    with scope:
        scope.cancel(Ended())
    for _ in range(3):
        await asyncio.sleep(0)  # this is where it would be
    with pytest.raises(Ended), scope:
        pass


async def test_who_ends_its_own_scope_and_waits_in_it_gets_the_error() -> None:
    scope = Scope()

    async def end_and_wait() -> None:
        with scope:
            scope.cancel(Ended())
            await asyncio.Event().wait()

    with pytest.raises(Ended):
        await end_and_wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_timeout_around_still_works_afterwards() -> None:
    scope = Scope()

    async def ended_and_then_too_slow() -> None:
        async with asyncio.timeout(0.01):
            asyncio.get_running_loop().call_soon(scope.cancel, Ended())
            with pytest.raises(Ended), scope:
                await asyncio.Event().wait()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await ended_and_then_too_slow()


async def test_an_error_of_the_body_passes() -> None:
    with pytest.raises(KeyError), Scope():
        raise KeyError
