"""Test that the machine and its auditor find the bug of each broken ledger, and no other."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
from credit_client import CreditClient
from credit_client.testing import FakeCreditService, FakeLedger, fake_credits
from hypothesis.errors import Flaky

from tests.fuzz.broken_ledgers import BROKEN
from tests.fuzz.ledger_machine import Loop, explore

CLIENTS = 2
EXAMPLES = 10
EXAMPLES_MAX = 200
# This seed finds every bug early. Others can take thirty times the CPU time. The test of a correct
# ledger uses a new seed in each run.
BUG_SEED = 4


@contextmanager
def _loop(ledger: FakeLedger) -> Iterator[Loop]:
    service = FakeCreditService(ledger)
    stack = AsyncExitStack()

    async def connect() -> list[CreditClient]:
        return [await stack.enter_async_context(fake_credits(service)) for _ in range(CLIENTS)]

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        try:
            yield Loop(runner, runner.run(connect()))
        finally:
            runner.run(stack.aclose())


def test_a_correct_ledger_passes(seed: int) -> None:
    with _loop(FakeLedger()) as loop:
        explore(loop, seed=seed, examples=EXAMPLES)


@pytest.mark.parametrize("broken", BROKEN)
def test_the_bug_of_a_broken_ledger_is_found(broken: Callable[[], FakeLedger]) -> None:
    # Flaky: found once, and not found when hypothesis repeated the same calls.
    with _loop(broken()) as loop, pytest.raises((AssertionError, Flaky)):
        explore(loop, seed=BUG_SEED, examples=EXAMPLES_MAX, shrink=False)
