"""Test the decorator of tests that run on both event loops."""

import asyncio

import pytest

from tests.server.loops import LOOP_TYPES, on_both_loops


@on_both_loops
async def test_a_test_runs_on_the_loop_that_its_id_names(request: pytest.FixtureRequest) -> None:
    assert type(asyncio.get_running_loop()) is LOOP_TYPES[request.node.callspec.id]
