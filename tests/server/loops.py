"""Runs a scenario on asyncio's loop and on uvloop's: their transports differ when they close."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest
import uvloop

Scenario = Callable[[], Coroutine[None, None, None]]
OnLoop = Callable[[Scenario], Coroutine[None, None, None]]


async def _on_asyncio(scenario: Scenario) -> None:
    await scenario()


async def _on_uvloop(scenario: Scenario) -> None:
    # A loop of its own in a thread of its own: this thread's belongs to the test session.
    await asyncio.to_thread(uvloop.run, scenario())


on_both_loops = pytest.mark.parametrize(
    "on_loop", [pytest.param(_on_asyncio, id="asyncio"), pytest.param(_on_uvloop, id="uvloop")]
)
