"""Run a scenario on asyncio's loop and on uvloop's: their transports close differently."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest
import uvloop

Scenario = Callable[[], Coroutine[None, None, None]]
OnLoop = Callable[[Scenario], Coroutine[None, None, None]]


async def _on_asyncio(scenario: Scenario) -> None:
    await scenario()


async def _on_uvloop(scenario: Scenario) -> None:
    # A new loop in a new thread: the loop of this thread belongs to the test session.
    await asyncio.to_thread(uvloop.run, scenario())


on_both_loops = pytest.mark.parametrize(
    "on_loop", [pytest.param(_on_asyncio, id="asyncio"), pytest.param(_on_uvloop, id="uvloop")]
)
